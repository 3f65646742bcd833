"""From a network and a recipe to an ONNX file."""

from collections.abc import Iterable
from pathlib import Path

from compressors.export.onnx.artifact import OnnxArtifact
from compressors.export.onnx.builder import GraphBuilder
from compressors.export.onnx.context import Context
from compressors.export.onnx.emitter import emit_network
from compressors.export.onnx.emitter import model_inputs
from compressors.export.onnx.emitter import model_outputs
from compressors.export.onnx.ranges import Feeds
from compressors.export.onnx.ranges import Ranges
from compressors.export.onnx.ranges import collect_ranges
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe


def write_onnx(
    network: EncoderNetwork,
    recipe: Recipe,
    path: Path,
    *,
    static: tuple[int, int] | None = None,
    feeds: Iterable[Feeds] | None = None,
    ranges: Ranges | None = None,
) -> OnnxArtifact:
    """Write the candidate ``network`` as one ONNX file; the same arguments give the same bytes.

    Args:
        network: The candidate, after the recipe's methods were applied to it.
        recipe: Where the graph's form (``recipe.graph``) and the quantisation scheme are read from.
        path: The file to write.
        static: ``(batch, sequence)`` to write into the graph; ``None``: both are dynamic.
        feeds: Calibration inputs, int64 ``[batch, sequence]``; read by the static scheme only, for the ranges of the
            activations.
        ranges: Those ranges, if the caller has them already (see :func:`collect_ranges`).

    Returns:
        Path, size, digest and operator histogram of the file.

    Raises:
        InvalidInputError: The scheme is static and neither ``feeds`` nor ``ranges`` gives a range that it needs.
        TooLargeError: The file would exceed 2 GiB.
    """
    if ranges is None and feeds is not None and recipe.quantization.scheme == "static":
        ranges = collect_ranges(network, recipe, feeds)
    builder = GraphBuilder()
    context = Context(builder, recipe.graph, recipe.quantization, static, dict(ranges or {}))
    emit_network(context, network)
    size, digest = builder.write(path, model_inputs(network, static), model_outputs(network, static))
    return OnnxArtifact(path, size, digest, builder.operators())
