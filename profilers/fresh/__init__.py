"""Measuring in fresh processes: what a model costs differs a little each time it is loaded."""

from profilers.fresh.compared_memory import by_memory
from profilers.fresh.compared_memory import reference_memory
from profilers.fresh.compared_memory import repeat_peak_memory
from profilers.fresh.memory import peak_memory
from profilers.fresh.repeated import measure_in_fresh_processes

__all__ = ["by_memory", "measure_in_fresh_processes", "peak_memory", "reference_memory", "repeat_peak_memory"]
