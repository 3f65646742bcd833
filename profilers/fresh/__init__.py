"""Measuring in fresh processes: what a model costs differs a little each time it is loaded."""

from profilers.fresh.memory import peak_memory
from profilers.fresh.repeated import measure_in_fresh_processes

__all__ = ["measure_in_fresh_processes", "peak_memory"]
