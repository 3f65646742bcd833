"""Where built candidates lie in the job's work directory, and how many of them. Light: no torch."""

import json
import os
import shutil
import time
from pathlib import Path

from pydantic import TypeAdapter

from compressors.recipe import BaselineCandidate
from compressors.recipe import Candidate
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from infra.database.models import JsonObject
from infra.files import write_whole
from profilers.types import Artifact
from workers.operations.inputs import JobInputs

LEAST_KEPT = 12
"""Candidates whose files stay, whatever their size: all finalists are measured together, and others may be on their
way from the evaluation to the measurement."""
MOST_BYTES = 2**30
"""Files of candidates that a job keeps on one host beyond :data:`LEAST_KEPT`."""
HOLDOUT = ".holdout.json"
"""What the names of held-out qualities end with, which lie beside the candidates."""
STALE_SECONDS = 600.0
"""A partial file that nobody has written to for so long was left by a process that is gone."""

_CANDIDATE: TypeAdapter[RecipeCandidate | BaselineCandidate] = TypeAdapter(Candidate)


def parse_candidate(payload: JsonObject) -> RecipeCandidate | BaselineCandidate:
    """Read a candidate as it is stored in a trial's row."""
    return _CANDIDATE.validate_python(payload)


def note_path(inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate) -> Path:
    """Path of the small file that says where the candidate's artifact is; written after the artifact is complete."""
    return inputs.artifacts / f"{candidate_digest(candidate)}.json"


def find_artifact(inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate) -> Artifact | None:
    """Return the artifact if it was built on this host and is still there; it counts as used now."""
    note = note_path(inputs, candidate)
    artifact = _read(note)
    if artifact is None or not artifact.path.exists():
        return None
    try:
        os.utime(note)
    except FileNotFoundError:  # another process makes room at this moment
        return None
    return artifact


def note_artifact(inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate, artifact: Artifact) -> None:
    """Write down where the artifact is."""
    note = note_path(inputs, candidate)
    write_whole(note, artifact.model_dump_json().encode())


def make_room(inputs: JobInputs, *, disk_full: bool = False) -> None:
    """Remove files of candidates, those first that were not used for the longest time; they can be built again.

    Baselines stay: they are few, are needed at the end, and take long to build. What another process has open stays
    readable for it, as long as it is open.

    Args:
        inputs: The job.
        disk_full: Nothing stays beyond :data:`LEAST_KEPT`.
    """
    used: list[tuple[float, Path, Artifact]] = []
    for note in inputs.artifacts.glob("*.json"):
        artifact = None if note.name.endswith(HOLDOUT) else _read(note)
        if artifact is not None and artifact.path.parent == inputs.artifacts:
            used.append((_modified(note), note, artifact))
    left = 0 if disk_full else MOST_BYTES
    for _, note, artifact in sorted(used, key=lambda entry: entry[0], reverse=True)[LEAST_KEPT:]:
        left -= size_bytes(artifact)
        if left < 0:
            note.unlink(missing_ok=True)
            _remove(artifact.path)
    for partial in inputs.artifacts.glob("*.partial"):
        if time.time() - _modified(partial) > STALE_SECONDS:
            partial.unlink(missing_ok=True)


def size_bytes(artifact: Artifact) -> int:
    """Return the bytes of all files of an artifact."""
    files = [artifact.path]
    if artifact.format == "openvino_ir":
        files.append(artifact.path.with_suffix(".bin"))
    if artifact.path.is_dir():
        files = [path for path in artifact.path.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _read(note: Path) -> Artifact | None:
    try:
        return Artifact.model_validate(json.loads(note.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
