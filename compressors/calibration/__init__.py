"""What the methods know about the data: second-moment statistics of every distinct linear input, from one pass."""

from compressors.calibration.collect import calibrate
from compressors.calibration.gradients import add_gradient_orders
from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import InputStatistics

__all__ = ["Calibration", "InputStatistics", "add_gradient_orders", "calibrate"]
