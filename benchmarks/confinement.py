"""What the layers around a runner cost: its start, and the time of an inference inside of it.

    python -m benchmarks.confinement

Runners with all layers and runners without those that can be switched off take turns. An inference is a chain of matrix
products in ONNX Runtime, one thread; like a model's it makes hardly any system calls. Opening files shows what a layer
costs that looks at every path.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto
from onnx import helper

from benchmarks.tables import print_table
from infra.json_types import JsonObject
from infra.settings import load_settings
from workers.runner.operation import OperationContext
from workers.runner.process import RunnerProcess

OPERATIONS = {"infer": "benchmarks.confinement:infer", "open_files": "benchmarks.confinement:open_files"}
_OFF: dict[str, bool] = {
    f"runner_{layer}": False for layer in ("isolate_files", "filter_system_calls", "isolate_network")
}
_WIDTH, _DEPTH, _ROWS = 384, 12, 128


def infer(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Run the model ``repeats`` times and return the seconds of each."""
    session = context.state.get("session")
    if session is None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = context.state["session"] = onnxruntime.InferenceSession(_model(), options)
    feeds = {"x": np.ones((_ROWS, _WIDTH), np.float32)}
    seconds = []
    for _ in range(arguments["repeats"]):
        started = time.perf_counter()
        session.run(None, feeds)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


def open_files(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Open and close a library file ``repeats`` times and return the seconds of each."""
    path = Path(np.__file__)
    seconds = []
    for _ in range(arguments["repeats"]):
        started = time.perf_counter()
        path.open("rb").close()
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


def _model() -> bytes:
    weight = np.eye(_WIDTH, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", "w"], [f"h{i + 1}"]) for i in range(_DEPTH)]
    shape = [_ROWS, _WIDTH]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"h{_DEPTH}", TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="runners of each kind")
    arguments = parser.parse_args()
    kinds: dict[str, dict[str, bool]] = {"all layers": {}, "layers off": _OFF}
    times: dict[str, dict[str, list[float]]] = {name: {"start": [], "infer": [], "open_files": []} for name in kinds}
    layers: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as home:
        for number in range(arguments.rounds):
            for name in sorted(kinds, reverse=bool(number % 2)):
                settings = load_settings(home=Path(home), **kinds[name])
                started = time.perf_counter()
                runner = RunnerProcess(settings, "device", Path(home) / "work", "benchmarks.confinement")
                times[name]["start"].append(time.perf_counter() - started)
                layers[name] = ", ".join(sorted(layer for layer, active in runner.layers.items() if active))
                for operation, repeats in (("infer", 60), ("open_files", 500)):
                    seconds = runner.call(operation, {"repeats": repeats})["seconds"]
                    times[name][operation].append(statistics.median(seconds))
                runner.close()
    for name, active in layers.items():
        print(f"{name}: {active}")
    rows = []
    for what, unit, scale in (("start", "ms", 1e3), ("infer", "ms", 1e3), ("open_files", "us", 1e6)):
        medians = {name: statistics.median(times[name][what]) * scale for name in kinds}
        with_all, without = medians.values()
        formatted = {name: f"{value:.3f}" for name, value in medians.items()}
        rows.append({"median": f"{what} ({unit})"} | formatted | {"ratio": f"{with_all / without:.3f}"})
    print_table(rows)


if __name__ == "__main__":
    main()
