"""What runners can do: names of operations, and the functions that are imported when they are called first."""

OPERATIONS: dict[str, str] = {
    "inspect": "workers.operations.inspect:inspect",
    "prepare": "workers.operations.prepare:prepare",
    "options": "workers.operations.options:options",
    "explore": "workers.operations.explore:explore",
    "graph_variants": "workers.operations.graphs:graph_variants",
    "race_graphs": "workers.operations.graph_race:race_graphs",
    "table_blocks": "workers.operations.blocks:table_blocks",
    "table": "workers.operations.table:table",
    "build": "workers.operations.build:build",
    "find_artifact": "workers.operations.build:find",
    "evaluate": "workers.operations.evaluate:evaluate",
    "measure": "workers.operations.measure:measure",
    "audit": "workers.operations.audit:audit",
    "confirm": "workers.operations.confirm:confirm",
    "recover": "workers.operations.recover:recover",
    "export": "workers.operations.export:export",
}
"""``{name: "module:function"}``; see :data:`workers.runner.operation.Operation`."""
