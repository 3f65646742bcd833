"""What a user asks for: the typed body of a job.

Light to import; shared by the API, the coordinator and the workers.
"""

from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

from compressors.recovery.config import LossWeights
from profilers.types import Objective
from profilers.types import Workload

Task = Literal["sequence-classification", "embedding"]
Strategy = Literal["guided", "direct", "random"]
Sampler = Literal["tpe", "nsga2", "gp", "random"]
Kind = Literal["heads", "ffn", "depth", "rank", "sparsity", "bits"]

LEAST_REPAIR_SECONDS = 225.0
"""With less time the dense model's outputs, the training and the evaluation of what comes out leave nothing to win, and
the search, which has as much, needs it all."""


IntegerFormat = Literal["int8_dynamic", "int8_static", "int8_weights", "int4_weights"]
"""``dynamic`` and ``static``: products of 8-bit activations and weights, with activation scales found at run time, or
by calibration. ``weights``: only the weights are stored in few bits, in blocks with a scale each."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Goal(_Request):
    """What counts as the best model. Without any field the whole front is the answer."""

    max_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest allowed loss of quality against the dense model, as a fraction: 0.01 is one point of accuracy, or a mean
    cosine of 0.99 to the dense model's embeddings. The fastest such model is best."""
    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Latency ceiling at the workload, for the quantile or mean that the objective names; the model of highest quality
    below it is best."""
    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    """Largest stored size, in millions of bytes, beside either of the two or alone."""

    @property
    def is_open(self) -> bool:
        """Whether every speed and every quality is wanted."""
        return self.max_drop is None and self.max_latency_ms is None

    def fits(self, size_bytes: float) -> bool:
        """Whether a model of this stored size is small enough."""
        return self.max_size_mb is None or size_bytes <= self.max_size_mb * 1e6

    @model_validator(mode="after")
    def _one_goal(self) -> "Goal":
        if self.max_drop is not None and self.max_latency_ms is not None:
            raise ValueError("give max_drop or max_latency_ms, not both")
        return self


class Budget(_Request):
    """When to stop searching. The job's total time includes preparation and the final measurements."""

    seconds: Annotated[float, Field(gt=0, le=7 * 86400)] | None = 600.0
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> "Budget":
        if self.seconds is None and self.trials is None:
            raise ValueError("give seconds, trials, or both")
        return self


class Space(_Request):
    """Which kinds of compression the search may use, and how finely."""

    kinds: tuple[Kind, ...] = ("heads", "ffn", "depth", "rank", "sparsity", "bits")
    head_step: Annotated[int, Field(ge=1)] = 1
    ffn_step: Annotated[int, Field(ge=1)] = 64
    min_layers: Annotated[int, Field(ge=1)] = 1
    formats: Annotated[tuple[IntegerFormat, ...], Field(min_length=1)] | None = None
    """Integer formats, as far as the device runs them. ``None``: the device's preferred one everywhere, and ``guided``
    tries the others on the most promising shapes. Given: ``direct`` and ``random`` search all of these in every layer,
    and the first that the device runs takes the place of the preferred one."""


class Columns(_Request):
    """Columns that are read from the dataset."""

    text_column: str = "text"
    second_text_column: str | None = None
    label_column: str | None = "label"
    """``None``, or a column that does not exist and was not asked for explicitly, means unlabelled data."""


