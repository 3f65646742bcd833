"""What a measurement is: descriptions only, light to import, shared with ``search`` and the database.

Latency is always a *ratio* of two artifacts that were run in the same interleaved blocks on the same device:
``ratio = candidate / reference``, below 1 when the candidate is faster. Milliseconds are shown for orientation and
drift with the machine; the ratio and its interval are the result.
"""

from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Workload(_Frozen):
    """What the deployed model will be asked to do."""

    batch: int = Field(default=1, ge=1, le=1024)
    sequence_length: int = Field(default=128, ge=1, le=8192)
    threads: int = Field(default=1, ge=1, le=256)


Format = Literal["onnx", "openvino_ir", "torch"]
Form = Literal["onnx", "torch"]
"""What candidates and the dense reference can be built as."""
Precision = Literal["f32", "bf16"]

Objective = Literal["p50", "p90", "p99", "throughput", "peak_memory"]
"""What a job makes small, as a ratio to the dense reference. ``p50``, ``p90``, ``p99``: that quantile of the time of
one run. ``throughput``: the mean time of one run, which samples per second follow from. ``peak_memory``: what loading
the model and running it once adds to the resident memory of a fresh process."""
Statistic = Literal["p50", "p90", "p99", "mean"]
"""Which number of a distribution of times a race compares."""


def statistic_of(objective: Objective) -> Statistic:
    """Return what is compared of the times; where memory is what counts, times are for orientation only."""
    if objective == "throughput":
        return "mean"
    return "p50" if objective == "peak_memory" else objective


class Artifact(_Frozen):
    """A deployable model on disk."""

    path: Path
    """``onnx``: the ``.onnx`` file; ``openvino_ir``: the ``.xml`` beside its ``.bin``; ``torch``: a ``.pt2`` file or a
    folder with ``structure.json`` and ``model.safetensors``."""
    format: Format = "onnx"
    precision: Precision = "f32"
    """Arithmetic that the runtime is asked for where the graph is floating point."""


WIDER: dict[Statistic, float] = {"p90": 1.5, "p99": 3.0}
"""How much wider an interval may be for a tail than for the median."""


class Effort(_Frozen):
    """How precisely to measure, and when to stop trying."""

    half_width: float = Field(default=0.03, gt=0)
    """Target half-width of the 95 % interval of the ratio, relative to the ratio: 0.03 is +-3 %."""
    seconds: float = Field(default=20.0, gt=0)
    """Time limit for each candidate; ``k`` candidates that race in one run may take ``k`` times as long."""
    total_seconds: float | None = Field(default=None, gt=0)
    """Time limit for the whole run, whatever the number of candidates."""
    give_up_above: float | None = None
    """Stop measuring a candidate once its whole interval lies above this ratio: it cannot matter any more."""
    min_blocks: int = Field(default=20, ge=8)
    """Blocks before the first look at the interval."""
    control_every: int = Field(default=1, ge=1)
    """Every how many blocks the reference runs twice; the control needs the same precision as the candidates."""
    retreats: int = Field(default=3, ge=0)
    """How many times to pause and try again when others disturb the measurement."""
    statistic: Statistic = "p50"
    """What is compared: the median of the ratios of the blocks, or the ratio of a quantile or of the mean over the runs
    of all blocks."""

    @classmethod
    def search(cls, give_up_above: float | None = None) -> "Effort":
        """+-3 %: enough to steer a search; a couple of seconds for a model of 30 ms on a quiet machine."""
        return cls(
            half_width=0.03, seconds=20.0, min_blocks=12, control_every=2, retreats=1, give_up_above=give_up_above
        )

    @classmethod
    def shortlist(cls, give_up_above: float | None = None) -> "Effort":
        """+-1 %: for candidates that may enter the front."""
        return cls(half_width=0.01, seconds=20.0, give_up_above=give_up_above)

    @classmethod
    def final(cls) -> "Effort":
        """+-0.5 %: for what is reported."""
        return cls(half_width=0.005, seconds=120.0, total_seconds=300.0)

    def by(self, statistic: Statistic) -> "Effort":
        """Return the same effort for another statistic; tails are known less precisely from the same runs."""
        half_width = self.half_width * WIDER.get(statistic, 1.0)
        return self.model_copy(update={"statistic": statistic, "half_width": half_width})

    def limit(self, candidates: int) -> float:
        """Return the seconds that a run over so many candidates may take."""
        each = self.seconds * max(1, candidates)
        return each if self.total_seconds is None else min(each, self.total_seconds)


class Estimate(_Frozen):
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Fusions(_Frozen):
    """Fused operators of each kind (``norms``, ``attentions``, ``activations``) in the graphs that are executed."""

    expected: dict[str, int]
    """What the surviving blocks of the model should become."""
    found: dict[str, int]
    """In the deployed file, with its number formats, after the runtime's own fusions."""
    reference_expected: dict[str, int]
    """The same for the dense reference, the library's own export."""
    reference_found: dict[str, int]

    @property
    def complete(self) -> bool:
        """Whether the runtime fuses every block of the model: otherwise it is slower than it would have to be."""
        return self.found == self.expected

    @property
    def reference_complete(self) -> bool:
        """Whether it does so in the reference: otherwise factors against the reference are flattered."""
        return self.reference_found == self.reference_expected

    @property
    def parity(self) -> bool:
        """Whether nothing is missing in either, so that the graphs can be compared."""
        return self.complete and self.reference_complete


