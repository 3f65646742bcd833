"""The final fronts of several strategies, timed: whether what a latency table predicts holds where it decides."""

from collections.abc import Mapping

import numpy as np

from benchmarks.contest import Run
from benchmarks.latency_table import Bench
from benchmarks.tables import print_table
from benchmarks.trial_cost import TrialBench
from compressors.recipe import Recipe
from profilers.types import Artifact
from profilers.types import Effort
from profilers.types import Estimate
from search.hypervolume import hypervolume
from search.pareto import non_dominated

EFFORT = Effort(half_width=0.02, seconds=3.0, min_blocks=12, control_every=2)
GROUP_BYTES = 4 * 2**30
"""Room for all models of all fronts, so that they run in the same blocks."""


def confirm(runs: Mapping[str, Run], bench: Bench, trials: TrialBench, worst: float) -> None:
    """Time every model of the runs' final fronts in one race and print it beside what was predicted.

    Args:
        runs: One run of each strategy.
        bench: The device.
        trials: Builds the models.
        worst: Divergence at which nothing counts.
    """
    fronts = {name: _front(run, worst) for name, run in runs.items()}
    recipes = {runs[name].recipes[place] for name, front in fronts.items() for place in front}
    if not recipes:
        print(f"\nno front has a model within {worst:g} nats")
        return
    artifacts: dict[str, Artifact] = {}
    for number, recipe in enumerate(sorted(recipes)):
        path = bench.folder / f"front{number}.onnx"
        artifacts[recipe] = trials.write(Recipe.model_validate_json(recipe), path)
    measured = bench.race(artifacts, EFFORT, group_bytes=GROUP_BYTES)
    for artifact in artifacts.values():
        artifact.path.unlink()
    rows, summary = [], []
    for name, front in fronts.items():
        known = [(*runs[name].points[place], measured[runs[name].recipes[place]]) for place in front]
        rows += [_row(name, *entry) for entry in known]
        summary.append(_volumes(name, known, worst))
    print(f"\nfinal fronts of the first seed, {len(artifacts)} models timed in the same blocks")
    print_table(rows)
    print(f"\nwhat these fronts are worth, up to {worst:g} nats")
    print_table(summary)


def _front(run: Run, worst: float) -> list[int]:
    """Return which trials are on the front, the fastest first; of equal ones the first."""
    inside = [place for place, (_, divergence) in enumerate(run.points) if divergence < worst]
    kept = non_dominated([run.points[place] for place in inside]) if inside else []
    different = {run.points[place]: place for place, keep in reversed(list(zip(inside, kept, strict=True))) if keep}
    return [different[point] for point in sorted(different)]


def _row(name: str, predicted: float, divergence: float, measured: Estimate) -> dict[str, str]:
    return {
        "strategy": name,
        "predicted x": f"{1 / predicted:.2f}",
        "measured x": f"{1 / measured.value:.2f}",
        "95 %": f"{1 / measured.high:.2f}-{1 / measured.low:.2f}",
        "error of the time": f"{predicted / measured.value - 1:+.1%}",
        "KL": f"{divergence:.4f}",
    }


def _volumes(name: str, known: list[tuple[float, float, Estimate]], worst: float) -> dict[str, str]:
    errors = [abs(predicted / measured.value - 1) for predicted, _, measured in known]
    volumes = [
        hypervolume([(float(np.log(time)), loss) for time, loss in points], [0.0, worst]) / worst
        for points in (
            [(predicted, loss) for predicted, loss, _ in known],
            [(measured.value, loss) for _, loss, measured in known],
        )
    ]
    return {
        "strategy": name,
        "models": str(len(known)),
        "predicted": f"{volumes[0]:.3f}",
        "measured": f"{volumes[1]:.3f}",
        "median |error|": f"{np.median(errors):.1%}" if errors else "-",
    }
