"""A device with known truth: a session whose clock is simulated, to test the protocol and its statistics.

It is a complete :class:`profilers.protocol.Session`: latencies are numbers that the test chooses, disturbed the way
real ones are: slow common drift, independent heavy-tailed noise, foreign work on our core.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Self

import numpy as np

from profilers.protocol import BlockSamples
from profilers.protocol import Feeds
from profilers.protocol import Health
from profilers.protocol import Outputs
from profilers.protocol import Session
from profilers.protocol import Visit
from profilers.types import Artifact


@dataclass
class SimulatedModel:
    milliseconds: float
    visits: int = 0
    slow_share: float = 0.0
    """Share of runs that take ``slow_factor`` times as long."""
    slow_factor: float = 1.0

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    def run(self, feeds: Feeds) -> Outputs:
        return {}

    def operators(self) -> dict[str, int]:
        return {}

    def facts(self) -> dict[str, Any]:
        return {"milliseconds": self.milliseconds}


@dataclass
class SimulatedSession:
    noise: float = 0.01
    """Standard deviation of the log of a visit's time."""
    drift: float = 0.0
    """Amplitude of a slow common slow-down."""
    dirty_share: float = 0.0
    """Share of blocks in which somebody else takes our core, and one visit is three times as long."""
    seed: int = 0
    blocks: int = 0
    orders: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def load(self, artifact: Artifact, *, static: bool = True) -> SimulatedModel:
        raise NotImplementedError

    def unload(self, handle: Any) -> None:
        return None

    def sample(self, plan: Sequence[Visit]) -> BlockSamples:
        self.blocks += 1
        self.orders.append([id(visit.handle) for visit in plan])
        slow = 1 + self.drift * (1 + np.sin(self.blocks / 15)) / 2
        elapsed = np.empty(len(plan))
        for index, visit in enumerate(plan):
            model = visit.handle
            assert isinstance(model, SimulatedModel)
            model.visits += 1
            noise = self.noise * self._rng.standard_t(4) / np.sqrt(2)
            runs = np.ones(visit.runs)
            if model.slow_share:
                runs[self._rng.random(visit.runs) < model.slow_share] = model.slow_factor
            elapsed[index] = runs.sum() * model.milliseconds * 1e6 * slow * np.exp(noise)
        cpu = elapsed.astype(np.int64)
        waited = np.zeros(len(plan), dtype=np.int64)
        preempted = np.zeros(len(plan), dtype=np.int64)
        if self._rng.random() < self.dirty_share:
            victim = self._rng.integers(len(plan))
            waited[victim] = int(2 * elapsed[victim])
            elapsed[victim] *= 3
            preempted[victim] = 1
        return BlockSamples(elapsed.astype(np.int64), cpu, waited, preempted)

    def health(self) -> Health:
        return Health(spin_ns=1_000_000)

    def facts(self) -> dict[str, Any]:
        return {"runtime": "simulation"}

    def close(self) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_complete: Session = SimulatedSession()
