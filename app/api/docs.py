"""Swagger UI and ReDoc, served from here with no other host, under a policy that allows none."""

from functools import cache
from importlib import resources

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Framegate</title>
<link rel="icon" href="static/favicon.png">
{head}
</head>
<body>
{body}
</body>
</html>
"""

_SWAGGER = _PAGE.format(
    head='<link rel="stylesheet" href="static/swagger-ui.css">\n'
    '<link rel="stylesheet" href="static/swagger-more.css">',
    body='<div id="swagger-ui"></div>\n<script src="static/swagger-ui-bundle.js"></script>\n'
    '<script src="static/start-swagger.js"></script>',
)
_REDOC = _PAGE.format(
    head="",
    body='<redoc spec-url="openapi.json"></redoc>\n<script src="static/redoc.standalone.js"></script>',
)
_START = """"use strict";
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
});
"""
# An operation has up to ten error answers of one shape: they shall not bury the one that is wanted.
_MORE_CSS = """.swagger-ui .response[data-code]:not([data-code^="2"]) .response-controls,
.swagger-ui .response[data-code]:not([data-code^="2"]) .tab { display: none; }
.swagger-ui .response[data-code]:not([data-code^="2"], [data-code="422"]) pre { max-height: 7.5em; }
"""
_OWN = {
    "start-swagger.js": ("text/javascript", _START),
    "swagger-more.css": ("text/css", _MORE_CSS),
}
# ReDoc asks another host for its maker's logo; an image that cannot be drawn is left out.
_FOREIGN_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"


@router.get("/docs")
async def swagger() -> Response:
    """Show Swagger UI."""
    return Response(_SWAGGER, media_type="text/html", headers=_HEADERS)


@router.get("/redoc")
async def redoc() -> Response:
    """Show ReDoc."""
    return Response(_REDOC, media_type="text/html", headers=_HEADERS)


@router.get("/static/{name}")
def asset(name: str) -> Response:
    """Give one of the pages' own files."""
    if name in _OWN:
        kind, text = _OWN[name]
        return Response(text, media_type=kind, headers=_HEADERS)
    if name not in _ASSETS:
        raise HTTPException(404)
    headers = {**_HEADERS, "Cache-Control": "public, max-age=3600"}
    return Response(_packaged(name), media_type=_ASSETS[name], headers=headers)


@cache
def _packaged(name: str) -> bytes:
    body = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    return body.replace(_FOREIGN_LOGO, b"data:,") if name == "redoc.standalone.js" else body
