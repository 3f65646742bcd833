"""One compression method a file: functions that take tensors and return tensors."""