class Recover(_Request):
    """Recovery training: the most promising shapes are trained towards the dense model before the finish."""

    seconds: Annotated[float, Field(gt=0, le=7 * 86400)]
    """Time for it, evaluation of the trained models included; comes on top of ``budget.seconds``."""
    mode: Literal["race", "gradual"] = "race"
    """``race``: shapes compete, and most of the time goes to the fastest that is expected to meet the goal.
    ``gradual``: one shape is reached in steps, each cut from the healed model before: a family for several targets."""
    start: Literal["obs", "taylor", "magnitude"] = "obs"
    """What is removed first before the training: ``obs`` by the error that least squares leaves, ``taylor`` by the
    gradient of the loss, ``magnitude`` by the size of the weights."""
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] | None = None
    """Peak of the learning rate; default: that of :class:`compressors.recovery.config.RecoveryConfig`, half of it for
    trainings of less than five minutes and for those that go on from trained weights; for embedding models a sixth."""
    losses: LossWeights | None = None
    """Weights of the loss terms; default: those of :class:`compressors.recovery.config.LossWeights`."""
    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Temperature of the loss against the dense model's class probabilities."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls, after the warm-up."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """A training stops after so many evaluations, on texts of the search split, without a new best; ``None``: it takes
    its time. The best is kept in any case."""
    use_labels: bool = True
    """Whether labels of the training text are used, where it has some."""
    quantized_finish: bool = True
    """Train models for a few hundred steps more as int8, where plain int8 loses more than its share: in the last
    twelfth of the time, the most promising first. Where none needs it, the other trainings have that time."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Arithmetic of the training. ``auto``: bf16 where the processor multiplies it and is faster in it."""


class JobRequest(_Request):
    """One compression job."""

    model_id: str
    dataset_id: str
    calibration_id: str | None = None
    """Unlabelled text for calibration; without it a part of the evaluation data is set aside."""
    train_id: str | None = None
    """Text for recovery training, with or without labels; default: the text for calibration. Texts of the evaluation
    data in it are left out."""
    task: Task = "sequence-classification"
    device: str = "local-cpu"
    """Name of a registered device."""
    columns: Columns = Columns()
    workload: Workload = Workload()
    goal: Goal = Goal()
    objective: Objective = "p50"
    """What is made small, and what every ratio, front and guard is about: a quantile of the latency, the mean time of a
    run (``throughput``), or the memory that the loaded model takes (``peak_memory``)."""
    budget: Budget = Budget()
    recover: Recover | None = None
    """Recovery training after the search; ``None``: none."""
    repair_share: Annotated[float, Field(ge=0, le=0.8)] = 0.5
    """Part of ``budget.seconds`` in which ``guided`` repairs faster shapes by global reconstruction: their weights are
    fitted to what the dense model computes on the calibration text, without labels. Not beside recovery training, and
    not where that part is shorter than 225 seconds."""
    space: Space = Space()
    strategy: Strategy = "guided"
    sampler: Sampler = "tpe"
    seed: int = 0
    name: Annotated[str, Field(max_length=200)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 5

    @property
    def training(self) -> Recover | None:
        """The recovery training that was asked for, else the repair without labels, if there is time for it."""
        if self.recover is not None or not self.repair_seconds:
            return self.recover
        return Recover(seconds=self.repair_seconds, use_labels=False, quantized_finish=False)

    @property
    def repair_seconds(self) -> float:
        """Seconds of the budget that belong to the repair without labels; 0: there is none."""
        narrows = bool({"heads", "ffn", "depth"} & set(self.space.kinds))
        if self.recover is not None or self.strategy != "guided" or self.budget.seconds is None or not narrows:
            return 0.0
        seconds = self.repair_share * self.budget.seconds
        return seconds if seconds >= LEAST_REPAIR_SECONDS else 0.0

    @property
    def search_seconds(self) -> float | None:
        """Seconds of the budget without the repair: for preparation, search and final measurements."""
        return None if self.budget.seconds is None else self.budget.seconds - self.repair_seconds

    @model_validator(mode="after")
    def _training_text_is_used(self) -> "JobRequest":
        if self.train_id is not None and self.recover is None:
            raise ValueError("train_id is for recovery training: give recover as well")
        return self

    @model_validator(mode="after")
    def _ceiling_is_of_the_objective(self) -> "JobRequest":
        if self.goal.max_latency_ms is not None and self.objective == "peak_memory":
            raise ValueError("max_latency_ms limits time, which the objective peak_memory does not: give max_drop")
        return self
