"""Quality against training time: starting points, losses, labels."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.recovery.bench import Bench
from benchmarks.recovery.bench import Budget
from benchmarks.recovery.bench import Rows
from benchmarks.recovery.bench import accuracy
from benchmarks.recovery.bench import heal
from benchmarks.recovery.bench import interval
from compressors.recovery.config import Augmentation
from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.torch_module import to_module
from paretune.artifact.encoder import CompressedEncoder

LOSSES = {
    "labels only": LossWeights(task=1, logits=0, hidden=0),
    "labels + logits": LossWeights(task=0.3, logits=0.7, hidden=0),
    "logits": LossWeights(task=0, logits=1, hidden=0),
    "logits + states": LossWeights(task=0, logits=1, hidden=1),
    "labels + logits + states": LossWeights(task=0.3, logits=0.7, hidden=1),
}
STARTS: dict[str, Callable[[Bench], CompressedEncoder]] = {
    "OBS, compensated": lambda bench: bench.student("obs"),
    "Taylor, compensated": lambda bench: bench.student("taylor"),
    "Taylor, as it is": lambda bench: bench.student("taylor", "none"),
    "magnitude, as it is": lambda bench: bench.student("magnitude", "none"),
    "fewer layers": lambda bench: bench.shallow(),
}
LOSS_CHANGES: dict[str, dict[str, object]] = {
    **{name: {"losses": weights} for name, weights in LOSSES.items()},
    "all, temperature 2": {"temperature": 2.0},
    "all, three variants of each text": {"augmentation": Augmentation(copies=3)},
}
"""What each row of the section changes in the config."""


def starts(bench: Bench, budgets: Sequence[Budget]) -> Rows:
    """OBS with compensation, Taylor with and without, magnitude, and whole layers removed."""
    rows = []
    for name, start in bench.wanted(STARTS).items():
        make = partial(start, bench)
        unhealed = make()
        before = {"dev": f"{accuracy(unhealed, bench.dev):.2f}", "test": f"{accuracy(unhealed, bench.test):.2f}"}
        rows.append({"start": name, "training": "none", "minutes": "0", "steps": "0"} | before)
        rows += [{"start": name} | row for row in healing_rows(bench, make, bench.config, budgets)]
    return rows


def loss_terms(bench: Bench, budgets: Sequence[Budget]) -> Rows:
    """The terms of the loss, its temperature, and variants of the texts, from the OBS start."""
    rows = []
    for name, change in bench.wanted(LOSS_CHANGES).items():
        config = bench.config.model_copy(update=change)
        rows += [{"loss": name} | row for row in healing_rows(bench, bench.student, config, budgets)]
    return rows


def labels(bench: Bench, budgets: Sequence[Budget]) -> Rows:
    """The same training with labels and with the text only: points lost against the dense model, seed by seed."""
    whole = accuracy(to_module(bench.network), bench.test)
    text_only = replace(bench, train=replace(bench.train, labels=None))
    rows = []
    for budget in budgets:
        drops = [
            [whole - heal(given, bench.student, budget.of(bench.config, seed)).test for seed in range(bench.seeds)]
            for given in (bench, text_only)
        ]
        rows.append(
            {
                "training": str(budget),
                "drop with labels": interval(drops[0]),
                "drop with text only": interval(drops[1]),
                "difference": interval([without - given for given, without in zip(*drops, strict=True)]),
            }
        )
    return rows


def healing_rows(
    bench: Bench, make: Callable[[], CompressedEncoder], config: RecoveryConfig, budgets: Sequence[Budget]
) -> Rows:
    """Heal for each budget with each seed; a row for each budget."""
    rows = []
    for budget in budgets:
        healed = [heal(bench, make, budget.of(config, seed)) for seed in range(bench.seeds)]
        rows.append(
            {
                "training": str(budget),
                "minutes": f"{np.mean([run.result.seconds for run in healed]) / 60:.2f}",
                "steps": f"{np.mean([run.result.steps for run in healed]):.0f}",
                "dev": interval([run.dev for run in healed]),
                "test": interval([run.test for run in healed]),
                "KL, test": interval([run.divergence for run in healed], 3),
            }
        )
    return rows
