"""The state of one recovery, and its single step."""

import math
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch import nn

from compressors.recovery import checkpoint
from compressors.recovery.checkpoint import CurvePoint
from compressors.recovery.checkpoint import Position
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import collate
from compressors.recovery.data import epoch_batches
from compressors.recovery.data import even_parts
from compressors.recovery.data import padded_width
from compressors.recovery.objective import Objective
from compressors.recovery.optimizer import make_optimizer
from compressors.recovery.optimizer import optimizer_tensors
from compressors.recovery.optimizer import restore_optimizer
from compressors.recovery.optimizer import select_trainable
from compressors.recovery.pace import FEWEST_THREADS
from compressors.recovery.pace import Pace
from compressors.recovery.pace import Paces
from compressors.recovery.pace import fastest
from compressors.recovery.pace import timed_batches
from compressors.recovery.precision import candidate_precisions
from compressors.recovery.prepare import PreparedData
from compressors.recovery.schedule import Plan
from compressors.recovery.schedule import learning_rate_factor
from compressors.recovery.schedule import most_steps
from compressors.recovery.schedule import plan_steps
from compressors.recovery.teacher import Teacher
from paretune.artifact.encoder import CompressedEncoder

Evaluate = Callable[[CompressedEncoder], float]

_EVALUATION_SHARE = 0.15
"""Part of the time that evaluations may take."""
_FEWEST_EVALUATIONS = 2
"""A learning curve is fitted to no fewer points."""
_PACE_SHARE = 0.03
"""Part of the time after which no further pace is tried. Where a step takes so long that this is only a few, a pace is
timed on fewer batches, so that the other arithmetic is tried all the same."""
_FIRST_LOOK = 1 / 12
"""Progress by which the held-back part has been evaluated at the latest: large steps show what they do at once."""
_EARLY = 0.4
"""Progress until which a run may be taken back to its best weights: later ones have no time to make use of it."""
_EXCURSION = 1.25
"""Distance from the dense model, in units of that at the start, at which a run has lost more than it wins back in good
time. A student that was damaged little is driven away by steps that heal another one."""
_SMALLER = 1 / 3
"""The learning rate is reduced to this part then; each time takes a twelfth of the run or more."""
_STEADY_STEPS = 8
"""Steps after which their mean duration is trusted more than the planned one."""


