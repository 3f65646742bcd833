"""What the trainings of a job have brought, read from their steps and from the trials of the trained models."""

from collections.abc import Mapping
from collections.abc import Sequence
from math import sqrt

from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from infra.database.models import JsonObject
from infra.database.models import Step
from search.latency_model import LatencyModel
from search.race import Judged
from search.race import Lane
from search.race import Outcome
from search.race import Place
from search.shapes import Shape
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
    """Return what a training has brought, in each number format in which it was evaluated.

    Args:
        step: The training.
        records: All trials of the job.
        space: Of the job: the number formats in which a model is tried.
    """
    if step.state != "done" or step.output is None:
        return Outcome(failed=True)
    model = kept_model(step.payload, step.output)
    digests = [candidate_digest(RecipeCandidate(recipe=variant)) for variant in in_formats(model, space)]
    found = {record.digest: judged for record in records if (judged := _judged(record)) is not None}
    formats = {number: found[digest] for number, digest in enumerate(digests) if digest in found}
    if not formats:
        return Outcome(failed=True)
    if model.weights is None:
        return Outcome(failed=False, formats=formats)
    curve = tuple((point["seconds"], point["score"]) for point in step.output["curve"])
    return Outcome(failed=False, weights=model.weights, formats=formats, curve=curve)


def lanes_of(
    shapes: Sequence[Shape], outcomes: Mapping[Place, Outcome], model: LatencyModel, space: SearchSpace
) -> list[Lane]:
    """Return what is known about the speed of shapes: what was measured last, else what is expected by now.

    Args:
        shapes: Those of the race.
        outcomes: Of the trainings so far.
        model: Fitted to all that was measured so far, trained models included.
        space: Of the job: the number formats in which a model is tried.
    """
    measured = {
        (place[1], number): judged.ratio
        for place in sorted(outcomes)
        for number, judged in outcomes[place].formats.items()
        if judged.ratio is not None
    }
    expected = [[model.predict(variant).value for variant in in_formats(shape.recipe, space)] for shape in shapes]
    return [
        Lane(
            tuple(measured.get((index, place), ratio) for place, ratio in enumerate(ratios)), shape.family, shape.ratio
        )
        for index, (shape, ratios) in enumerate(zip(shapes, expected, strict=True))
    ]


def _judged(record: TrialRecord) -> Judged | None:
    if record.outcome != "done" or record.stopped or record.drop is None:
        return None
    return Judged(record.drop, _error(record), record.ratio)


def _error(record: TrialRecord) -> float:
    """Half of what the labels leave open: the other half is known from the changed predictions of other models."""
    if record.evidence is None:
        return LEAST_ERROR
    return max(LEAST_ERROR, 0.5 * sqrt(record.evidence.changed / record.evidence.examples))
