"""What the trainings of a job have brought, read from their steps and from the trials of the trained models."""

from collections.abc import Sequence
from math import sqrt

from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from infra.database.models import JsonObject
from infra.database.models import Step
from search.race import Outcome
from search.race import Place
from search.shapes import in_formats
from search.space import SearchSpace
from search.study import TrialRecord

LEAST_ERROR = 0.001
"""Standard error of a drop without labels, and the least of one with labels."""


def place_of(step: Step) -> Place:
    """Return the number of the training, and the shape."""
    number, index = step.payload["place"]
    return number, index


def kept_model(payload: JsonObject, output: JsonObject) -> Recipe:
    """Return what a training leaves: the trained model, or the shape as it was if training did not improve it.

    The shape as it was is the one of the search, with what it removes first and what makes up for it. One that was cut
    from a trained model has had no other life: it is what its weights are.
    """
    recipe = Recipe.model_validate(payload["recipe"])
    if recipe.weights is None and payload.get("parent") is None and not output["improved"]:
        usual = Recipe(layers=recipe.layers)
        return recipe.model_copy(update={"criterion": usual.criterion, "compensation": usual.compensation})
    return recipe.model_copy(update={"weights": output["weights"]})


def outcome_of(step: Step, records: Sequence[TrialRecord], space: SearchSpace) -> Outcome:
    """Return what a training has brought; its drop is that of the best number format that may be the answer.

    Args:
        step: The training.
        records: All trials of the job.
        space: Of the job: the number formats in which a model is tried.
    """
    if step.state != "done" or step.output is None:
        return Outcome(failed=True)
    model = kept_model(step.payload, step.output)
    digests = {candidate_digest(RecipeCandidate(recipe=variant)) for variant in in_formats(model, space)}
    found = [
        record
        for record in records
        if record.digest in digests and record.outcome == "done" and record.drop is not None and not record.stopped
    ]
    best = min(found, key=lambda record: record.drop or 0.0, default=None)
    if best is None or best.drop is None:
        return Outcome(failed=True)
    if model.weights is None:
        return Outcome(failed=False, drop=best.drop, drop_error=_error(best))
    curve = tuple((point["seconds"], point["score"]) for point in step.output["curve"])
    return Outcome(failed=False, weights=model.weights, drop=best.drop, drop_error=_error(best), curve=curve)


def _error(record: TrialRecord) -> float:
    """Half of what the labels leave open: the other half is known from the changed predictions of other models."""
    if record.evidence is None:
        return LEAST_ERROR
    return max(LEAST_ERROR, 0.5 * sqrt(record.evidence.changed / record.evidence.examples))
