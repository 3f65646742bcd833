"""Tiny ONNX models with outputs that numpy can compute."""

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnx import helper
from onnx import numpy_helper

HIDDEN = 64


def chain_weights(width: int, depth: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = [HIDDEN, *[width] * depth, HIDDEN]
    pairs = itertools.pairwise(sizes)
    return [(rng.standard_normal(pair) / np.sqrt(pair[0])).astype(np.float32) for pair in pairs]


def write_chain(path: Path, width: int = 256, depth: int = 3, seed: int = 0) -> Path:
    """MatMul + Relu, ``depth + 1`` times: ``x`` and ``y`` are float32 ``[batch, sequence, 64]``."""
    nodes, weights, current = [], [], "x"
    for index, weight in enumerate(chain_weights(width, depth, seed)):
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{index}"], [f"m{index}"]))
        current = "y" if index == depth else f"r{index}"
        nodes.append(helper.make_node("Relu", [f"m{index}"], [current]))
    shape = ["batch", "sequence", HIDDEN]
    _save(path, nodes, weights, [("x", TensorProto.FLOAT, shape)], ("y", shape))
    return path


def run_chain(x: np.ndarray, width: int = 256, depth: int = 3, seed: int = 0) -> np.ndarray:
    for weight in chain_weights(width, depth, seed):
        x = np.maximum(x @ weight, 0)
    return x


def write_classifier(path: Path, table: np.ndarray, output: str = "logits") -> Path:
    """Mean over attended tokens of the rows of ``table`` [vocabulary, classes]: a bag-of-words classifier."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weights", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], [output]),
    ]
    constants = [
        numpy_helper.from_array(table.astype(np.float32), "table"),
        numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "middle"),
    ]
    ids = ["batch", "sequence"]
    inputs = [("input_ids", TensorProto.INT64, ids), ("attention_mask", TensorProto.INT64, ids)]
    _save(path, nodes, constants, inputs, (output, ["batch", table.shape[1]]))
    return path


def _save(path: Path, nodes: list, constants: list, inputs: list, output: tuple) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
