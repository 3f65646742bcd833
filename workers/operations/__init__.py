"""What runners can do: names of operations, and the functions that are imported when they are called first."""

OPERATIONS: dict[str, str] = {}
"""``{name: "module:function"}``; see :data:`workers.runner.operation.Operation`."""
