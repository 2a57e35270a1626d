"""The headers of every answer that gives a customer's bytes, or leads to them: no browser runs what they hold."""

from app.api.replies import Headers


def safe_headers(cache_control: bytes, *more: tuple[bytes, bytes]) -> tuple[Headers, Headers]:
    """Give them twice: for pages of our own origin, and for those of any, which a signed URL is for."""
    common: Headers = [
        *more,
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
        (b"cache-control", cache_control),
        (b"vary", b"Authorization, Cookie"),
    ]
    same, cross = [
        [*common, (b"cross-origin-resource-policy", who)] for who in (b"same-origin", b"cross-origin")
    ]
    return same, cross
