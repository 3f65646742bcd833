"""``manifest.json``: where a downloaded folder comes from, what was measured, and how to load it."""

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from compressors.recipe import Candidate
from compressors.usage import Kind
from compressors.usage import Runtime

MANIFEST_FILE = "manifest.json"

_PACKAGES = ("paretune", "torch", "transformers", "onnx", "onnxruntime", "openvino", "numpy")
_CHUNK = 1 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Strict):
    """One file of the folder."""

    size_bytes: int
    sha256: str


class Provenance(_Strict):
    """What only the caller knows: it goes into the manifest as it is."""

    task: str
    sources: dict[str, str] = Field(default_factory=dict)
    """sha256 of what the candidate was made from, besides the model folder: datasets, calibration."""
    runtime: Runtime = Runtime()
    """What the measurements were taken in."""
    measurements: list[dict[str, Any]] = Field(default_factory=list)
    """Latency measurements, as they were stored."""
    quality: list[dict[str, Any]] = Field(default_factory=list)
    """Quality on each split, as it was stored."""
    notes: tuple[str, ...] = Field(default=(), exclude=True)
    """What is known against the model: becomes notes of the manifest."""


class ExportCheck(_Strict):
    """How far the exported form is from the torch module that it was made from."""

    largest_difference: float
    """Largest absolute difference of the float32 form over all test inputs and outputs."""
    relative_error: float
    """Root mean square difference of the exported form, relative to that of the outputs around their mean."""
    tolerance: float
    """Limit of ``relative_error``, from the error that the candidate's bit-widths must be expected to cause."""
    shapes: tuple[tuple[int, int], ...]
    """``(batch, sequence)`` of the test inputs."""


class Manifest(_Strict):
    """The content of ``manifest.json``."""

    format: Literal["paretune-manifest"] = "paretune-manifest"
    version: Literal[1] = 1
    kind: Kind
    candidate: Candidate
    digest: str
    """Name of the candidate in the service: sha256 of its description."""
    inputs: tuple[str, ...]
    output: str
    labels: tuple[str, ...]
    max_sequence_length: int
    usage: tuple[str, ...]
    """Python lines that load and call the model from inside the folder."""
    notes: tuple[str, ...] = ()
    check: ExportCheck | None = None
    """Of ``model.onnx``, or of the torch form; a baseline's file is as its own tool wrote it."""
    static_check: ExportCheck | None = None
    """Of ``model_static.onnx``, at its shape."""
    files: dict[str, FileEntry]
    model_files: dict[str, str]
    """sha256 of the files of the dense model."""
    versions: dict[str, str]
    provenance: Provenance


def write_manifest(directory: Path, manifest: Manifest) -> Path:
    """Write the manifest into ``directory``; returns its path."""
    path = directory / MANIFEST_FILE
    path.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that shape an export."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def file_entries(directory: Path) -> dict[str, FileEntry]:
    """Describe every file below ``directory`` except the manifest, by its path relative to it."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    return {
        path.relative_to(directory).as_posix(): FileEntry(size_bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in paths
    }


def file_sha256(path: Path) -> str:
    """sha256 (hexadecimal) of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
