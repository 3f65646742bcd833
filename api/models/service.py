"""From files to a verified model."""

from collections.abc import Iterable
from pathlib import Path
from threading import BoundedSemaphore

from sqlmodel import Session

from api.services import Services
from infra.blobs import put_file
from infra.blobs import record_blob
from infra.database.models import Model
from infra.database.models import ModelFile
from infra.errors import ForbiddenError
from infra.errors import InvalidModelError
from infra.store.base import BlobRef
from infra.store.base import BlobStore
from infra.uploads.filenames import POOLING
from infra.uploads.filenames import SIZE_LIMITS
from infra.uploads.filenames import is_weights
from infra.uploads.model_folder import FileSource
from infra.uploads.model_folder import ModelFacts
from infra.uploads.model_folder import verify_file
from infra.uploads.model_folder import verify_folder

_VERIFYING = BoundedSemaphore(2)
"""Parsing a large tokenizer takes some hundred megabytes for a moment: not for everybody at once."""


def _on_disk(path: Path) -> FileSource:
    return FileSource(path.stat().st_size, lambda: path.open("rb"))


def store_file(services: Services, name: str, path: Path, sha256: str) -> BlobRef:
    """Verify one received file and put it into the artifact store.

    Raises:
        InvalidModelError: The file is refused.
    """
    with _VERIFYING:
        verify_file(name, _on_disk(path), services.settings.max_upload_bytes)
    return put_file(services.database, services.store, path, expected_sha256=sha256)


def verify_stored(services: Services, files: Iterable[ModelFile]) -> ModelFacts:
    """Verify a model whose files are all in the artifact store.

    Raises:
        InvalidModelError: The model is incomplete or refused.
    """
    sources = {file.name: _in_store(services.store, BlobRef(file.sha256, file.size)) for file in files}
    return verify_folder(sources, services.settings.max_upload_bytes)


def mark_ready(model: Model, facts: ModelFacts) -> None:
    """Note what a verified model is."""
    model.state = "ready"
    model.architecture = facts.config.architecture or facts.config.model_type
    model.facts = facts.to_json()
    model.error = None
    model.version += 1


def read_server_path(services: Services, server_path: str) -> tuple[ModelFacts, dict[str, BlobRef]]:
    """Verify a folder on the server's disk and copy it into the artifact store.

    Raises:
        ForbiddenError: The operator does not allow it.
        InvalidModelError: The folder is missing, incomplete or refused.
    """
    if not services.settings.allow_server_paths:
        raise ForbiddenError(
            "Models cannot be given by a path on this server.",
            hint="Upload the files, or let the operator set PARETUNE_ALLOW_SERVER_PATHS=true.",
        )
    folder = Path(server_path).expanduser()
    if not folder.is_absolute() or not folder.is_dir():
        raise InvalidModelError(f"{server_path!r} is not a folder on the server.", hint="Give an absolute path.")
    names = [path.name for path in folder.iterdir() if path.name in SIZE_LIMITS or is_weights(path.name)]
    paths = {name: folder / name for name in [*names, POOLING] if (folder / name).is_file()}
    for name, path in paths.items():
        _check_inside(folder, name, path)
    limit = services.settings.max_upload_bytes
    verify_folder({name: _on_disk(path) for name, path in paths.items()}, limit)
    refs = {name: services.store.put(path) for name, path in paths.items()}
    # Somebody may have changed a file meanwhile; what is in the store does not change any more.
    return verify_folder({name: _in_store(services.store, ref) for name, ref in refs.items()}, limit), refs


def _check_inside(folder: Path, name: str, path: Path) -> None:
    """Refuse links to elsewhere; those of a Hugging Face cache lead into ``blobs`` beside its snapshots."""
    real = path.resolve()
    cache = folder.resolve().parent.parent / "blobs"
    if not any(real.is_relative_to(place.resolve()) for place in (folder, cache)):
        raise InvalidModelError(f"{name} is a link out of the folder.", hint="Give a folder with the files themselves.")


def _in_store(store: BlobStore, ref: BlobRef) -> FileSource:
    return FileSource(ref.size, lambda: store.open(ref.sha256))


def add_ready_model(
    session: Session, services: Services, model: Model, facts: ModelFacts, refs: dict[str, BlobRef]
) -> None:
    """Write the rows of a model that was read from a server path."""
    mark_ready(model, facts)
    session.add(model)
    for name, ref in refs.items():
        record_blob(session, services.store, ref)
        session.add(ModelFile(model_id=model.id, name=name, sha256=ref.sha256, size=ref.size))
