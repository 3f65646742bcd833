"""Reads candidates from their JSON form."""

from pydantic import TypeAdapter

from compressors.recipe import BaselineCandidate
from compressors.recipe import Candidate
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject

_ADAPTER: TypeAdapter[RecipeCandidate | BaselineCandidate] = TypeAdapter(Candidate)


def parse_candidate(payload: JsonObject) -> RecipeCandidate | BaselineCandidate:
    """Parse ``trial.candidate``."""
    return _ADAPTER.validate_python(payload)


def recipe_of(payload: JsonObject) -> Recipe | None:
    """Return the recipe of ``trial.candidate``; ``None`` for baselines."""
    candidate = parse_candidate(payload)
    return candidate.recipe if isinstance(candidate, RecipeCandidate) else None


def baseline_of(payload: JsonObject) -> str | None:
    """Return the baseline's name of ``trial.candidate``; ``None`` for recipes."""
    candidate = parse_candidate(payload)
    return candidate.name if isinstance(candidate, BaselineCandidate) else None
