"""Sequential re-solve: every matrix and norm against the dense model's outputs, on the inputs that it really gets.

A recipe is applied with the statistics of the dense model: each branch is solved as if all before it were intact. Here
the layers are walked in order, dense and compressed side by side. Each matrix of the compressed model is fitted, on
what the repaired layers before it hand over, to what the dense matrix computes. GPTQ (arXiv:2210.17323) and SparseGPT
(arXiv:2301.00774) walk in the same order with their own outputs as the target. What writes to the residual stream is
also asked to make up for the error that the stream already has, and scale and shift of every normalisation for what
then is left. No labels, no gradients.
"""

import time
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from compressors.calibration.statistics import Calibration
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.options.scoring import divergences
from compressors.recipe import Recipe
from compressors.repair.walk import Batch
from compressors.repair.walk import Parts
from compressors.repair.walk import Walk
from infra.errors import InvalidInputError

HOLD_OUT = 4
"""One of so many batches is held out: it decides what is kept."""

TRIED: dict[str, Parts] = {
    "matrices": frozenset({"matrices"}),
    "normalisations": frozenset({"normalisations"}),
    "both": frozenset({"matrices", "normalisations"}),
}
"""What is re-solved, alone and together. Together is not one after the other: each matrix is fitted behind the norms
that were refitted before it."""


@dataclass(frozen=True)
class Attempt:
    """One of :data:`TRIED`.

    Attributes:
        network: The candidate with what was re-solved.
        divergence: From the dense model, on the held-out batches.
        seconds: Of the processor, all threads together, for its walk.
    """

    network: EncoderNetwork
    divergence: float
    seconds: float


@dataclass(frozen=True)
class Repair:
    """What a repair gave.

    Attributes:
        network: The best attempt's, or the candidate as it was where nothing helped.
        kept: Name of that attempt; ``None``: nothing helped.
        before: Divergence of the candidate from the dense model on the held-out batches.
        after: The same of ``network``; never above ``before``.
        attempts: All of them, by name.
    """

    network: EncoderNetwork
    kept: str | None
    before: float
    after: float
    attempts: dict[str, Attempt]

    def facts(self) -> dict[str, str | float | None]:
        """Return what a trial tells of it, as JSON: divergences on held-out text, and what was kept."""
        found = {name: attempt.divergence for name, attempt in self.attempts.items()}
        return {"kept": self.kept, "before": self.before, **found}


@torch.no_grad()
def repair_sequentially(
    network: EncoderNetwork,
    candidate: EncoderNetwork,
    calibration: Calibration,
    recipe: Recipe,
    batches: Iterable[Batch],
) -> Repair:
    """Re-solve matrices and normalisations of ``candidate``, each and both; keep what comes closest to the dense model.

    Every matrix is re-solved that has no zeros, grid or factors to keep; of the others the bias is. A matrix or norm
    moves only as far as held-out batches confirm, and an attempt is kept only if the model's outputs on them come
    closer to the dense ones. The candidate is walked and judged as its file computes it: layers with few bits have the
    weights that are stored, and read what is rounded where the file rounds it. Deterministic.

    Args:
        network: the dense model.
        candidate: what :func:`compressors.apply.apply_recipe` made of it by ``recipe``. It is not changed.
        calibration: of the dense model; its orders say which heads and channels are left.
        recipe: the candidate's.
        batches: at least :data:`HOLD_OUT` batches of text without labels, ``input_ids`` and ``attention_mask``.

    Raises:
        InvalidInputError: too few batches to hold one out.
    """
    given = [(batch, number % HOLD_OUT == 1) for number, batch in enumerate(batches)]
    if len(given) < HOLD_OUT:
        raise InvalidInputError(
            f"Repair needs at least {HOLD_OUT} batches of text, got {len(given)}.", hint="Use smaller batches."
        )

    def attempt(parts: Parts, chosen: Sequence[tuple[Batch, bool]] = given) -> Attempt:
        started = time.process_time()
        walk = Walk(network, candidate, calibration, recipe, chosen, parts)
        repaired = walk.run()
        classifier = isinstance(network.head, ClassificationHead)
        divergence = float(divergences(*walk.outputs(), classifier=classifier).mean())
        return Attempt(repaired, divergence, time.process_time() - started)

    before = attempt(frozenset(), [entry for entry in given if entry[1]]).divergence
    attempts = {name: attempt(parts) for name, parts in TRIED.items()}
    kept = min(attempts, key=lambda name: attempts[name].divergence)
    if attempts[kept].divergence >= before:
        return Repair(candidate, None, before, before, attempts)
    return Repair(attempts[kept].network, kept, before, attempts[kept].divergence, attempts)
