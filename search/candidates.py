"""Reads candidates from their JSON form."""

from collections.abc import Iterable

from pydantic import TypeAdapter

from compressors.recipe import BaselineCandidate
from compressors.recipe import Candidate
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject

_ADAPTER: TypeAdapter[RecipeCandidate | BaselineCandidate] = TypeAdapter(Candidate)
_WHOLE = LayerRecipe()


def parse_candidate(payload: JsonObject) -> RecipeCandidate | BaselineCandidate:
    """Parse ``trial.candidate``."""
    return _ADAPTER.validate_python(payload)


def recipe_of(payload: JsonObject) -> Recipe | None:
    """Return the recipe of ``trial.candidate``; ``None`` for baselines."""
    candidate = parse_candidate(payload)
    return candidate.recipe if isinstance(candidate, RecipeCandidate) else None


def is_dense(payload: JsonObject) -> bool:
    """Whether ``trial.candidate`` is the dense model in another graph: a recipe that removes and rounds nothing.

    Asked of every trial whenever a front is shown, so it reads no further than to the first layer that was changed.
    """
    recipe = payload.get("recipe")
    return recipe is not None and _is_whole(recipe.get("weights"), map(LayerRecipe.model_validate, recipe["layers"]))


def keeps_everything(recipe: Recipe) -> bool:
    """Whether a canonical recipe changes no weight: only the graph and the floating-point arithmetic are its own."""
    return _is_whole(recipe.weights, recipe.layers)


def _is_whole(weights: str | None, layers: Iterable[LayerRecipe]) -> bool:
    return weights is None and all(layer == _WHOLE for layer in layers)


def baseline_of(payload: JsonObject) -> str | None:
    """Return the baseline's name of ``trial.candidate``; ``None`` for recipes."""
    candidate = parse_candidate(payload)
    return candidate.name if isinstance(candidate, BaselineCandidate) else None
