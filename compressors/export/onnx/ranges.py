"""Calibrated activation ranges for static quantisation.

The float32 form of a candidate's own graph is run on real text, every text alone and without padding, and the values
that are going to be quantised are looked at: first their extremes, then their histogram between the extremes.
"""

import itertools
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
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError

Feeds = dict[str, NDArray[np.int64]]
Ranges = dict[str, Range]

TEXTS = 64
"""Texts that are looked at; the ranges of more differ little and cost time for every candidate."""

PERCENTILE = 99.999
BINS = 2048
LEVELS = 256
STEPS = 60
SMALLEST = 0.2
_EMPTY_BIN = 1e-4
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
        weights, session = _probe(network, recipe, Path(scratch) / "probe.onnx")
        seen = {name: _Seen() for name in weights}
        for text in texts if weights else ():
            for name, value in _run(session, list(weights), text).items():
                seen[name].add(value)
    return {name: _range(item, weights[name], recipe.quantization) for name, item in seen.items()}


def _range(seen: "_Seen", weights: Float, quantization: QuantizationRecipe) -> Range:
    divisor = None
    if quantization.smoothing:
        divisor = smoothing_divisor(np.maximum(-seen.low, seen.high), weights, quantization.smoothing)
    scale = np.float32(1.0) if divisor is None else divisor
    extremes = Range(float((seen.low / scale).min(initial=0.0)), float((seen.high / scale).max(initial=0.0)))
    choose = {"minmax": minmax_range, "percentile": percentile_range, "entropy": entropy_range, "mse": mse_range}
    found = choose[quantization.ranges](np.concatenate(seen.rows) / scale, extremes)
    return Range(found.low, found.high, divisor)


def smoothing_divisor(activations: Float, weights: Float, alpha: float) -> Float:
    """Share the spread of a product's two factors between them, channel by channel (arXiv 2211.10438, equation 4).

    Args:
        activations: ``[channels]``: largest magnitude of each channel.
        weights: ``[channels]``: largest magnitude of the weights that read it.
        alpha: Share of the activations' spread that moves to the weights, between 0 and 1.

    Returns:
        ``[channels]``, positive, geometric mean 1; 1 where a channel or its weights are zero.
    """
    alive = (activations > 0) & (weights > 0)
    divisor = np.ones_like(activations, dtype=np.float32)
    if alive.any():
        logarithm = alpha * np.log(activations[alive]) - (1.0 - alpha) * np.log(weights[alive])
        divisor[alive] = np.exp(logarithm - logarithm.mean())
    return divisor


def minmax_range(values: Float, extremes: Range) -> Range:
    """Cover everything that was seen. Arguments as for :func:`percentile_range`."""
    return extremes


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
    counts, centres = _histogram(values, extremes)

    def error(candidate: Range) -> float:
        step = float(candidate.affine()[0])
        outside = centres - np.clip(centres, candidate.low, candidate.high)
        return float(np.sum(counts * np.where(outside == 0, step**2 / 12, outside**2)))

    return min(_shrunk(extremes), key=error)


def entropy_range(values: Float, extremes: Range) -> Range:
    """Shrink the extremes by the common factor that keeps the distribution of the values closest.

    Closest in Kullback-Leibler divergence: the clipped histogram against the same histogram with the resolution of the
    uint8 grid. Clipped mass counts at the edges of the clipped histogram and is missing from the coarse one.
    Arguments as for :func:`percentile_range`.
    """
    counts, centres = _histogram(values, extremes)

    def divergence(candidate: Range) -> float:
        inside = (centres >= candidate.low) & (centres <= candidate.high)
        kept = counts[inside].astype(np.float64)
        if kept.size < LEVELS or kept.sum() == 0:
            return np.inf
        clipped = kept.copy()
        clipped[0] += counts[centres < candidate.low].sum()
        clipped[-1] += counts[centres > candidate.high].sum()
        level = np.arange(kept.size) * LEVELS // kept.size
        full = kept > 0
        mass = np.bincount(level, kept, LEVELS) / np.maximum(np.bincount(level, full, LEVELS), 1)
        coarse = np.where(full, mass[level], 0.0)
        return _divergence(_smoothed(clipped), _smoothed(coarse))

    return min(_shrunk(extremes), key=divergence)


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    positive: NDArray[np.float64] = np.maximum(counts, _EMPTY_BIN)
    return positive / float(positive.sum())


def _divergence(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.sum(first * np.log(first / second)))


def _shrunk(extremes: Range) -> list[Range]:
    """Candidate ranges, the widest first."""
    return [Range(extremes.low * factor, extremes.high * factor) for factor in np.linspace(1.0, SMALLEST, STEPS)]


def _histogram(values: Float, extremes: Range) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return ``(counts, centres)`` of equal bins between the extremes."""
    counts, edges = np.histogram(values, bins=BINS, range=(extremes.low, extremes.high))
    return counts, (edges[:-1] + edges[1:]) / 2


@dataclass
class _Seen:
    """What is remembered of one activation: channel-wise extremes ``[channels]``, and some rows ``[n, channels]``."""

    low: Float = field(default_factory=lambda: np.zeros(1, np.float32))
    high: Float = field(default_factory=lambda: np.zeros(1, np.float32))
    rows: list[Float] = field(default_factory=list)

    def add(self, value: Float) -> None:
        rows = value.reshape(-1, value.shape[-1])
        self.low, self.high = np.minimum(self.low, rows.min(axis=0)), np.maximum(self.high, rows.max(axis=0))
        self.rows.append(rows[:: max(1, value.size // _SAMPLED)].copy())


def _probe(network: EncoderNetwork, recipe: Recipe, path: Path) -> tuple[dict[str, Float], Any]:
    """Open the float32 form of the graph with every value of interest as an output.

    Returns:
        The largest magnitudes of the weights that read each value, ``[channels]`` by name, and the session.
    """
    import onnxruntime

    builder = GraphBuilder()
    context = Context(builder, recipe.graph, recipe.quantization, probes={})
    emit_network(context, network)
    probes = context.probes or {}
    if not probes:
        return {}, None
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in probes]
    builder.write(path, model_inputs(network, None), outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return probes, onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _unpadded(feeds: Feeds) -> Iterable[Feeds]:
    lengths = feeds["attention_mask"].sum(axis=1)
    for row, length in enumerate(lengths):
        yield {name: np.ascontiguousarray(array[row : row + 1, : max(int(length), 1)]) for name, array in feeds.items()}


def _run(session: Any, names: list[str], text: Feeds) -> dict[str, NDArray[np.float32]]:
    inputs = {item.name for item in session.get_inputs()}
    values = session.run(names, {name: array for name, array in text.items() if name in inputs})
    return dict(zip(names, values, strict=True))
