"""What is done in a step of each kind."""

from workers.stage import Stage

STAGES: dict[str, Stage] = {}
"""``{Step.kind: stage}``."""
