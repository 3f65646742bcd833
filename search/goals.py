"""Which model of a front the user wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from infra.errors import InfeasibleGoalError
from search.objectives import WORDINGS
from search.requests import Goal
from search.standing import Standing

Verdict = Literal["better_model", "leave_it_alone", "goal_out_of_reach", "nothing_measured"]

FASTEST_SPEEDUP = 1000.0
"""No compression makes a model faster than this: a ceiling below is refused before time is spent on it."""
SHORTEST_LATENCY_MS = 0.005
"""No graph runs in less."""


@dataclass(frozen=True)
class Choice:
    """The best model, and what it means.

    Attributes:
        verdict: ``better_model``: a compressed model meets the goal and beats the baselines; ``leave_it_alone``: the
            best answer is a baseline; ``goal_out_of_reach``: nothing meets the goal, the choice is what comes closest.
        best: The chosen model.
        message: The verdict in words.
        hint: What to do about it.
    """

    verdict: Verdict
    best: Standing | None
    message: str
    hint: str = ""


def meets(entry: Standing, goal: Goal) -> bool:
    """Whether a model is what the goal asks for."""
    if not goal.fits(entry.size_bytes):
        return False
    if goal.max_drop is not None:
        return max(entry.drop.value, entry.expected_drop) <= goal.max_drop
    if goal.max_latency_ms is not None:
        return entry.latency_ms <= goal.max_latency_ms
    return True


def meets_drop(drop: float | None, goal: Goal) -> bool:
    """Whether a drop of quality is within the goal."""
    return drop is not None and (goal.max_drop is None or drop <= goal.max_drop)


def choose(goal: Goal, front: Sequence[Standing], baselines: Sequence[Standing], noisy: int = 0) -> Choice:
    """Choose the best model by the goal.

    Maximum drop: the model of smallest ratio within it, which is the fastest, or by the objective the smallest in
    memory. Latency ceiling: the best quality below it. Without either: the smallest ratio of all whose drop is not
    clearly above zero. In every case only of those that are small enough.

    Args:
        goal: The goal.
        front: Guarded front.
        baselines: What the user could have had in one line.
        noisy: Number of candidates whose measurement did not reach its precision; only for the message.
    """
    if not front and not baselines:
        return Choice("nothing_measured", None, "Nothing has been measured yet.")
    best = _preferred(goal, front)
    if best is not None:
        unit = WORDINGS[best.objective].unit
        return Choice("better_model", best, f"A compressed model is {1 / best.ratio.value:.2f} {unit}.")
    baseline = _preferred(goal, baselines)
    if baseline is not None:
        message = f"No compressed model that meets the goal clearly beats the baselines; use {baseline.baseline}."
        hint = "Measure again on a quiet machine." if noisy else ""
        if noisy:
            message += f" {noisy} candidates could not be measured precisely enough, because the machine was busy."
        return Choice("leave_it_alone", baseline, message, hint)
    everything = [*front, *baselines]
    small = [entry for entry in everything if goal.fits(entry.size_bytes)]
    if small:
        closest = min(small, key=lambda entry: (_excess(entry, goal), entry.ratio.value))
    else:
        closest = min(everything, key=lambda entry: (entry.size_bytes, entry.ratio.value))
    error = _out_of_reach(goal, closest)
    return Choice("goal_out_of_reach", closest, error.message, error.hint)


def _out_of_reach(goal: Goal, closest: Standing) -> InfeasibleGoalError:
    """Return the error that says how close one can get."""
    if not goal.fits(closest.size_bytes):
        return InfeasibleGoalError(
            f"No model fits into {goal.max_size_mb:g} MB; the smallest takes {closest.size_bytes / 1e6:.3g} MB.",
            hint="Raise goal.max_size_mb, or allow more kinds of compression in space.kinds.",
        )
    within = "" if goal.max_size_mb is None else f" and fits into {goal.max_size_mb:g} MB"
    if goal.max_latency_ms is not None:
        return InfeasibleGoalError(
            f"No model reaches {goal.max_latency_ms:g} ms on this device{within}; "
            f"the fastest takes {closest.latency_ms:.3g} ms.",
            hint="Raise goal.max_latency_ms, shorten the workload's sequence, or choose a faster device.",
        )
    return InfeasibleGoalError(
        f"No model stays within a drop of {goal.max_drop:.3g}{within}; the smallest drop is {closest.drop.value:.3g}.",
        hint="Allow a larger goal.max_drop, or give more evaluation data.",
    )


def check_sane(goal: Goal) -> None:
    """Refuse goals that no model on any device meets.

    Raises:
        InfeasibleGoalError: If the latency ceiling is shorter than any graph takes.
    """
    if goal.max_latency_ms is not None and goal.max_latency_ms < SHORTEST_LATENCY_MS:
        raise InfeasibleGoalError(
            f"goal.max_latency_ms is {goal.max_latency_ms:g} ms; starting any graph takes longer than "
            f"{SHORTEST_LATENCY_MS:g} ms.",
            hint="Give the ceiling in milliseconds.",
        )


def check_reachable(goal: Goal, dense_ms: float, fastest_ratio: float | None = None, slack: float = 1.0) -> None:
    """Refuse a latency ceiling that is out of reach by what is known about the device.

    Args:
        goal: The request's goal.
        dense_ms: Measured latency of the dense model.
        fastest_ratio: Smallest latency ratio that the device's latency table allows, if there is one.
        slack: Predictions err: only a ceiling below this part of the fastest model's time is refused.

    Raises:
        InfeasibleGoalError: If it is.
    """
    if goal.max_latency_ms is None:
        return
    fastest_ms = dense_ms * (fastest_ratio if fastest_ratio is not None else 1.0 / FASTEST_SPEEDUP)
    if goal.max_latency_ms < slack * fastest_ms:
        raise InfeasibleGoalError(
            f"goal.max_latency_ms is {goal.max_latency_ms:g} ms, but the dense model takes {dense_ms:.3g} ms here and "
            f"even the smallest allowed model about {fastest_ms:.3g} ms.",
            hint=f"Ask for at least {fastest_ms:.3g} ms, or for a shorter sequence.",
        )


def _preferred(goal: Goal, entries: Sequence[Standing]) -> Standing | None:
    suitable = [entry for entry in entries if meets(entry, goal)]
    if goal.max_latency_ms is not None:
        return min(suitable, key=lambda entry: (entry.loss, entry.ratio.value), default=None)
    if goal.max_drop is None:
        harmless = [entry for entry in suitable if _may_be_harmless(entry)]
        suitable = harmless or sorted(suitable, key=lambda entry: entry.loss)[:1]
    return min(suitable, key=lambda entry: (entry.ratio.value, entry.loss), default=None)


def _may_be_harmless(entry: Standing) -> bool:
    """Whether the interval of the drop reaches zero, moved up to the expected drop where that is larger."""
    return entry.drop.low + max(0.0, entry.expected_drop - entry.drop.value) <= 0


def _excess(entry: Standing, goal: Goal) -> float:
    return entry.latency_ms if goal.max_latency_ms is not None else max(entry.drop.value, entry.expected_drop)
