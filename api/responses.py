"""Small helpers for answers."""

from fastapi.responses import JSONResponse
from pydantic import BaseModel


def created(view: BaseModel, location: str, status: int = 201) -> JSONResponse:
    """Answer with a new resource and where it lives from now on."""
    return JSONResponse(view.model_dump(mode="json"), status_code=status, headers={"Location": location})
