"""Where built candidates lie in the job's work directory. Light: no torch."""

import json
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

_CANDIDATE: TypeAdapter[RecipeCandidate | BaselineCandidate] = TypeAdapter(Candidate)


def parse_candidate(payload: JsonObject) -> RecipeCandidate | BaselineCandidate:
    """Read a candidate as it is stored in a trial's row."""
    return _CANDIDATE.validate_python(payload)


def note_path(inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate) -> Path:
    """Path of the small file that says where the candidate's artifact is; written after the artifact is complete."""
    return inputs.artifacts / f"{candidate_digest(candidate)}.json"


def find_artifact(inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate) -> Artifact | None:
    """Return the artifact if it was built on this host."""
    note = note_path(inputs, candidate)
    if not note.exists():
        return None
    artifact = Artifact.model_validate(json.loads(note.read_text(encoding="utf-8")))
    return artifact if artifact.path.exists() else None


def note_artifact(inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate, artifact: Artifact) -> None:
    """Write down where the artifact is."""
    note = note_path(inputs, candidate)
    write_whole(note, artifact.model_dump_json().encode())
