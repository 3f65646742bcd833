"""Train a compressed model back towards the dense one."""

import hashlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from compressors.recovery.checkpoint import CurvePoint
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.pace import Paces
from compressors.recovery.prepare import PreparedData
from compressors.recovery.run import Evaluate
from compressors.recovery.run import Run
from compressors.recovery.teacher import Teacher
from compressors.recovery.teacher import TeacherCache
from paretune.artifact.encoder import CompressedEncoder


@dataclass(frozen=True)
class Progress:
    """Where a recovery is; sent after every step."""

    step: int
    steps: int
    seconds: float
    """Training time so far."""
    seconds_left: float
    loss: float
    best_score: float


@dataclass(frozen=True)
class RecoveryResult:
    """What a recovery has found.

    Scores are those of ``evaluate`` when it was given, else minus the divergence from the dense model on the
    held-back texts (KL of the classes in nats, or one minus the cosine of embeddings). Higher is better.
    """

    state_dict: dict[str, Tensor]
    """Best weights, complete, float32: the student's own tensors, not copies. The starting weights when nothing was
    better."""
    curve: list[CurvePoint]
    """Evaluations in order; the first is the start (step 0)."""
    start_score: float
    best_score: float
    best_step: int
    steps: int
    """Steps taken."""
    seconds: float
    """Training time, evaluations included, of all sittings."""
    stopped: Literal["finished", "patience", "cancelled"]
    precision: str

    @property
    def improved(self) -> bool:
        """Whether the best weights beat the starting ones on data that training did not see."""
        return self.best_step > 0


def recover(
    student: CompressedEncoder,
    teacher: Teacher,
    data: PreparedData,
    config: RecoveryConfig,
    *,
    checkpoint_dir: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    evaluate: Evaluate | None = None,
    clock: Callable[[], float] = time.perf_counter,
    paces: Paces | None = None,
) -> RecoveryResult:
    """Train ``student`` in place within the budget and return its best weights.

    The same arguments, threads and machine give the same weights when the budget is given in epochs or steps; with a
    budget in seconds the number of steps depends on the speed of the machine. A run that was killed and is started
    again with the same arguments and ``checkpoint_dir`` goes on from its last checkpoint and ends where the
    undisturbed run would have ended.

    Args:
        student: the compressed model; left in eval mode with the best weights.
        teacher: the dense model's outputs for ``data.examples``.
        data: from :func:`compressors.recovery.prepare.prepare`.
        config: budget, losses, optimiser.
        checkpoint_dir: where checkpoints go; ``None``: none are written.
        on_progress: called after every step.
        should_stop: polled after every step; when it returns true, a checkpoint is written and the best weights so far
            are returned.
        evaluate: quality of a model on held-back data, higher is better, in place of the built-in score.
        clock: seconds that count against the budget.
        paces: what trainings of such students have found to be fast, to begin with; this one adds what it finds. Only
            with a budget in seconds.

    Raises:
        InvalidInputError: the teacher does not fit the data or the losses.
    """
    with _threads(config.threads):
        if isinstance(teacher, TeacherCache):
            teacher.check(data.examples)
        name = fingerprint(student, data, config)
        run = Run(student, teacher, data, config, evaluate, checkpoint_dir, name, clock, paces)
        stopped: Literal["finished", "patience", "cancelled"] = "finished"
        while not run.plan.finished:
            loss = run.step()
            if on_progress is not None:
                left = (run.plan.steps - run.plan.step) * run.step_seconds
                position = run.position
                on_progress(Progress(run.plan.step, run.plan.steps, position.seconds, left, loss, position.best_score))
            if run.out_of_patience:
                stopped = "patience"
                break
            if should_stop is not None and should_stop():
                stopped = "cancelled"
                break
        run.checkpoint()
        student.load_state_dict(run.best, strict=False)
        position = run.position
        return RecoveryResult(
            state_dict=dict(student.eval().state_dict()),
            curve=list(position.curve),
            start_score=position.start_score,
            best_score=position.best_score,
            best_step=position.best_step,
            steps=run.plan.step,
            seconds=position.seconds,
            stopped=stopped,
            precision=run.pace.precision,
        )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads, or as many as it does; afterwards it uses as many as before."""
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def fingerprint(student: CompressedEncoder, data: PreparedData, config: RecoveryConfig) -> str:
    """sha256 of everything that determines the result."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    digest.update(data.examples.digest.encode())
    digest.update(repr((data.train, data.held)).encode())
    digest.update(student.structure.model_dump_json().encode())
    for tensor in student.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()
