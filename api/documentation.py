"""``/docs``: the reference of the running service as a page to try requests in, without anything from elsewhere.

Swagger UI comes from the files of the package ``fastapi_swagger``; the page has no script of its own in it, so that its
content security policy can forbid them.
"""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi import FastAPI
from fastapi import Request
from fastapi import Response
from fastapi.responses import FileResponse
from fastapi.responses import HTMLResponse

from infra.errors import NotFoundError

router = APIRouter(include_in_schema=False)

_ASSETS = Path(str(files("fastapi_swagger") / "resources"))
_NAMES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles on its elements
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}: reference</title>
<link rel="icon" type="image/png" href="{root}/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="{root}/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-openapi="{root}/openapi.json"></div>
<script src="{root}/docs/assets/swagger-ui-bundle.js"></script>
<script src="{root}/docs/assets/start.js"></script>
</body>
</html>
"""
_START = """const place = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: place.dataset.openapi,
  domNode: place,
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
});
"""


@router.get("/docs")
def page(request: Request) -> HTMLResponse:
    """Show the reference."""
    app: FastAPI = request.app
    root = request.scope.get("root_path", "").rstrip("/")
    return HTMLResponse(_PAGE.format(title=app.title, root=root), headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/assets/start.js")
def start() -> Response:
    """Start Swagger UI."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/assets/{name}")
def asset(name: str) -> FileResponse:
    """Send a file of Swagger UI."""
    if name not in _NAMES:
        raise NotFoundError(f"There is no file {name[:100]!r}.", hint="See /docs.")
    return FileResponse(_ASSETS / name)
