"""Celery only: claim a step, do it in a runner, finish it."""
