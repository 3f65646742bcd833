"""The latency (or memory) model of a job, from its table and from the trials that were measured so far."""

from collections.abc import Iterable
from typing import TypeGuard

from compressors.recipe import Recipe
from profilers.types import Estimate
from search.branch_costs import BranchCosts
from search.branch_costs import CountedCosts
from search.branch_costs import TableCosts
from search.latency_model import LatencyModel
from search.latency_model import Observation
from search.memory_costs import StoredCosts
from search.prepared import Prepared
from search.requests import JobRequest
from search.study import TrialRecord


def latency_model(request: JobRequest, prepared: Prepared, trials: Iterable[TrialRecord]) -> LatencyModel:
    """Return the model of the ratio that the job's objective compares, fitted to its measured trials."""
    costs = branch_costs(request, prepared)
    observations = [trial for trial in trials if _is_observation(trial)]
    return LatencyModel(costs, prepared.anatomy, observations, prepared.graph_defaults.quantization)


def _is_observation(trial: TrialRecord) -> TypeGuard[Observation]:
    return trial.recipe is not None and trial.ratio is not None and trial.outcome == "done"


def branch_costs(request: JobRequest, prepared: Prepared) -> BranchCosts:
    """Return what branches cost before anything was measured.

    The latency table holds medians. Means and tails of a ratio are close to its median, and what is measured corrects
    the rest; memory has nothing to do with times.
    """
    if request.objective == "peak_memory":
        return StoredCosts(prepared.anatomy)
    if prepared.latency_table is not None:
        return TableCosts(prepared.latency_table, prepared.anatomy)
    return CountedCosts(prepared.anatomy, request.workload)


def predict_ratio(request: JobRequest, prepared: Prepared, trials: Iterable[TrialRecord], recipe: Recipe) -> Estimate:
    """Return the expected ratio of ``recipe``."""
    return latency_model(request, prepared, trials).predict(recipe)
