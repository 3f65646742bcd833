"""The learning rate, laid out for a budget."""

import math
from dataclasses import dataclass

from compressors.recovery.config import RecoveryConfig

_TOLERANCE = 0.1
"""Relative error of the planned duration beyond which the rest is laid out anew."""


def learning_rate_factor(progress: float, warmup: float, decay: str) -> float:
    """Return the factor on the peak learning rate.

    Args:
        progress: part of the run that is done, 0 to 1.
        warmup: part in which the rate rises linearly from zero.
        decay: ``linear`` or ``cosine``, from one at the end of the warm-up to zero at the end.
    """
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / (1 - warmup))
    return 1 - rest if decay == "linear" else 0.5 * (1 + math.cos(math.pi * rest))


@dataclass
class Plan:
    """How many steps there will be, and how far the schedule is.

    Progress moves by an equal share of what is left at every step. When the machine turns out slower or faster than
    planned, ``steps`` changes and the learning rate goes on from where it is: it neither jumps nor ends too high.
    """

    steps: int
    """Steps in all, as planned now."""
    step: int = 0
    """Steps taken."""
    progress: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return self.step >= self.steps

    def advance(self) -> None:
        """Count one step."""
        self.progress += (1 - self.progress) / (self.steps - self.step)
        self.step += 1

    def refit(self, elapsed: float, step_seconds: float, seconds: float, most_steps: int) -> bool:
        """Change the number of steps if the planned end misses the budget by more than a tenth.

        Args:
            elapsed: seconds since the start, everything included.
            step_seconds: what a step has cost on average, evaluations included.
            seconds: the budget.
            most_steps: limit from the other budgets.

        Returns:
            Whether the plan changed. A finished plan does not.
        """
        if self.finished:
            return False
        projected = elapsed + (self.steps - self.step) * step_seconds
        if abs(projected - seconds) <= _TOLERANCE * seconds:
            return False
        left = max(0, int((seconds - elapsed) / step_seconds))
        steps = min(most_steps, self.step + left)
        changed = steps != self.steps
        self.steps = steps
        return changed


def most_steps(config: RecoveryConfig, batches_per_epoch: int) -> int | None:
    """Return the limit that ``epochs`` and ``steps`` set; ``None``: only the time limits."""
    limits = [config.steps] if config.steps is not None else []
    if config.epochs is not None:
        limits.append(max(1, round(config.epochs * batches_per_epoch)))
    return min(limits, default=None)


def plan_steps(config: RecoveryConfig, batches_per_epoch: int, step_seconds: float | None) -> Plan:
    """Return the plan for the tightest of the budgets; ``step_seconds`` is needed when there is one in seconds."""
    steps = most_steps(config, batches_per_epoch)
    if config.seconds is not None:
        assert step_seconds is not None
        affordable = max(1, int(config.seconds / step_seconds))
        steps = affordable if steps is None else min(steps, affordable)
    assert steps is not None
    return Plan(steps)
