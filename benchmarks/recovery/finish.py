"""What a training that knows about int8 brings after the healing, and what it takes."""

from collections.abc import Sequence

from torch import Tensor

from benchmarks.recovery.bench import Bench
from benchmarks.recovery.bench import Budget
from benchmarks.recovery.bench import Rows
from benchmarks.recovery.bench import heal
from benchmarks.recovery.bench import interval
from benchmarks.recovery.bench import processor_seconds
from compressors.apply import apply_recipe
from compressors.export.simulation import as_written
from compressors.recipe import Recipe
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.prepare import prepare
from compressors.recovery.quantization_aware import finishing
from compressors.recovery.quantization_aware import recover_quantized
from compressors.recovery.recover import RecoveryResult
from compressors.torch_module import to_module

STEPS = (30, 100, 300)


def finishes(bench: Bench, budgets: Sequence[Budget]) -> Rows:
    """Divergence on held-back texts of the healed model, of the same merely rounded, and of the same finished.

    Steps are compared with those of the healing before: the slower, the fewer fit into a job.
    """
    rows = []
    for budget in budgets:
        configs = [budget.of(bench.config, seed) for seed in range(bench.seeds)]
        healed = [heal(bench, bench.student, config).result for config in configs]
        for steps in STEPS:
            results = [_finish(bench, run, config, steps) for run, config in zip(healed, configs, strict=True)]
            slower = [_step(after) / _step(before) for after, before in zip(results, healed, strict=True)]
            rows.append(
                {
                    "training": str(budget),
                    "finish, steps": str(steps),
                    "KL float": interval([-run.best_score for run in healed], digits=4),
                    "KL rounded": interval([-run.start_score for run in results], digits=4),
                    "KL finished": interval([-run.best_score for run in results], digits=4),
                    "ms/step": interval([1000 * _step(run) for run in results], digits=0),
                    "x a float step": interval(slower),
                }
            )
    return rows


def _finish(bench: Bench, healed: RecoveryResult, config: RecoveryConfig, steps: int) -> RecoveryResult:
    weights: dict[str, Tensor] = healed.state_dict
    recipe = in_eight_bits(bench.recipe)
    student = to_module(as_written(apply_recipe(bench.network, bench.calibration, recipe, weights)))
    teacher, data = bench.teacher(student, config), prepare(bench.train, config)
    return recover_quantized(student, teacher, data, finishing(config, steps), recipe=recipe, clock=processor_seconds)


def in_eight_bits(recipe: Recipe) -> Recipe:
    """Return the recipe with every layer's products in int8."""
    return recipe.model_copy(update={"layers": tuple(layer.with_branches(bits=8) for layer in recipe.layers)})


def _step(result: RecoveryResult) -> float:
    return result.seconds / result.steps
