"""The never-slower guard: a compressed model must beat what the user could have had without compressing anything."""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

from search.objectives import WORDINGS
from search.pareto import non_dominated
from search.standing import Standing


@dataclass(frozen=True)
class Ruling:
    """Why a candidate may or may not enter the front.

    Attributes:
        passed: It may.
        rival: Trial id of the model that it was held against.
        reason: The ruling in words.
    """

    passed: bool
    rival: str | None
    reason: str


def rule(candidate: Standing, others: Iterable[Standing]) -> Ruling:
    """Hold a candidate against the best of its rivals (:func:`rivals`), by the job's objective.

    The candidate passes if the interval of its ratio overlaps neither that of the best baseline nor that of the dense
    model in its best graph.
    """
    if not candidate.reliable:
        return Ruling(False, None, "its measurement did not reach the required precision")
    against = rivals(candidate, others)
    if not against:
        return Ruling(True, None, "no baseline has equal or better quality")
    better = WORDINGS[candidate.objective].better
    ranked = sorted(against, key=lambda entry: entry.ratio.value)
    best = {rival.dense: rival for rival in reversed(ranked)}  # of either kind; of the others one may be noise
    unbeaten = [rival for rival in ranked if rival in best.values() and candidate.ratio.high >= rival.ratio.low]
    if unbeaten:
        rival = unbeaten[0]
        return Ruling(False, rival.trial_id, f"not clearly {better} than {rival.name}, which is as good")
    rival = ranked[0]
    return Ruling(True, rival.trial_id, f"clearly {better} than {rival.name}, at quality that is not worse")


def rivals(candidate: Standing, others: Iterable[Standing]) -> list[Standing]:
    """Return what a candidate must beat: baselines of equal or better quality, and the dense model in its best graph.

    A rival counts as equal when its drop is not above the upper end of the candidate's interval: a difference that the
    examples cannot show is none. The dense model itself, in whatever arithmetic, only has to beat the baselines.

    Args:
        candidate: The model.
        others: Any comparable standings of the job.
    """
    known = [entry for entry in others if entry.baseline is not None or (entry.dense and not candidate.dense)]
    return [entry for entry in known if entry.drop.value <= candidate.drop.high]


def guarded_front(entries: Iterable[Standing]) -> tuple[list[Standing], dict[str, Ruling]]:
    """Return the Pareto front of the candidates that pass the guard, fastest first, and the ruling on every candidate.

    Args:
        entries: Comparable standings, baselines among them.
    """
    known = list(entries)
    against = [entry for entry in known if entry.is_rival]
    candidates = [entry for entry in known if entry.baseline is None]
    rulings = {entry.trial_id: rule(entry, against) for entry in candidates}
    passed = [entry for entry in candidates if rulings[entry.trial_id].passed]
    return pareto_front(passed), rulings


def noisy_count(entries: Iterable[Standing]) -> int:
    """Return how many candidates only lack a precise measurement."""
    return sum(entry.baseline is None and entry.status == "noisy" and not entry.reliable for entry in entries)


def pareto_front(entries: Sequence[Standing]) -> list[Standing]:
    """Return the entries that no other dominates in ratio, loss and size, the smallest ratio first."""
    if not entries:
        return []
    keep = non_dominated([entry.objectives for entry in entries])
    front = [entry for entry, kept in zip(entries, keep, strict=True) if kept]
    return sorted(front, key=lambda entry: entry.objectives)
