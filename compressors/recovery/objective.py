"""The training loss of one batch, and the score of the held-back part."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressors.recovery import losses
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import Batch
from compressors.recovery.precision import autocast
from compressors.recovery.states import forward_with_states
from compressors.recovery.states import layer_map
from compressors.recovery.teacher import Targets
from compressors.recovery.teacher import Teacher
from infra.errors import InvalidInputError
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.structure import ClassificationStructure


class Objective:
    """Compares a student with the dense model, as the config asks.

    Args:
        student: The model to train.
        teacher: The dense model's outputs.
        config: Weights of the terms.
        precision: Arithmetic of the training's matrix products.
        held: Held-back texts: how much similarities differ is taken of them.

    Attributes:
        precision: May be changed between two steps.

    Raises:
        InvalidInputError: states are asked for that the teacher does not give.
    """

    def __init__(
        self,
        student: CompressedEncoder,
        teacher: Teacher,
        config: RecoveryConfig,
        precision: str,
        held: Sequence[Batch],
    ) -> None:
        self._teacher, self._config, self.precision = teacher, config, precision
        self._classifies = isinstance(student.structure.head, ClassificationStructure)
        self._layers = layer_map(student.structure, teacher.layers) if config.losses.hidden else {}
        missing = sorted(set(self._layers.values()) - set(teacher.state_layers))
        if missing:
            raise InvalidInputError(
                f"The hidden-state loss needs the dense model's states of layers {missing}.",
                hint="Build the teacher with state_layers=state_layers_for(structure, layers), or set its weight to 0.",
            )
        relates = config.losses.relational and not self._classifies
        outputs = [teacher.targets(batch).output for batch in held] if relates else []
        self._spread = losses.similarity_variance(torch.cat(outputs)) if outputs else losses.LEAST_SPREAD

    def loss(self, student: CompressedEncoder, batch: Batch, *, rows: int, labelled: int) -> Tensor:
        """Return what one part of a batch adds to the weighted sum of the terms that apply, a scalar.

        Args:
            student: The model to train.
            batch: The part.
            rows: Rows of all parts.
            labelled: Those of them that have a label: cross-entropy is averaged over these, which need not be spread
                evenly over the parts.
        """
        targets = self._teacher.targets(batch)
        with autocast(self.precision):
            output, states = forward_with_states(student, batch, self._layers, shorten=True)
        weights = self._config.losses
        if self._classifies:
            total = weights.logits * losses.logits_loss(output, targets.output, self._config.temperature)
        else:
            total = weights.cosine * losses.cosine_loss(output, targets.output)
            if weights.relational:
                total = total + weights.relational * losses.relational_loss(output, targets.output, self._spread)
        if self._layers:
            total = total + weights.hidden * self._hidden(states, targets, batch)
        total = total * (len(batch.indices) / rows)
        if self._classifies and weights.task and batch.labels is not None and labelled:
            total = total + weights.task / labelled * losses.task_loss(output, batch.labels)
        return total

    def _hidden(self, states: dict[int, Tensor], targets: Targets, batch: Batch) -> Tensor:
        terms = []
        for position, state in states.items():
            tokens = state.shape[1]  # 1 in the last layer of a classifier: its head reads nothing else
            target, mask = targets.states[self._layers[position]][:, :tokens], batch.attention_mask[:, :tokens]
            terms.append(losses.square_head_loss(state.float(), target, mask))
        return torch.stack(terms).mean()

    @torch.no_grad()
    def divergence(self, student: CompressedEncoder, batches: list[Batch]) -> float:
        """Return the mean distance from the dense model: KL of the classes in nats, or one minus the cosine.

        Always in f32: the scores of a race are compared, and its trainings need not have the same arithmetic.
        """
        total, rows = 0.0, 0
        for batch in batches:
            with autocast("f32"):
                output, _ = forward_with_states(student, batch, (), shorten=True)
            target = self._teacher.targets(batch).output
            mean = losses.logits_loss(output, target) if self._classifies else losses.cosine_loss(output, target)
            total += float(mean) * len(batch.indices)
            rows += len(batch.indices)
        return total / rows


def state_layers_for(student: CompressedEncoder, layers: int, config: RecoveryConfig) -> tuple[int, ...]:
    """Return the dense layers whose states a teacher has to give for this student (``layers``: of the dense model)."""
    return tuple(sorted(set(layer_map(student.structure, layers).values()))) if config.losses.hidden else ()
