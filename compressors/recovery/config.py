"""What a recovery is asked to do: data only, no torch."""

from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

Weight = Annotated[float, Field(ge=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossWeights(_Frozen):
    """Weight of each term; a term that does not apply to the task or the data is left out."""

    task: Weight = 0.3
    """Cross-entropy against the labels; examples without a label do not count."""
    logits: Weight = 0.7
    """Kullback-Leibler divergence from the dense model's class probabilities, at ``temperature``."""
    hidden: Weight = 1.0
    """Mean squared distance of the token states of every layer, relative to their mean square (SquareHead)."""
    cosine: Weight = 1.0
    """One minus the cosine between the embeddings of student and dense model."""
    relational: Weight = 1.0
    """Mean squared difference of the similarity matrices of a batch."""


class Augmentation(_Frozen):
    """New unlabelled texts out of the given ones, labelled by the dense model."""

    copies: Annotated[int, Field(ge=0, le=64)] = 0
    """How many variants are made of each text."""
    span_probability: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Chance that a variant is a random contiguous part of the text."""
    shortest_span: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Smallest part, as a fraction of the text."""
    replace_probability: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Chance for each token to be replaced by one drawn from the texts."""


FINISH_STEPS = 300
"""Steps of a quantisation-aware finish."""


class RecoveryConfig(_Frozen):
    """Budget, losses and optimiser of one recovery.

    The run ends with whichever of ``seconds``, ``epochs`` and ``steps`` is reached first; the learning rate is laid
    out so that it has decayed by then.
    """

    seconds: Annotated[float, Field(gt=0)] | None = 600.0
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None

    losses: LossWeights = LossWeights()
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the term ``logits``. At 1 it is the divergence that models are judged by; larger ones weigh the classes that
    the dense model rules out, of which there are few."""

    batch_size: Annotated[int, Field(ge=1)] = 32
    tokens_per_pass: Annotated[int, Field(ge=1)] = 768
    """A batch with more tokens (padding included) goes through the model in parts, which bounds the memory that
    activations take. The gradient is that of the whole batch, but for the terms that compare the texts of a batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Fraction of the run in which the learning rate rises from zero."""
    decay: Literal["linear", "cosine"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, which is what is evaluated and returned."""
    train_embeddings: bool = False
    """Whether the word table is trained too: half of the parameters, and most of the optimiser's work."""

    augmentation: Augmentation = Augmentation()
    max_length: Annotated[int, Field(ge=2)] | None = 128
    """Longer texts are cut to this number of tokens."""

    held_back: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Part of the data that is not trained on: it chooses the checkpoint that is kept. Where other texts are given for
    that, it only makes up for their lack: see :func:`compressors.recovery.prepare.prepare`."""
    held_back_limit: Annotated[int, Field(ge=8)] = 512
    evaluations: Annotated[int, Field(ge=1)] = 12
    """How often the held-back part is evaluated, evenly over the run; fewer times where that takes too much of
    ``seconds``."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many evaluations without a new best; ``None``: run to the end."""

    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Arithmetic of the training's matrix products. ``auto``: bf16 where the processor multiplies it (AMX or
    AVX512-BF16), the budget is given in seconds, and steps are faster in it; else f32. The weights that are trained are
    always f32, and scores are computed in f32."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads that torch uses; ``None``: as many as it may now, or fewer where the budget is given in seconds and fewer
    are faster."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 30.0
    seed: int = 0

    @model_validator(mode="after")
    def _has_budget(self) -> "RecoveryConfig":
        if self.seconds is None and self.epochs is None and self.steps is None:
            raise ValueError("give at least one of seconds, epochs and steps")
        return self
