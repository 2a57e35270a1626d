"""Absolute URLs: from FRAMEGATE_PUBLIC_URL, else from the request, whose host was checked at the edge."""

from fastapi import Request

from app.lifespan import services_of


def absolute(request: Request, path: str) -> str:
    """Give the absolute URL of a path (already percent-encoded) of this service."""
    public_url = services_of(request.scope).settings.public_url
    if public_url is not None:
        return public_url + path
    base = request.base_url
    return f"{base.scheme}://{base.netloc}{request.scope.get('root_path', '')}{path}"
