"""What a job's objective is called in messages, tables and reports."""

from dataclasses import dataclass

from profilers.types import Objective


@dataclass(frozen=True)
class Wording:
    """Words for one objective.

    Attributes:
        name: What is measured, such as ``p99 latency``.
        unit: What follows a factor over fp32, such as ``x as fast as fp32``.
        better: What the better of two models is, such as ``faster``.
        equal: What a model is that is no worse, such as ``as fast``.
        column: Heading of a column of absolute values.
        axis: Label of the axis of the factors.
    """

    name: str
    unit: str
    better: str
    equal: str
    column: str
    axis: str


WORDINGS: dict[Objective, Wording] = {
    "p50": Wording(
        name="p50 latency",
        unit="x as fast as fp32",
        better="faster",
        equal="as fast",
        column="latency, ms",
        axis="speed-up over the dense fp32 model",
    ),
    "p90": Wording(
        name="p90 latency",
        unit="x as fast as fp32 at p90",
        better="faster at p90",
        equal="as fast at p90",
        column="p90 latency, ms",
        axis="speed-up at p90 over the dense fp32 model",
    ),
    "p99": Wording(
        name="p99 latency",
        unit="x as fast as fp32 at p99",
        better="faster at p99",
        equal="as fast at p99",
        column="p99 latency, ms",
        axis="speed-up at p99 over the dense fp32 model",
    ),
    "throughput": Wording(
        name="throughput",
        unit="x fp32 in throughput",
        better="higher in throughput",
        equal="as high in throughput",
        column="mean time, ms",
        axis="throughput over that of the dense fp32 model",
    ),
    "peak_memory": Wording(
        name="peak memory",
        unit="x smaller in memory than fp32",
        better="smaller in memory",
        equal="as small in memory",
        column="peak memory, MB",
        axis="peak memory of the dense fp32 model over that of the model",
    ),
}
