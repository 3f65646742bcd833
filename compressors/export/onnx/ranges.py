"""Calibrated activation ranges for static quantisation.

The float32 form of a candidate's own graph is run on real text, every text alone and without padding, and the values
that are going to be quantised are looked at: first their extremes, then their histogram between the extremes.
"""

import itertools
import tempfile
from collections.abc import Iterable
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
from compressors.export.onnx.quantization import Range
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from infra.errors import InvalidInputError

Feeds = dict[str, NDArray[np.int64]]
Ranges = dict[str, Range]

TEXTS = 64
"""Texts that are looked at; the ranges of more differ little and cost time for every candidate."""

BINS = 2048
PERCENTILE = 99.999
MSE_STEPS = 60
MSE_SMALLEST = 0.2
_SAMPLED = 1 << 15
"""Values of one activation that enter the histogram from one text."""


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
        if not names:
            return {}
        extremes = _extremes(session, names, texts)
        if recipe.quantization.ranges == "minmax":
            return extremes
        histograms = _histograms(session, names, texts, extremes)
    choose = {"percentile": percentile_range, "mse": mse_range}[recipe.quantization.ranges]
    return {name: choose(histograms[name], extremes[name]) for name in names}


def percentile_range(histogram: NDArray[np.int64], extremes: Range) -> Range:
    """Cut off the outermost values at both ends, ``100 - PERCENTILE`` per cent in total.

    Args:
        histogram: Counts in equal bins between the extremes.
        extremes: The outer edges of the histogram.
    """
    edges = np.linspace(extremes.low, extremes.high, len(histogram) + 1)
    share = np.concatenate([[0.0], np.cumsum(histogram) / max(histogram.sum(), 1)])
    tail = (100.0 - PERCENTILE) / 200.0
    low = edges[np.searchsorted(share, tail, side="right") - 1]
    high = edges[min(int(np.searchsorted(share, 1.0 - tail, side="left")), len(histogram))]
    return Range(float(low), float(high))


def mse_range(histogram: NDArray[np.int64], extremes: Range) -> Range:
    """Shrink the extremes by the common factor that gives the least mean squared error on the uint8 grid.

    Rounding costs ``step**2 / 12`` for each value inside, clipping the squared distance for each value outside.
    """
    centres = np.linspace(extremes.low, extremes.high, len(histogram) + 1)
    centres = (centres[:-1] + centres[1:]) / 2
    best, best_error = extremes, np.inf
    for factor in np.linspace(1.0, MSE_SMALLEST, MSE_STEPS):
        candidate = Range(extremes.low * factor, extremes.high * factor)
        step = float(candidate.affine()[0])
        outside = centres - np.clip(centres, candidate.low, candidate.high)
        error = float(np.sum(histogram * np.where(outside == 0, step**2 / 12, outside**2)))
        if error < best_error:
            best, best_error = candidate, error
    return best


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


def _extremes(session: Any, names: list[str], texts: list[Feeds]) -> Ranges:
    low, high = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for text in texts:
        for name, value in _run(session, names, text).items():
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
    return {name: Range(low[name], high[name]) for name in names}


def _histograms(session: Any, names: list[str], texts: list[Feeds], extremes: Ranges) -> dict[str, NDArray[np.int64]]:
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for text in texts:
        for name, value in _run(session, names, text).items():
            flat = value.reshape(-1)
            flat = flat[:: max(1, flat.size // _SAMPLED)]
            edges = (extremes[name].low, extremes[name].high)
            if edges[0] < edges[1]:
                counts[name] += np.histogram(flat, bins=BINS, range=edges)[0]
    return counts
