"""What the methods know about the data: second-moment statistics of every distinct linear input, from one pass."""

from compressors.calibration.collect import calibrate
from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import InputStatistics

__all__ = ["Calibration", "InputStatistics", "calibrate"]
