"""A small, deterministic ONNX graph builder: names are given by the caller, order is the order of the calls."""

from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compressors.export.onnx.serialization import write_model

MICROSOFT = "com.microsoft"
"""Operator domain of ONNX Runtime's contributed operators."""

OPSET = 21
IR_VERSION = 10


class GraphBuilder:
    """Collects nodes and initialisers; every method that adds a node returns the name of its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, NDArray[Any]] = {}

    def initializer(self, name: str, array: NDArray[Any]) -> str:
        """Store ``array`` under ``name``; storing the same name twice is an error."""
        if name in self._initializers:
            raise ValueError(f"initialiser {name!r} is written twice")
        self._initializers[name] = array
        return name

    def integers(self, name: str, array: NDArray[np.int8], bits: int) -> str:
        """Store signed integers of 8 or 4 bits."""
        return self.initializer(name, array.astype(ml_dtypes.int4) if bits == 4 else array)

    def constant(self, value: NDArray[Any] | np.generic | list[int]) -> str:
        """Store a small constant once, named by its content; lists become int64 vectors."""
        array = np.asarray(value, dtype=np.int64) if isinstance(value, list) else np.asarray(value)
        text = "_".join(str(item) for item in array.reshape(-1).tolist())
        name = f"constant.{array.dtype}.{'x'.join(map(str, array.shape))}.{text}"
        return name if name in self._initializers else self.initializer(name, array)

    def node(self, operator: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, named ``output``; returns that name."""
        return self.nodes(operator, inputs, [output], domain=domain, **attributes)[0]

    def nodes(
        self, operator: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; ``None`` attributes are left out."""
        given = {key: value for key, value in attributes.items() if value is not None}
        node = helper.make_node(operator, inputs, outputs, name=f"{outputs[0]}/{operator}", domain=domain, **given)
        self._nodes.append(node)
        return outputs

    def operators(self) -> dict[str, int]:
        """Count the nodes by operator, alphabetically."""
        return dict(sorted(Counter(node.op_type for node in self._nodes).items()))

    def write(
        self, path: Path, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]
    ) -> tuple[int, str]:
        """Write everything that was added to ``path``; returns the file's size in bytes and its sha256."""
        graph = helper.make_graph(self._nodes, "encoder", inputs, outputs)
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in self._nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="paretune", ir_version=IR_VERSION)
        return write_model(model, self._initializers, path)
