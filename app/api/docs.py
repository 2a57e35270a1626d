"""Swagger UI and ReDoc, served from here with no other host, under a policy that allows none."""

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
    head='<link rel="stylesheet" href="static/swagger-ui.css">',
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
  displayRequestDuration: true,
  validatorUrl: null,
});
"""


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
    if name == "start-swagger.js":
        return Response(_START, media_type="text/javascript", headers=_HEADERS)
    if name not in _ASSETS:
        raise HTTPException(404)
    body = resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(
        body, media_type=_ASSETS[name], headers={**_HEADERS, "Cache-Control": "public, max-age=3600"}
    )
