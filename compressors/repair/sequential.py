"""Sequential re-solve: every matrix and norm against the dense model's outputs, on the inputs that it really gets.

A recipe is applied with the statistics of the dense model: each branch is solved as if all before it were intact. Here
the layers are walked in order, dense and compressed side by side. Each matrix of the compressed model is fitted, on
what the repaired layers before it hand over, to what the dense matrix computes. GPTQ (arXiv:2210.17323) and SparseGPT
(arXiv:2301.00774) walk in the same order with their own outputs as the target. What writes to the residual stream is
also asked to make up for the error that the stream already has, and scale and shift of every normalisation for what
then is left. No labels, no gradients.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from compressors.apply import apply_recipe
from compressors.calibration.statistics import Calibration
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.options.scoring import Batch
from compressors.options.scoring import divergences
from compressors.recipe import Recipe
from compressors.repair.walk import Parts
from compressors.repair.walk import Walk
from infra.errors import InvalidInputError

HOLD_OUT = 4
"""One of so many batches is held out: it decides what is kept."""

EVERYTHING: Parts = frozenset({"matrices", "normalisations"})


@dataclass(frozen=True)
class Repair:
    """What a repair gave.

    Attributes:
        network: The repaired model, or the candidate as it was where the repair did not help.
        kept: Whether it did.
        before: Divergence of the candidate from the dense model on the held-out batches.
        after: The same of ``network``; never above ``before``.
    """

    network: EncoderNetwork
    kept: bool
    before: float
    after: float

    def facts(self) -> dict[str, bool | float]:
        """Return what a trial tells of it, as JSON: divergences on held-out text, and whether it was kept."""
        return {"kept": self.kept, "before": self.before, "after": self.after}


@torch.no_grad()
def repair_sequentially(
    network: EncoderNetwork,
    candidate: EncoderNetwork,
    calibration: Calibration,
    recipe: Recipe,
    batches: Iterable[Batch],
    parts: Parts = EVERYTHING,
) -> Repair:
    """Re-solve matrices and normalisations of ``candidate``; keep them if it comes closer to the dense model.

    Every matrix is re-solved that has no zeros, grid or factors to keep; of the others the bias is. Each matrix and
    norm moves only as far as held-out batches confirm, and the whole is kept only if the model's outputs on them come
    closer to the dense ones. The candidate is walked and judged as its file computes it: layers with few bits have the
    weights that are stored, and read what is rounded where the file rounds it. Deterministic.

    Where layers were merged into one, the repair begins with the first of them alone, which its matrices are fitted to,
    and the norm behind it stands in for the others; from the merged weights the steps, which go no further than what
    held-out text confirms, end halfway between the two. What is merged stays as it is where that is closer.

    Args:
        network: the dense model.
        candidate: what :func:`compressors.apply.apply_recipe` made of it by ``recipe``. It is not changed.
        calibration: of the dense model; its orders say which heads and channels are left.
        recipe: the candidate's.
        batches: at least :data:`HOLD_OUT` batches of text without labels, ``input_ids`` and ``attention_mask``.
        parts: what is re-solved.

    Raises:
        InvalidInputError: too few batches to hold one out.
    """
    given = [(batch, number % HOLD_OUT == 1) for number, batch in enumerate(batches)]
    if len(given) < HOLD_OUT:
        raise InvalidInputError(
            f"Repair needs at least {HOLD_OUT} batches of text, got {len(given)}.", hint="Use smaller batches."
        )

    def walk(start: EncoderNetwork, parts: Parts, chosen: Sequence[tuple[Batch, bool]]) -> tuple[EncoderNetwork, float]:
        walked = Walk(network, start, calibration, recipe, chosen, parts)
        result = walked.run()
        classifier = isinstance(network.head, ClassificationHead)
        return result, float(divergences(*walked.outputs(), classifier=classifier).mean())

    _, before = walk(candidate, frozenset(), [entry for entry in given if entry[1]])
    start = candidate
    solved = "matrices" in parts and recipe.quantization.rounding != "gptq"  # its grid keeps the matrices as they are
    if solved and any(layer.merged for layer in recipe.layers):
        start = apply_recipe(network, calibration, _without_merges(recipe))
    repaired, after = walk(start, parts, given)
    return Repair(repaired, True, before, after) if after < before else Repair(candidate, False, before, before)


def _without_merges(recipe: Recipe) -> Recipe:
    layers = tuple(layer.model_copy(update={"merged": 0}) for layer in recipe.layers)
    return recipe.model_copy(update={"layers": layers})
