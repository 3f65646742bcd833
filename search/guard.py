"""The never-slower guard: a compressed model must beat what the user could have had in one line."""

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
        rival: Trial id of the baseline that it was held against.
        reason: The ruling in words.
    """

    passed: bool
    rival: str | None
    reason: str


def rule(candidate: Standing, baselines: Iterable[Standing]) -> Ruling:
    """Hold a candidate against the best baseline, by the job's objective, of equal or better quality.

    A baseline counts as equal when its drop is not above the upper end of the candidate's interval: a difference that
    the examples cannot show is none. The candidate passes if the intervals of the two ratios do not overlap.
    """
    if not candidate.reliable:
        return Ruling(False, None, "its measurement did not reach the required precision")
    rivals = [entry for entry in baselines if entry.drop.value <= candidate.drop.high]
    rival = min(rivals, key=lambda entry: entry.ratio.value, default=None)
    if rival is None:
        return Ruling(True, None, "no baseline has equal or better quality")
    better = WORDINGS[candidate.objective].better
    if candidate.ratio.high < rival.ratio.low:
        return Ruling(True, rival.trial_id, f"clearly {better} than {rival.baseline}, at quality that is not worse")
    return Ruling(False, rival.trial_id, f"not clearly {better} than {rival.baseline}, which is as good")


def guarded_front(entries: Iterable[Standing]) -> tuple[list[Standing], dict[str, Ruling]]:
    """Return the Pareto front of the candidates that pass the guard, fastest first, and the ruling on every candidate.

    Args:
        entries: Comparable standings, baselines among them.
    """
    known = list(entries)
    baselines = [entry for entry in known if entry.baseline is not None]
    candidates = [entry for entry in known if entry.baseline is None]
    rulings = {entry.trial_id: rule(entry, baselines) for entry in candidates}
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
