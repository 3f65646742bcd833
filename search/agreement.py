"""How well the stages of a search rank the models: a cheap number is as good as the order that it gives."""

from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Callable
from collections.abc import Sequence
from statistics import StatisticsError
from statistics import correlation
from typing import Literal
from typing import NamedTuple

from infra.database.models import JsonObject
from infra.database.models import Trial
from search.candidates import baseline_of
from search.first_look import stop_of
from search.views import AgreementView

LEAST_MODELS = 3
"""Fewer have no order worth a number."""

Value = Callable[[Trial], float | None]


class _Pair(NamedTuple):
    early: Literal["first_divergence", "divergence", "drop", "predicted_latency"]
    late: Literal["drop", "holdout_drop", "latency"]
    first: Value
    second: Value


def _first_divergence(trial: Trial) -> float | None:
    found = trial.facts.get("first_part")
    return found["divergence"] if found else None


def _divergence(trial: Trial) -> float | None:
    quality = _searched(trial)
    return quality["divergence"] if quality else None


def _drop(trial: Trial) -> float | None:
    quality = _searched(trial)
    return quality["drop"]["value"] if quality else None


def _searched(trial: Trial) -> JsonObject | None:
    """Return the quality on the whole search part: numbers of different examples have no common order."""
    return None if stop_of(trial.facts) else trial.quality


def _holdout_drop(trial: Trial) -> float | None:
    return trial.holdout["drop"]["value"] if trial.holdout else None


def _predicted(trial: Trial) -> float | None:
    return trial.predicted["ratio"] if trial.predicted else None


def _measured(trial: Trial) -> float | None:
    return trial.measurement["ratio"]["value"] if trial.measurement else None


_PAIRS = (
    _Pair("first_divergence", "drop", _first_divergence, _drop),
    _Pair("first_divergence", "holdout_drop", _first_divergence, _holdout_drop),
    _Pair("divergence", "drop", _divergence, _drop),
    _Pair("divergence", "holdout_drop", _divergence, _holdout_drop),
    _Pair("drop", "holdout_drop", _drop, _holdout_drop),
    _Pair("predicted_latency", "latency", _predicted, _measured),
)


def agreement(trials: Sequence[Trial]) -> list[AgreementView]:
    """Return how well each early number ranks the compressed models by the late one that it stands for.

    Args:
        trials: All trials of a job; baselines do not count.
    """
    models = [trial for trial in trials if baseline_of(trial.candidate) is None]
    return [_agreement(pair, models) for pair in _PAIRS]


def _agreement(pair: _Pair, models: Sequence[Trial]) -> AgreementView:
    values = [(pair.first(trial), pair.second(trial)) for trial in models]
    known = [(first, second) for first, second in values if first is not None and second is not None]
    found = rank_correlation([first for first, _ in known], [second for _, second in known])
    return AgreementView(early=pair.early, late=pair.late, rank_correlation=found, models=len(known))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, with average ranks for ties.

    Returns:
        From -1 to 1; ``None`` for fewer than three pairs, or if one of the sequences is constant.
    """
    if len(first) < LEAST_MODELS:
        return None
    try:
        return correlation(_ranks(first), _ranks(second))
    except StatisticsError:
        return None


def _ranks(values: Sequence[float]) -> list[float]:
    """Return twice the average rank of each value; the factor does not matter to a correlation."""
    ordered = sorted(values)
    return [bisect_left(ordered, value) + bisect_right(ordered, value) for value in values]
