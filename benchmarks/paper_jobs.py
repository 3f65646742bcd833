"""Jobs whose model exists on paper only: six layers, an option database, a latency table, and formulas for the truth.

For benchmarks of the service itself: what a candidate is worth costs nothing to compute.
"""

from compressors.recipe import Recipe
from infra.database.engine import Database
from infra.database.models import Job
from infra.database.models import JsonObject
from tests.unit.search.guided_problem import Problem
from tests.unit.search.synthetic import Bench
from tests.unit.search.synthetic import measurement
from tests.unit.search.synthetic import quality

PROBLEM = Problem()
BASELINE_BYTES = 10**8


def submit(database: Database, count: int = 1, **changes: object) -> list[str]:
    """Bring new jobs to the search stage; returns their ids.

    Args:
        database: A database without rows.
        count: Number of jobs.
        changes: Fields of the request.
    """
    bench = Bench(database)
    request = {
        "strategy": "guided",
        "budget": {"seconds": None, "trials": 100_000},
        "space": {"kinds": ["heads", "ffn", "depth", "bits"], "ffn_step": 128},
        "goal": {"max_drop": 0.02},
    } | changes
    jobs = [bench.submit(**request) for _ in range(count)]
    with database.write_session() as session:
        for job_id in jobs:
            job = session.get_one(Job, job_id)
            job.prepared, job.stage = PROBLEM.prepared().model_dump(mode="json"), "search"
    return jobs


def evaluation(candidate: JsonObject) -> JsonObject:
    """Return what an evaluation would find: ``quality`` and ``size_bytes``."""
    recipe = _recipe(candidate)
    drop, size = (PROBLEM.drop(recipe), PROBLEM.size(recipe)) if recipe else (0.0, BASELINE_BYTES)
    return {"quality": quality(drop).model_dump(mode="json"), "size_bytes": size}


def timing(candidate: JsonObject) -> JsonObject:
    """Return what a measurement would find."""
    recipe = _recipe(candidate)
    return measurement(PROBLEM.ratio(recipe) if recipe else 1.0).model_dump(mode="json")


def _recipe(candidate: JsonObject) -> Recipe | None:
    return Recipe.model_validate(candidate["recipe"]) if "recipe" in candidate else None
