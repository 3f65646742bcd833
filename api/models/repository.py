"""Queries of the models resource."""

from collections.abc import Sequence

from sqlalchemy import update
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select
from sqlmodel.sql.expression import SelectOfScalar

from infra.database.models import Job
from infra.database.models import Model
from infra.database.models import ModelFile
from infra.errors import ConflictError
from infra.store.base import BlobRef


def owned_by(owner: str) -> SelectOfScalar[Model]:
    """Select the models of one owner."""
    return select(Model).where(Model.owner == owner)


def files_of(session: Session, model_ids: Sequence[str]) -> dict[str, list[ModelFile]]:
    """Return the files of each model, by name."""
    found: dict[str, list[ModelFile]] = {model_id: [] for model_id in model_ids}
    statement = select(ModelFile).where(col(ModelFile.model_id).in_(model_ids)).order_by(col(ModelFile.name))
    for file in session.exec(statement):
        found[file.model_id].append(file)
    return found


def check_uploading(model: Model) -> None:
    """Files change only before a model is complete.

    Raises:
        ConflictError: The model is ready or was rejected.
    """
    if model.state != "uploading":
        raise ConflictError(
            f"The model {model.id} is {model.state}; its files cannot change any more.", hint="Create a new model."
        )


def put_file_row(session: Session, model: Model, name: str, ref: BlobRef) -> ModelFile:
    """Insert or replace the row of one file; the model must still be uploading when this commits."""
    touched = session.execute(
        update(Model)
        .where(col(Model.id) == model.id, col(Model.state) == "uploading")
        .values(version=Model.version + 1)
        .returning(col(Model.id))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if touched is None:
        raise ConflictError(f"The model {model.id} was completed meanwhile.", hint="Create a new model.")
    return session.merge(ModelFile(model_id=model.id, name=name, sha256=ref.sha256, size=ref.size))


def is_used(session: Session, model_id: str) -> bool:
    """Whether a job refers to the model."""
    return session.exec(select(Job.id).where(Job.model_id == model_id).limit(1)).first() is not None
