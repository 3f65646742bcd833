"""Which of the equivalent graphs a device runs fastest, decided from races against the one that is used so far."""

import math
from collections.abc import Callable
from collections.abc import Mapping
from statistics import NormalDist

from pydantic import BaseModel
from pydantic import ConfigDict

from compressors.export.graph_choices import FIXED_SHAPE
from compressors.export.graph_choices import combine
from compressors.export.graph_choices import with_fixed_shape
from compressors.recipe import GraphRecipe
from profilers.types import Estimate

Race = Callable[[GraphRecipe, Mapping[str, GraphRecipe]], Mapping[str, Estimate]]
"""``race(reference, graphs) -> {name: time of the graph relative to the reference}``; what could not be measured well
enough to be believed is left out."""

TOGETHER = "all that help"


class GraphChoice(BaseModel):
    """What was measured and chosen for one kind of arithmetic.

    Attributes:
        graph: The choice.
        changes: Names of the settings that it changes.
        ratios: Time of every graph that was tried, relative to the one that was used before.
        confirmed: The same for those that seemed faster, and for all of them together, in a second race.
        gain: What the choice saves of the time of the graph that was used before, a fraction of it, by the second race.
        fixed_shape: Time of the graph that was used before with the workload's shape written into it, relative to
            itself without. It is offered beside the choice, so it is timed and not chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: GraphRecipe
    changes: tuple[str, ...] = ()
    ratios: dict[str, Estimate] = {}
    confirmed: dict[str, Estimate] = {}
    gain: float = 0.0
    fixed_shape: Estimate | None = None


def choose_graph(start: GraphRecipe, others: Mapping[str, GraphRecipe], race: Race) -> GraphChoice:
    """Try every setting alone; race those that help once more, also together, and take the fastest.

    A graph must be faster by its whole interval in both races, so on a busy machine nothing is changed at all.

    Args:
        start: The graph that is used so far.
        others: Graphs that differ from it in one setting, by name.
        race: Times graphs on the device.
    """
    ratios = dict(race(start, {**others, FIXED_SHAPE: with_fixed_shape(start)}))
    fixed_shape = ratios.pop(FIXED_SHAPE, None)
    helpful = sorted(faster(ratios), key=lambda name: ratios[name].value)
    if not helpful:
        return GraphChoice(graph=start, ratios=ratios, fixed_shape=fixed_shape)
    entrants = {name: others[name] for name in helpful}
    together = combine(start, list(entrants.values()))
    if together not in entrants.values():
        entrants[TOGETHER] = together
    confirmed = dict(race(start, entrants))
    left = faster(confirmed)
    if not left:
        return GraphChoice(graph=start, ratios=ratios, confirmed=confirmed, fixed_shape=fixed_shape)
    best = min(left, key=lambda name: confirmed[name].value)
    graph = entrants[best]
    changes = tuple(name for name in helpful if _part(start, others[name], graph))
    gain = 1.0 - confirmed[best].value
    return GraphChoice(
        graph=graph, changes=changes, ratios=ratios, confirmed=confirmed, gain=gain, fixed_shape=fixed_shape
    )


def faster(ratios: Mapping[str, Estimate]) -> list[str]:
    """Return what is faster than the reference by its whole interval, widened for the number of comparisons.

    Of a dozen settings that change nothing, one is outside its 95 % interval in every second race (Bonferroni).
    """
    normal = NormalDist()
    widening = normal.inv_cdf(1 - 0.025 / max(1, len(ratios))) / normal.inv_cdf(0.975)
    return [
        name
        for name, ratio in ratios.items()
        if math.log(ratio.value) + widening * math.log(ratio.high / ratio.value) < 0
    ]


def _part(start: GraphRecipe, other: GraphRecipe, chosen: GraphRecipe) -> bool:
    """Whether everything that ``other`` changes is changed in ``chosen`` as well."""
    before, wanted, after = start.model_dump(), other.model_dump(), chosen.model_dump()
    return all(after[name] == value for name, value in wanted.items() if value != before[name])


def fixed_shape_note(choice: GraphChoice) -> str | None:
    """Say what the file with a fixed shape gains, in a sentence; ``None`` where that was not measured."""
    ratio = choice.fixed_shape
    if ratio is None:
        return None
    return (
        f"With the workload's shape written into the file, a few layers of the dense model took {ratio.value:.3f} x "
        f"the time of the file for any shape ({ratio.low:.3f} to {ratio.high:.3f}) on this device."
    )


def describe(choices: Mapping[str, GraphChoice]) -> str:
    """Say in a sentence what was chosen, by the fields of :class:`search.prepared.GraphDefaults`."""
    parts = []
    for form, title in (("float_graph", "in floating point"), ("graph", "with 8 bits")):
        choice = choices.get(form)
        if choice is None:
            continue
        if not choice.ratios:
            parts.append(f"{title} none could be timed well enough, so the usual one is used")
        elif choice.changes:
            changes = " and ".join(choice.changes)
            parts.append(f"{title} {changes} saves {100 * choice.gain:.1f} % (of {len(choice.ratios)} tried)")
        else:
            parts.append(f"{title} none of {len(choice.ratios)} was faster than the usual one")
        if choice.fixed_shape is not None:
            parts[-1] += f", a fixed shape takes {choice.fixed_shape.value:.3f} x the time"
    return f"Graphs raced on this device: {'; '.join(parts)}."
