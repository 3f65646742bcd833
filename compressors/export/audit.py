"""Compare an emitted graph with what ``torch.onnx.export`` makes of the same candidate.

Candidates are written from their recipe, never traced. Tracing a few of them anyway shows that the emitter still
computes the same function, and what the runtime makes of either graph.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from compressors.anatomy.describe import describe
from compressors.export.baselines import export_module
from compressors.export.checks import Feeds
from compressors.export.checks import compare
from compressors.export.checks import example_feeds
from compressors.export.checks import in_float32
from compressors.export.checks import onnx_runner
from compressors.export.checks import require
from compressors.export.folder import input_names
from compressors.export.folder import output_name
from compressors.export.fusion import expected_fusions
from compressors.export.fusion import fusions
from compressors.export.manifest import ExportCheck
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.torch_module import to_module

EMITTED, TRACED = "emitted.onnx", "traced.onnx"


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        check: Emitted against traced graph, both float32, both in ONNX Runtime.
        emitted: Operators that ONNX Runtime executes for the emitted graph, float32.
        traced: Operators that it executes for the traced graph.
        deployed: Operators that it executes for the candidate with its bit-widths.
        expected: Fused operators of each kind that the candidate's blocks should become
            (:func:`compressors.export.fusion.expected_fusions`).
    """

    check: ExportCheck
    emitted: dict[str, int]
    traced: dict[str, int]
    deployed: dict[str, int]
    expected: dict[str, int]

    @property
    def fusions(self) -> dict[str, dict[str, int]]:
        """Fused operators of each kind: expected, and found in the three graphs."""
        found = {"written": self.emitted, "traced": self.traced, "deployed": self.deployed}
        counted = {form: fusions(operators, self.expected) for form, operators in found.items()}
        return {"expected": self.expected} | counted

    @property
    def fully_fused(self) -> bool:
        """Whether the runtime fuses every block of the graphs that we write."""
        return all(self.fusions[form] == self.expected for form in ("written", "deployed"))

    @property
    def parity(self) -> bool:
        """Whether it does so for torch's export as well, so that the latencies of both can be compared."""
        return self.fully_fused and self.fusions["traced"] == self.expected


def audit(
    network: EncoderNetwork, recipe: Recipe, feeds: list[Feeds] | None = None, *, folder: Path | None = None
) -> Audit:
    """Trace the candidate with torch and compare it with the emitted graph.

    Args:
        network: The candidate, after the recipe's methods were applied.
        recipe: Its recipe.
        feeds: Calibration inputs; needed by the static scheme.
        folder: Where the two float32 graphs are left, as :data:`EMITTED` and :data:`TRACED`; by default they are not.

    Raises:
        ExportMismatchError: The two graphs compute different functions.
    """
    exact, exact_recipe = in_float32(network, recipe)
    with tempfile.TemporaryDirectory() as scratch:
        kept = folder or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        emitted = write_onnx(exact, exact_recipe, kept / EMITTED).path
        deployed = write_onnx(network, recipe, Path(scratch) / "deployed.onnx", feeds=feeds).path
        traced = kept / TRACED
        export_module(to_module(exact), traced, output_name(network), inputs=input_names(network))
        check = compare(onnx_runner(emitted), onnx_runner(traced), example_feeds(network))
        require(check, "emitted graph")
        ours, theirs, rounded = (executed_operators(path) for path in (emitted, traced, deployed))
        return Audit(check, ours, theirs, rounded, expected_fusions(describe(network)))


def executed_operators(path: Path) -> dict[str, int]:
    """Count the operators of the graph that ONNX Runtime really executes, after its own fusions."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(scratch) / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
