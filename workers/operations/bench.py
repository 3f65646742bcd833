"""What a compute runner keeps between the trials of a job: the dense network, the data, the calibration."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from compressors.anatomy import describe
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.description import Anatomy
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.repair.sequential import repair_sequentially
from infra.database.models import JsonObject
from infra.errors import InvalidModelError
from profilers.quality.first_part import FirstReference
from profilers.quality.first_part import first_reference
from workers.operations.data import JobData
from workers.operations.data import load_dense_outputs
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

BATCH = 32
"""Texts that go through the dense model together."""
REPAIR_BATCHES = 8
"""A repair holds some of its batches back, so few texts go into small ones."""
RANGE_EXAMPLES = 24
"""Texts that are enough to see how large activations become."""


class Bench:
    """The job's model and data, loaded once.

    Args:
        inputs: Paths and plain values of the job.
    """

    def __init__(self, inputs: JobInputs) -> None:
        self.inputs = inputs
        self._repaired: dict[str, tuple[EncoderNetwork, JsonObject]] = {}

    @cached_property
    def network(self) -> EncoderNetwork:
        """The dense network."""
        return load_network(self.inputs.model, self.inputs.task)

    @cached_property
    def anatomy(self) -> Anatomy:
        """Its shape.

        Raises:
            InvalidModelError: The workload's sequence is longer than the model can take.
        """
        anatomy = describe(self.network)
        if self.inputs.workload.sequence_length > anatomy.max_sequence_length:
            raise InvalidModelError(
                f"The model takes at most {anatomy.max_sequence_length} tokens, the workload asks for "
                f"{self.inputs.workload.sequence_length}.",
                hint="Choose a shorter sequence length.",
            )
        return anatomy

    @cached_property
    def data(self) -> JobData:
        """Examples, tokenised and split."""
        return JobData.load(self.inputs, self.anatomy)

    @cached_property
    def calibration(self) -> Calibration:
        """Statistics of the layers' inputs, as ``prepare`` left them."""
        return Calibration.load(self.inputs.calibration_file)

    @cached_property
    def dense_outputs(self) -> dict[str, NDArray[np.float32]]:
        """Outputs of the dense model on each split, ``[examples, labels or hidden]``."""
        return load_dense_outputs(self.inputs)

    @cached_property
    def first_reference(self) -> FirstReference | None:
        """What candidates are held against on the first part of the search split; ``None``: there is no such part."""
        return first_reference(self.dense_outputs["search"], self.inputs.task)

    def candidate_network(self, recipe: Recipe, fallbacks: list[str] | None = None) -> EncoderNetwork:
        """Apply a recipe to the dense network, with the trained weights that it names, and repair it if it says so.

        ``fallbacks`` as of :func:`compressors.apply.apply_recipe`.
        """
        trained = None if recipe.weights is None else load_file(self.inputs.weights_file(recipe.weights))
        candidate = apply_recipe(self.network, self.calibration, recipe, trained, fallbacks)
        if recipe.repair == "none" or trained is not None:
            return candidate
        if recipe.digest not in self._repaired:
            texts = self.data.texts["calibration"]
            batches = list(self.calibration_batches(max(1, min(BATCH, len(texts) // REPAIR_BATCHES))))
            repaired = repair_sequentially(self.network, candidate, self.calibration, recipe, batches)
            # Asked for three times: to write the file, to count, and for the facts.
            self._repaired = {recipe.digest: (repaired.network, repaired.facts())}
        return self._repaired[recipe.digest][0]

    def facts(self, recipe: Recipe) -> JsonObject:
        """Return what is worth knowing about a candidate: its number of weights, and what a repair brought.

        With the number of matrices in which compensation was given up, if there are any.
        """
        fallbacks: list[str] = []
        facts: JsonObject = {"parameters": describe(self.candidate_network(recipe, fallbacks)).parameters}
        if fallbacks:
            facts["uncompensated"] = len(fallbacks)
        if recipe.digest in self._repaired:
            facts["repair"] = self._repaired[recipe.digest][1]
        return facts

    def calibration_batches(self, size: int = BATCH) -> Iterator[dict[str, torch.Tensor]]:
        """Calibration texts as padded batches of similar lengths."""
        for _, feeds in self.data.padded_batches("calibration", size):
            yield {name: torch.from_numpy(array) for name, array in feeds.items()}

    def range_feeds(self, recipe: Recipe) -> list[dict[str, NDArray[np.int64]]] | None:
        """Texts whose activations give the scales of statically quantised layers; ``None`` if there are none."""
        eight = any(8 in (layer.attention.bits, layer.feed_forward.bits) for layer in recipe.layers)
        return self.range_texts() if recipe.quantization.scheme == "static" and eight else None

    def range_texts(self) -> list[dict[str, NDArray[np.int64]]]:
        """Some of the calibration texts, evenly spread; see :data:`RANGE_EXAMPLES`."""
        feeds = self.calibration_feeds()
        return feeds[:: max(1, len(feeds) // RANGE_EXAMPLES)][:RANGE_EXAMPLES]

    def calibration_feeds(self) -> list[dict[str, NDArray[np.int64]]]:
        """Calibration texts one by one, at the workload's sequence length."""
        return self.data.workload_feeds("calibration")


def bench(inputs: JobInputs, context: OperationContext) -> Bench:
    """Return the runner's bench."""
    found = context.state.get("bench")
    if not isinstance(found, Bench) or found.inputs != inputs:
        found = Bench(inputs)
        context.state["bench"] = found
    return found