class Measurement(_Frozen):
    """One candidate, measured against the dense reference on one device."""

    status: Literal["ok", "noisy", "slower_than_front"]
    """``noisy``: the control or the interval missed its target, do not trust the ratio. ``slower_than_front``:
    measuring stopped early, because the interval already lies above what could matter."""
    objective: Objective = "p50"
    """What ``ratio`` compares."""
    ratio: Estimate
    """candidate / reference by the objective; below 1 the candidate is better."""
    latency_ms: float
    """Time of one run: the quantile or the mean of the objective; the median where that is memory."""
    reference_ms: float
    p90_ratio: float
    control_ratio: Estimate
    """The reference against itself; must contain 1."""
    blocks: int
    dropped_blocks: int
    seconds: float
    """What the measurement took."""
    processes: int = 1
    """Fresh processes whose results are combined in the interval."""
    peak_memory_mb: float | None = None
    """Rise of the resident memory of a fresh process that loads the model and runs it once, MiB."""
    reference_memory_mb: float | None = None
    fusion: dict[str, int] = Field(default_factory=dict)
    """Operator histogram of the graph that the runtime really executed."""
    reference_fusion: dict[str, int] = Field(default_factory=dict)
    """The same of the reference."""
    fusions: Fusions | None = None
    """Whether every block is fused; ``None`` where the runtime does not tell."""
    fusion_parity: bool | None = None
    """:attr:`Fusions.parity`; ``None`` where the runtime does not tell."""
    fusion_unknown: str = ""
    """Why not."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """Machine, runtime, versions, threads, affinity, clocks: everything that the number was taken under."""

    @property
    def speedup(self) -> float:
        """reference / candidate: 2.0 means half of the dense reference's time, or memory."""
        return 1.0 / self.ratio.value


class Quality(_Frozen):
    """Quality of a deployed artifact on one split, paired with the dense model on the same examples."""

    metric: str
    """``accuracy`` | ``fidelity`` (mean cosine to the dense embedding, or agreement with the dense prediction)."""
    value: Estimate
    dense: float
    """The dense model's value on the same examples."""
    drop: Estimate
    """dense - value, interval paired over examples; positive is worse."""
    divergence: float
    """Label-free distance to the dense model: mean KL(dense || candidate) in nats of the class probabilities, or 1 -
    mean cosine."""
    fidelity: float
    """Closeness to the dense model in [0, 1]: share of equal predictions, or mean cosine of the embeddings."""
    details: dict[str, float] = Field(default_factory=dict)
    """Further numbers, such as ``neighbour_overlap``, ``cosine_p01``, ``flips``, ``mcnemar_p``."""
    examples: int
    split: Literal["calibration", "search", "holdout"]
    padded: bool
    """Whether examples were padded to the workload's sequence length, as they are when latency is measured."""


class FirstLook(_Frozen):
    """What the first part of a split says about a model, from outputs alone."""

    examples: int
    of: int
    """Examples of the whole split."""
    divergence: float
    """As :attr:`Quality.divergence`."""
    change: Estimate
    """Share of changed predictions, or 1 - mean cosine, with its interval."""
    constant_divergence: float
    constant_change: float
    """The same of the constant answer that is nearest to the dense model: what is no better is broken."""


class Capabilities(_Frozen):
    """What a profiler plugin can run and gain from; the search space is intersected with it before sampling."""

    profiler: str
    """Entry-point name: ``onnxruntime``, ``openvino``, ``torch_cuda``."""
    available: bool
    reason: str = ""
    """Why it is not available, and what to install."""
    formats: tuple[Format, ...] = ("onnx",)
    bits: tuple[int, ...] = (32, 8)
    precisions: tuple[Precision, ...] = ("f32",)
    schemes: tuple[Literal["dynamic", "static", "weight_only"], ...] = ("dynamic",)
    saturating_int8: bool = False
    """Sums of int8 products may saturate: weights must keep to 7 bits (:attr:`QuantizationRecipe.reduce_range`)."""
    sparse_speedup: bool = False
    low_rank: bool = True
    raw_samples: bool = True
    objectives: tuple[Objective, ...] = ("p50", "p90", "p99", "throughput", "peak_memory")
    """What the device can measure."""
    baselines: tuple[str, ...] = ("fp32", "int8_one_liner")
    """Names of :class:`compressors.recipe.BaselineCandidate` that make sense on this device."""

    @property
    def form(self) -> Form:
        """What candidates and the dense reference are built as: torch where the device opens no ONNX files."""
        return "onnx" if "onnx" in self.formats else "torch"


class DeviceProfile(_Frozen):
    """A registered device: which plugin, with which options."""

    name: str
    profiler: str
    options: dict[str, Any] = Field(default_factory=dict)
    """Plugin options, such as ``{"affinity": [1]}``."""
