"""The measurement protocol: candidates race against a resident reference in randomised, interleaved blocks.

What makes the result believable on a machine that is shared and drifts:

* only ratios inside one block count, so that whatever slows everything down cancels;
* the order inside each block is random, so that position and predecessor cancel;
* each visit starts with untimed runs, so that everybody is timed with his own weights in the caches;
* the *control*, the reference entered a second time under another name, is measured exactly like a candidate: its ratio
  must turn out as 1, with the same precision, or nothing of the run is believed;
* blocks in which others used our cores are dropped whole, by a rule that does not see who was slow in them;
* the run stops when the intervals are as narrow as asked for, or a candidate is clearly out of the race, or time is up:
  then the status is ``noisy``.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

import numpy as np

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from profilers import results
from profilers.blocks import Block
from profilers.blocks import Contestant
from profilers.blocks import run_block
from profilers.protocol import Handle
from profilers.protocol import Health
from profilers.protocol import Session
from profilers.results import CONTROL
from profilers.results import REFERENCE
from profilers.results import MeasuredCandidate
from profilers.statistics import contains_one
from profilers.statistics import half_width
from profilers.statistics import looks
from profilers.types import Effort
from profilers.types import Estimate
from profilers.warmup import warm_up

_ALWAYS_CONTROLLED = 4
_HEALTH_EVERY = 10
_DIRTY_WINDOW = 20
_MAX_DIRTY_SHARE = 0.3
_FIRST_RETREAT_SECONDS = 5.0
_WARM_UP_SHARE = 0.25

Verdict = Literal["ok", "slower_than_front"]


def measure(
    session: Session,
    reference: Handle,
    candidates: Mapping[str, Handle],
    effort: Effort,
    seed: int = 0,
    *,
    give_up_above: Mapping[str, float] | None = None,
) -> dict[str, MeasuredCandidate]:
    """Measure the latency ratio of each candidate to the reference.

    Args:
        session: An open session; handles are loaded in it.
        reference: What the ratios are relative to: the dense model.
        candidates: Handles by name; several share the reference's runs and leave the race one by one.
        effort: Precision and limits.
        seed: Of the block order and of the bootstrap.
        give_up_above: Ratios for individual candidates that replace ``effort.give_up_above``.

    Returns:
        A measurement with its raw samples for each name. ``status`` is ``noisy`` where the precision was not reached
        or the control failed: the numbers are then the best that could be had, not results.

    Raises:
        InvalidInputError: No candidates were given.
    """
    if not candidates:
        raise InvalidInputError("There is nothing to measure.", hint="Give at least one candidate.")
    own = give_up_above or {}
    ceilings = {name: own.get(name, effort.give_up_above) for name in candidates}
    race = _Race(session, effort, seed, ceilings)
    race.warm_up(reference, candidates)
    race.run()
    return race.measurements()


@dataclass(frozen=True)
class _Decision:
    verdict: Verdict
    seconds: float


class _Race:
    """State of one run: the blocks so far and the verdicts that have fallen."""

    def __init__(self, session: Session, effort: Effort, seed: int, ceilings: dict[str, float | None]) -> None:
        self._session = session
        self._effort = effort
        self._seed = seed
        self._ceilings = ceilings
        self._rng = np.random.default_rng(seed)
        self._started = time.monotonic()
        self._limit = effort.limit(len(ceilings))
        self._contestants: dict[str, Contestant] = {}
        self._blocks: list[Block] = []
        self._clean = 0
        self._decisions: dict[str, _Decision] = {}
        self._controlled = False
        self._health: list[Health] = []
        self._retreats = 0
        self._window_start = 0

    def warm_up(self, reference: Handle, candidates: Mapping[str, Handle]) -> None:
        """Settle every handle and choose the length of its visits."""
        handles = {REFERENCE: reference, **candidates}
        seconds = _WARM_UP_SHARE * self._limit / len(handles)
        for name, handle in handles.items():
            median = warm_up(self._session, handle, seconds)
            self._contestants[name] = Contestant.of(name, handle, median, self._effort.statistic)
        self._contestants[CONTROL] = replace(self._contestants[REFERENCE], name=CONTROL)

    def run(self) -> None:
        """Run blocks until everything is decided, time is up, or the machine stays too busy."""
        schedule = looks(self._effort.min_blocks)
        next_look = next(schedule)
        while not self._finished():
            if len(self._blocks) % _HEALTH_EVERY == 0:
                self._health.append(self._session.health())
            block = run_block(self._session, self._lineup(), self._rng)
            self._blocks.append(block)
            self._clean += block.clean
            if self._clean >= next_look:
                self._look()
                next_look = next(schedule)
            elif self._too_busy() and not self._retreat():
                break
        self._look()

    def measurements(self) -> dict[str, MeasuredCandidate]:
        """Summarise the blocks."""
        run = results.Run(
            blocks=tuple(self._blocks),
            health=tuple(self._health),
            effort=self._effort,
            seed=self._seed,
            retreats=self._retreats,
            bursts={name: contestant.runs for name, contestant in self._contestants.items()},
            session_facts=self._session.facts(),
            model_facts={name: contestant.handle.facts() for name, contestant in self._contestants.items()},
        )
        measured = {}
        for name in self._ceilings:
            decision = self._decisions.get(name)
            verdict = decision.verdict if decision else None
            status: Literal["ok", "noisy", "slower_than_front"] = "noisy"
            if verdict == "slower_than_front" or (verdict == "ok" and self._controlled):
                status = verdict
            measured[name] = results.summarise(run, name, status, decision.seconds if decision else self._elapsed())
        return measured

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _lineup(self) -> list[Contestant]:
        """Who runs in the next block: the reference, the undecided, and the control where it is due.

        Only the control is left where every candidate is decided and the control is not.
        """
        undecided = [name for name in self._ceilings if name not in self._decisions]
        names = [REFERENCE, *undecided]
        number = len(self._blocks)
        if not undecided or number < _ALWAYS_CONTROLLED or number % self._effort.control_every == 0:
            names.append(CONTROL)
        return [self._contestants[name] for name in names]

    def _finished(self) -> bool:
        if len(self._blocks) < 2:  # an interval needs two
            return False
        if self._elapsed() >= self._limit:
            return True
        verdicts = [decision.verdict for decision in self._decisions.values()]
        needs_control = "ok" in verdicts
        return len(verdicts) == len(self._ceilings) and (self._controlled or not needs_control)

    def _look(self) -> None:
        """Ask the stopping rule about everybody who is undecided."""
        control = self._estimate(CONTROL)
        self._controlled = control is not None and self._precise(control) and contains_one(control)
        for name, ceiling in self._ceilings.items():
            estimate = self._estimate(name)
            if name in self._decisions or estimate is None:
                continue
            if ceiling is not None and estimate.low > ceiling:
                self._decisions[name] = _Decision("slower_than_front", self._elapsed())
            elif self._precise(estimate):
                self._decisions[name] = _Decision("ok", self._elapsed())

    def _estimate(self, name: str) -> Estimate | None:
        """Return the ratio over clean blocks; ``None`` while there are too few to judge."""
        return results.clean_estimate(self._blocks, name, self._seed, self._effort.statistic)

    def _precise(self, estimate: Estimate) -> bool:
        return half_width(estimate) <= self._effort.half_width

    def _too_busy(self) -> bool:
        """Return whether too many blocks since the last retreat had to be dropped."""
        window = self._blocks[self._window_start :]
        dirty = sum(not block.clean for block in window)
        return len(window) >= _DIRTY_WINDOW and dirty > _MAX_DIRTY_SHARE * len(window)

    def _retreat(self) -> bool:
        """Pause, each time for longer, and warm up again; return ``False`` when all retreats are used up."""
        remaining = self._limit - self._elapsed()
        if self._retreats >= self._effort.retreats or remaining <= 0:
            return False
        pause = min(_FIRST_RETREAT_SECONDS * 2**self._retreats, remaining / 4)
        time.sleep(pause)
        self._retreats += 1
        run_block(self._session, self._lineup(), self._rng)
        self._window_start = len(self._blocks)
        return True


def executed_operators(handle: Handle) -> dict[str, int]:
    """Return how many operators of each type a runtime executes; empty where they cannot be counted.

    For that the model is loaded once more, and its optimised graph written. A full disk is no reason to lose what was
    measured.
    """
    try:
        return handle.operators()
    except (InvalidModelError, OSError):
        return {}