class Run:
    """A recovery between two steps: weights, moments, average, best weights, position.

    A new run is laid out for its budget and its start is evaluated; an interrupted one is loaded from its checkpoint.
    For the arguments see :func:`compressors.recovery.recover.recover`.
    """

    def __init__(
        self,
        student: CompressedEncoder,
        teacher: Teacher,
        data: PreparedData,
        config: RecoveryConfig,
        evaluate: Evaluate | None,
        checkpoint_dir: Path | None,
        fingerprint: str,
        clock: Callable[[], float] = time.perf_counter,
        paces: Paces | None = None,
    ) -> None:
        self._now = clock
        self._paces = Paces() if paces is None else paces
        self.student, self.data, self.config = student, data, config
        self.pace = Pace(torch.get_num_threads(), candidate_precisions(config)[0])
        self._evaluate, self._directory = evaluate, checkpoint_dir
        self._lengths = [len(data.examples.input_ids[row]) for row in data.train]
        self._batches_per_epoch = len(epoch_batches(self._lengths, config.batch_size, 0, 0))
        self._held = [
            collate(data.examples, data.held[start : start + config.batch_size])
            for start in range(0, len(data.held), config.batch_size)
        ]
        self._objective = Objective(student, teacher, config, self.pace.precision, self._held)
        self.parameters = select_trainable(student, config)
        self.optimizer = make_optimizer(self.parameters, config)
        self.average: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        saved = None if checkpoint_dir is None else checkpoint.load(checkpoint_dir, fingerprint)
        if saved is None:
            self._start(fingerprint)
        else:
            self._resume(*saved)
        self._batches = self._batches_from(self.plan.step)
        self._resumed_at = (self.plan.step, self.position.seconds)
        self._clock = self._now()
        self._last_checkpoint = self._clock
        if saved is None:
            self.checkpoint()

    @property
    def step_seconds(self) -> float:
        """Mean duration of a step in this sitting, evaluations included; the planned one before the first."""
        step, seconds = self._resumed_at
        taken = self.plan.step - step
        return (self.position.seconds - seconds) / taken if taken else self._planned_step_seconds

    @property
    def out_of_patience(self) -> bool:
        """Whether the last evaluations brought nothing better."""
        patience, curve = self.config.patience, self.position.curve
        return patience is not None and sum(point.step > self.position.best_step for point in curve) >= patience

    def step(self) -> float:
        """Take one step (and evaluate and write a checkpoint when it is time); return the loss."""
        factor = learning_rate_factor(
            self.plan.progress + (1 - self.plan.progress) / (self.plan.steps - self.plan.step) / 2,
            self.config.warmup,
            self.config.decay,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor * self.position.rate
        self.student.train()
        loss = self._update(next(self._batches))
        before = self.plan.progress
        self.plan.advance()
        self.position.loss_sum += loss
        self.position.loss_count += 1
        evaluations = self.position.evaluations
        due = self.plan.finished or int(self.plan.progress * evaluations) > int(before * evaluations)
        if due or (self.position.start_score < 0 and before < _FIRST_LOOK <= self.plan.progress):
            self._record()
            self._turn_back()
        self._tick()
        self._refit()
        if self._now() - self._last_checkpoint >= self.config.checkpoint_seconds:
            self.checkpoint()
        return loss

    def checkpoint(self) -> None:
        """Write the checkpoint, if there is a place for it."""
        self._last_checkpoint = self._now()
        if self._directory is None:
            return
        self.position.steps, self.position.step = self.plan.steps, self.plan.step
        self.position.progress = self.plan.progress
        groups: dict[str, dict[str, Tensor]] = {
            "model": dict(self.parameters.items()),
            "optimizer": optimizer_tensors(self.optimizer, self.parameters),
            "average": self.average,
            "best": self.best,
        }
        checkpoint.save(self._directory, self.position, groups)

    def _start(self, fingerprint: str) -> None:
        self._planned_step_seconds = self._find_pace() if self.config.seconds is not None else 0.0
        self.plan = plan_steps(self.config, self._batches_per_epoch, self._planned_step_seconds)
        if self.config.average is not None:
            self.average = _copy(self.parameters)
        self.best = _copy(self.parameters)
        started = self._now()
        score = self._score()
        evaluations = self.config.evaluations
        if self.config.seconds is not None:
            affordable = _EVALUATION_SHARE * self.config.seconds / max(self._now() - started, 1e-9)
            evaluations = max(min(_FEWEST_EVALUATIONS, evaluations), min(evaluations, int(affordable)))
        self.position = Position(
            fingerprint,
            self.plan.steps,
            start_score=score,
            best_score=score,
            evaluations=evaluations,
            threads=self.pace.threads,
            precision=self.pace.precision,
        )
        self.position.curve.append(CurvePoint(0, 0.0, 0.0, 0.0, score))

    def _resume(self, position: Position, groups: dict[str, dict[str, Tensor]]) -> None:
        self.position = position
        self.position.evaluations = position.evaluations or self.config.evaluations
        allowed, threads = candidate_precisions(self.config), torch.get_num_threads()
        precision = position.precision or allowed[-1]  # files of before have none: auto took bf16 where there are tiles
        self._set_pace(
            Pace(min(position.threads or threads, threads), precision if precision in allowed else allowed[0])
        )
        position.threads, position.precision = self.pace.threads, self.pace.precision
        self.plan = Plan(position.steps, position.step, position.progress)
        self._planned_step_seconds = position.seconds / max(1, position.step)
        self._load(groups["model"])
        restore_optimizer(self.optimizer, self.parameters, groups.get("optimizer", {}))
        self.average, self.best = groups.get("average", {}), groups["best"]

    def _update(self, rows: list[int]) -> float:
        """Train on the texts at ``rows`` of the training part."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        labels = self.data.examples.labels
        labelled = sum(labels[self.data.train[row]] != UNLABELLED for row in rows) if labels is not None else 0
        longest = max(self._lengths[row] for row in rows)
        width = padded_width(longest, self.student.structure.embeddings.positions)
        for part in even_parts(rows, width, self.config.tokens_per_pass):
            batch = collate(self.data.examples, [self.data.train[row] for row in part], width)
            loss = self._objective.loss(self.student, batch, rows=len(rows), labelled=labelled)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.gradient_clip)
        self.optimizer.step()
        if self.config.average is not None and self.average:
            # A young average would remember the damaged start for long: its decay grows with the number of steps.
            decay = min(self.config.average, (1 + self.plan.step) / (10 + self.plan.step))
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter.detach(), 1 - decay)
        return total

    def _batches_from(self, step: int) -> Iterator[list[int]]:
        epoch, skip = divmod(step, self._batches_per_epoch)
        while True:
            yield from epoch_batches(self._lengths, self.config.batch_size, self.config.seed, epoch)[skip:]
            epoch, skip = epoch + 1, 0

    def _find_pace(self) -> float:
        """Take the pace at which steps are fastest; return the seconds of one."""
        threads, precisions = torch.get_num_threads(), candidate_precisions(self.config)
        shape = self.student.structure.model_dump_json()
        known = self._paces.known(shape, threads, precisions)
        first = known or self._paces.guess(threads, precisions)
        if known is not None:
            precisions = (known.precision,)
        if self.config.threads is not None:
            first = Pace(threads, first.precision)
        fewest = FEWEST_THREADS if self.config.threads is None and known is None else first.threads
        started, limit = self._now(), _PACE_SHARE * (self.config.seconds or 0.0)
        batches, in_time = 0, True
        warm = set[str]()  # by precision: the first pass pays for allocations and kernels, whatever the threads

        def step_seconds(pace: Pace) -> float:
            nonlocal batches, in_time
            if warm and self._now() - started > limit:
                in_time = False
                return math.inf
            self._set_pace(pace)
            if not batches:
                once = self._measure_step(1, warm=False)
                halving = pace.threads // 2 >= fewest
                batches = timed_batches(limit / max(once, 1e-9), len(precisions), halving=halving)
                warm.add(pace.precision)
                return once if batches == 1 else self._measure_step(batches, warm=False)
            seconds = self._measure_step(batches, warm=pace.precision in warm)
            warm.add(pace.precision)
            return seconds

        pace, seconds = fastest(first, precisions, step_seconds, fewest=fewest)
        self._set_pace(pace)
        self._paces.note(shape, pace, settled=in_time)
        return seconds

    def _set_pace(self, pace: Pace) -> None:
        self.pace = pace
        self._objective.precision = pace.precision
        torch.set_num_threads(pace.threads)

    def _measure_step(self, count: int, *, warm: bool) -> float:
        """Time real steps, then put everything back.

        Args:
            count: On so many batches, from short to long; one is of medium length.
            warm: Such steps were taken before: no round for allocations and kernels that are compiled on first use.
        """
        saved = _copy(self.parameters)
        order = sorted(range(len(self._lengths)), key=lambda row: self._lengths[row])
        size = self.config.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        chosen = [batches[(2 * place + 1) * len(batches) // (2 * count)] for place in range(count)]
        self.plan = Plan(1)
        self.student.train()
        for _ in range(1 if warm else 2):
            started = self._now()
            for rows in chosen:
                self._update(rows)
        seconds = (self._now() - started) / len(chosen)
        self._load(saved)
        self.optimizer = make_optimizer(self.parameters, self.config)
        return seconds

    def _record(self) -> None:
        position, step = self.position, self.plan.step
        kept: dict[str, Tensor] = {}
        if self.average:
            kept = _copy(self.parameters)
            self._load(self.average)
        score = self._score()
        loss = position.loss_sum / max(1, position.loss_count)
        epoch = step / self._batches_per_epoch
        self._tick()
        position.curve.append(CurvePoint(step, epoch, position.seconds, loss, score))
        position.loss_sum, position.loss_count = 0.0, 0
        if score > position.best_score:
            position.best_score, position.best_step = score, step
            self.best = _copy(self.parameters)
        if kept:
            self._load(kept)

    def _turn_back(self) -> None:
        """Go on from the best weights in smaller steps where the first steps were too large for this student."""
        position = self.position
        limit = _EXCURSION * position.start_score
        far = position.curve[-1].score < limit < 0
        if not far or self.plan.progress > _EARLY:
            return
        position.rate *= _SMALLER
        self._load(self.best)
        if self.average:
            self.average = _copy(self.best)
        for state in self.optimizer.state.values():  # the sizes of gradients stay known; where they led to does not
            state["exp_avg"].zero_()

    def _score(self) -> float:
        self.student.eval()
        if self._evaluate is not None:
            return self._evaluate(self.student)
        return -self._objective.divergence(self.student, self._held)

    def _load(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def _tick(self) -> None:
        now = self._now()
        self.position.seconds += now - self._clock
        self._clock = now

    def _refit(self) -> None:
        if self.config.seconds is None or self.plan.step - self._resumed_at[0] < _STEADY_STEPS:
            return
        limit = most_steps(self.config, self._batches_per_epoch)
        self.plan.refit(
            self.position.seconds, self.step_seconds, self.config.seconds, limit if limit is not None else 10**9
        )


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
