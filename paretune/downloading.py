"""Fetch files: resumed after a lost connection, checked against their hash, never half-written."""

import hashlib
from pathlib import Path
from pathlib import PurePosixPath

import httpx

from paretune.errors import ApiError
from paretune.outage import Outage
from paretune.transport import Transport
from paretune.types import ExportFile

_CHUNK_BYTES = 1 << 20


def fetch(transport: Transport, file: ExportFile, directory: Path) -> Path:
    """Download one file into ``directory``; nothing is at its name unless its hash is right.

    Returns:
        The path of the file.

    Raises:
        ApiError: The name is unsafe, the service refuses or stays away for two minutes, or the bytes are wrong.
    """
    relative = PurePosixPath(file.name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ApiError(f"The service sent the unsafe file name {file.name!r}.", hint="Do not trust this service.")
    target = directory / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        if _receive(transport, file, partial) != file.sha256:
            raise ApiError(f"{file.name} arrived damaged.", hint="Download it again.", code="damaged-download")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _receive(transport: Transport, file: ExportFile, partial: Path) -> str:
    """Receive all bytes; return their sha256."""
    digest = hashlib.sha256()
    received = 0
    outage = Outage(transport.url)
    with partial.open("wb") as stream:
        while True:
            headers = {"Range": f"bytes={received}-"} if received else {}
            try:
                with transport.stream("GET", file.url, headers=headers) as response:
                    for chunk in response.iter_bytes(_CHUNK_BYTES):
                        outage.over()
                        stream.write(chunk)
                        digest.update(chunk)
                        received += len(chunk)
            except (httpx.TransportError, ApiError) as error:
                outage.endure(error)
            else:
                return digest.hexdigest()
