"""The graph and the quantisation that each back end usually runs best, by ``benchmarks.graph_recipes``. Light.

A job races the graph against its alternatives on its own device (``workers.stages.graphs``) and starts from these.
"""

from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe

_ONNX_RUNTIME = GraphRecipe(
    operators="contrib", layout="sequence_first", packed_qkv=False, gelu="fused", merged_keys=True
)
_OPENVINO = GraphRecipe(operators="standard", layout="batch_first", packed_qkv=False, gelu="fused")

_BEST = {
    ("onnxruntime", "float"): _ONNX_RUNTIME,
    ("onnxruntime", "integer"): _ONNX_RUNTIME,
    ("openvino", "float"): _OPENVINO,
    ("openvino", "integer"): _OPENVINO,
}


def default_graph(profiler: str, bits_used: set[int]) -> GraphRecipe:
    """Return the graph that is usually best on a kind of device.

    Args:
        profiler: Name of the profiler plugin, such as ``onnxruntime`` or ``openvino``.
        bits_used: Weight bit-widths that occur in the candidate.

    Returns:
        The graph recipe; an unknown profiler gets the portable one, which has standard operators only.
    """
    arithmetic = "integer" if min(bits_used, default=32) <= 8 else "float"
    return _BEST.get((profiler, arithmetic), _OPENVINO)


def default_quantization(profiler: str, *, saturating: bool = False) -> QuantizationRecipe:
    """Return the measured best way to compute layers with 8 bits on a device.

    The word table is the larger half of a small encoder. In 8 bits with a scale for each row the model is as fast, and
    what rounding it changes cannot be told from what int8 changes elsewhere (``benchmarks.number_formats``).

    OpenVINO has no fast kernels for scales that are found at run time, and folds the multiplications of smoothing into
    the normalisation before them; ONNX Runtime pays for them, and rounds at run time almost for free.

    Args:
        profiler: Name of the profiler plugin; an unknown one gets the dynamic scheme, which needs no calibration.
        saturating: Whether the device's sums of int8 products saturate.
    """
    if profiler == "openvino":
        return QuantizationRecipe(scheme="static", ranges="minmax", smoothing=0.7, reduce_range=saturating)
    return QuantizationRecipe(scheme="dynamic", reduce_range=saturating, embedding_bits=8)
