"""The latency model of a job, from its table and from the trials that were measured so far."""

from collections.abc import Iterable

from compressors.recipe import Recipe
from profilers.types import Estimate
from search.branch_costs import BranchCosts
from search.branch_costs import CountedCosts
from search.branch_costs import TableCosts
from search.latency_model import LatencyModel
from search.latency_model import Observation
from search.prepared import Prepared
from search.requests import JobRequest
from search.study import TrialRecord

LEAST_OBSERVATIONS = 5
"""Measured candidates before a model of counted operations may reject anything."""


def latency_model(request: JobRequest, prepared: Prepared, trials: Iterable[TrialRecord]) -> LatencyModel:
    """Return the job's latency model, fitted to its measured trials."""
    costs: BranchCosts
    if prepared.latency_table is not None:
        costs = TableCosts(prepared.latency_table, prepared.anatomy)
    else:
        costs = CountedCosts(prepared.anatomy, request.workload)
    observations = [
        Observation(trial.recipe, trial.ratio, trial.digest)
        for trial in trials
        if trial.recipe is not None and trial.ratio is not None and trial.outcome == "done"
    ]
    return LatencyModel(costs, prepared.anatomy, observations)


def predict_ratio(request: JobRequest, prepared: Prepared, trials: Iterable[TrialRecord], recipe: Recipe) -> Estimate:
    """Return the expected latency ratio of ``recipe``."""
    return latency_model(request, prepared, trials).predict(recipe)
