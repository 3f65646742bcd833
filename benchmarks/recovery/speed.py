"""Speed of a training: bf16 against fp32, and a cached against a live teacher."""

from collections.abc import Sequence

import numpy as np

from benchmarks.recovery.bench import Bench
from benchmarks.recovery.bench import Budget
from benchmarks.recovery.bench import Rows
from benchmarks.recovery.bench import heal
from benchmarks.recovery.bench import interval
from benchmarks.recovery.bench import processor_seconds
from benchmarks.recovery.quality import LOSSES
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.precision import candidate_precisions
from compressors.recovery.prepare import prepare
from compressors.recovery.recover import recover

TIMED_STEPS = 60
SHORT_TRAINING = Budget(steps=200)


def precisions(bench: Bench, budgets: Sequence[Budget]) -> Rows:
    """f32 against bf16: tokens in a second, and the outcome after as many steps."""
    budget = next((budget for budget in budgets if budget.steps is not None), SHORT_TRAINING)
    rows: Rows = []
    for name in ("f32", "bf16"):
        if name not in candidate_precisions(RecoveryConfig()):
            skipped = dict.fromkeys(list(rows[0])[1:], "-")
            rows.append({"precision": "bf16: not run, this processor has neither AMX nor AVX512-BF16"} | skipped)
            continue
        config = bench.config.model_copy(update={"precision": name})
        healed = [heal(bench, bench.student, budget.of(config, seed)) for seed in range(bench.seeds)]
        tokens = np.mean([len(row) for row in bench.train.input_ids]) * config.batch_size
        rows.append(
            {
                "precision": name,
                "training": str(budget),
                "tokens/s": interval([tokens * run.result.steps / run.result.seconds for run in healed], digits=0),
                "held-back KL": interval([-run.result.best_score for run in healed], digits=4),
                "dev": interval([run.dev for run in healed]),
                "test": interval([run.test for run in healed]),
            }
        )
    return rows


def teachers(bench: Bench, _: Sequence[Budget]) -> Rows:
    """Cached against live: time of a step, and what building the cache takes, once for all trainings of a job."""
    rows = []
    for weights in ("labels + logits", "labels + logits + states"):
        base = bench.config.model_copy(update={"losses": LOSSES[weights], "evaluations": 1})
        for live in (False, True):
            bench.teachers.clear()
            student, started = bench.student(), processor_seconds()
            teacher = bench.teacher(student, base, live)
            built = processor_seconds() - started
            times = []
            for seed in range(bench.seeds):
                config = Budget(steps=TIMED_STEPS).of(base, seed)
                result = recover(
                    bench.student(), teacher, prepare(bench.train, config), config, clock=processor_seconds
                )
                times.append(1000 * result.seconds / result.steps)
            rows.append(
                {
                    "loss": weights,
                    "teacher": "live" if live else "cached",
                    "ms/step": interval(times, digits=0),
                    "build s": "-" if live else f"{built:.1f}",
                }
            )
    return rows
