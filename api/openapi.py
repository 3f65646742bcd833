"""The OpenAPI document; ``python -m api.openapi FILE`` writes it."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import MEDIA_TYPE
from api.problems import FieldProblem
from api.problems import Problem

DESCRIPTION = """\
Compressed transformers that are Pareto-optimal as measured on your device.

* **Authentication**: `Authorization: Bearer <key>`.
* **Errors** are `application/problem+json` (RFC 9457). `type` is stable,
  `detail` says what is wrong, `hint` what to do.
* **Creating** with an `Idempotency-Key` can be repeated safely for a day. Not `/v1/keys`: its answers hold secrets,
  which are kept nowhere. **Completing** an upload or a model can be repeated without a key.
* **Lists** are newest first; give `next_cursor` as `cursor` for the next page.
* **Reads** have an `ETag`; send it as `If-None-Match` and get 304 while nothing has changed. That of a job is weak:
  it changes with what happens, not with `elapsed_seconds`.
* **Live progress**: `GET /v1/jobs/{id}/events`, continued with `Last-Event-ID`.
"""

_PROBLEM_RESPONSE = {
    "description": "A problem, as for every request that does not succeed",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    schemas = document["components"]["schemas"]
    template = "#/components/schemas/{model}"
    for model in (Problem, FieldProblem):
        schema = model.model_json_schema(ref_template=template)
        schema.pop("$defs", None)
        schemas[model.__name__] = schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            if "application/json" in responses.get("422", {}).get("content", {}):
                responses["422"] = {"description": "Unprocessable Content", "content": _PROBLEM_RESPONSE["content"]}
            responses["default"] = _PROBLEM_RESPONSE
    return document


def describe(app: FastAPI) -> None:
    """Let ``app.openapi()`` describe every error as the problem that is really sent."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def render() -> str:
    """Return the document of the default app as text, always the same for the same code."""
    from api.app import create_app
    from infra.settings import load_settings

    with tempfile.TemporaryDirectory() as home:
        document = create_app(load_settings(home=Path(home))).openapi()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
