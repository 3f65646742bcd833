"""Calibrated activation ranges for static quantisation.

The float32 form of a candidate's own graph is run on real text, every text alone and without padding, and the values
that are going to be quantised are looked at: first their extremes, then their histogram between the extremes.
"""

import itertools
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from onnx import helper

from compressors.export.onnx.builder import GraphBuilder
from compressors.export.onnx.context import Context
from compressors.export.onnx.emitter import emit_network
from compressors.export.onnx.emitter import model_inputs
from compressors.export.onnx.quantization import Float
from compressors.export.onnx.quantization import Range
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from infra.errors import InvalidInputError

Feeds = dict[str, NDArray[np.int64]]
Ranges = dict[str, Range]

TEXTS = 64
"""Texts that are looked at; the ranges of more differ little and cost time for every candidate."""

PERCENTILE = 99.999
BINS = 2048
MSE_STEPS = 60
MSE_SMALLEST = 0.2
_SAMPLED = 1 << 13
"""Values of one activation that are kept from one text."""


def collect_ranges(network: EncoderNetwork, recipe: Recipe, feeds: Iterable[Feeds]) -> Ranges:
    """Find the ranges of all activations that the static scheme quantises.

    Args:
        network: The candidate.
        recipe: Its recipe; ``recipe.quantization.ranges`` chooses how a range is found.
        feeds: Model inputs, int64 ``[batch, sequence]``; padding is cut off. The first :data:`TEXTS` texts are used.

    Returns:
        Ranges by value name, for :func:`write_onnx`; empty where nothing is quantised.

    Raises:
        InvalidInputError: ``feeds`` is empty.
    """
    if recipe.quantization.scheme != "static":
        return {}
    texts = list(itertools.islice((text for item in feeds for text in _unpadded(item)), TEXTS))
    if not texts:
        raise InvalidInputError("Static quantisation needs calibration text.", hint="Pass at least one text.")
    with tempfile.TemporaryDirectory() as scratch:
        names, session = _probe(network, recipe, Path(scratch) / "probe.onnx")
        seen = {name: _Seen() for name in names}
        for text in texts if names else ():
            for name, value in _run(session, names, text).items():
                seen[name].add(value)
    choose = {"minmax": lambda _, extremes: extremes, "percentile": percentile_range, "mse": mse_range}
    find = choose[recipe.quantization.ranges]
    return {name: find(np.concatenate(item.samples), item.extremes) for name, item in seen.items()}


def percentile_range(values: Float, extremes: Range) -> Range:
    """Cut off the outermost values at both ends, ``100 - PERCENTILE`` per cent in total.

    Args:
        values: A sample of the activation, any shape.
        extremes: The smallest and the largest value of all, which the result does not exceed.
    """
    tail = (100.0 - PERCENTILE) / 200.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Range(max(float(low), extremes.low), min(float(high), extremes.high))


def mse_range(values: Float, extremes: Range) -> Range:
    """Shrink the extremes by the common factor that gives the least mean squared error on the uint8 grid.

    Rounding costs ``step**2 / 12`` for each value inside, clipping the squared distance for each value outside.
    Arguments as for :func:`percentile_range`.
    """
    if extremes.low == extremes.high:
        return extremes
    counts, edges = np.histogram(values, bins=BINS, range=(extremes.low, extremes.high))
    centres = (edges[:-1] + edges[1:]) / 2
    best, best_error = extremes, np.inf
    for factor in np.linspace(1.0, MSE_SMALLEST, MSE_STEPS):
        candidate = Range(extremes.low * factor, extremes.high * factor)
        step = float(candidate.affine()[0])
        outside = centres - np.clip(centres, candidate.low, candidate.high)
        error = float(np.sum(counts * np.where(outside == 0, step**2 / 12, outside**2)))
        if error < best_error:
            best, best_error = candidate, error
    return best


@dataclass
class _Seen:
    """What is remembered of one activation."""

    extremes: Range = field(default_factory=lambda: Range(0.0, 0.0))
    samples: list[Float] = field(default_factory=list)

    def add(self, value: Float) -> None:
        flat = value.reshape(-1)
        self.extremes = Range(min(self.extremes.low, float(flat.min())), max(self.extremes.high, float(flat.max())))
        stride = max(1, flat.size // _SAMPLED)
        while math.gcd(stride, value.shape[-1]) != 1:  # otherwise some channels would never be looked at
            stride += 1
        self.samples.append(flat[::stride].copy())


def _probe(network: EncoderNetwork, recipe: Recipe, path: Path) -> tuple[list[str], Any]:
    """Open the float32 form of the graph with every value of interest as an output."""
    import onnxruntime

    builder = GraphBuilder()
    context = Context(builder, recipe.graph, recipe.quantization, probes=[])
    emit_network(context, network)
    names = list(dict.fromkeys(context.probes or []))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    if not names:
        return [], None
    builder.write(path, model_inputs(network, None), outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return names, onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _unpadded(feeds: Feeds) -> Iterable[Feeds]:
    lengths = feeds["attention_mask"].sum(axis=1)
    for row, length in enumerate(lengths):
        yield {name: np.ascontiguousarray(array[row : row + 1, : max(int(length), 1)]) for name, array in feeds.items()}


def _run(session: Any, names: list[str], text: Feeds) -> dict[str, NDArray[np.float32]]:
    inputs = {item.name for item in session.get_inputs()}
    values = session.run(names, {name: array for name, array in text.items() if name in inputs})
    return dict(zip(names, values, strict=True))
