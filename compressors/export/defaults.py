"""The graph that each back end runs fastest, as measured by ``benchmarks.graph_recipes``. Light to import."""

from compressors.recipe import GraphRecipe

_ONNX_RUNTIME = GraphRecipe(operators="contrib", layout="sequence_first", packed_qkv=False, gelu="fused")
_OPENVINO = GraphRecipe(operators="standard", layout="batch_first", packed_qkv=False, gelu="fused")

_BEST = {
    ("onnxruntime", "float"): _ONNX_RUNTIME,
    ("onnxruntime", "integer"): _ONNX_RUNTIME,
    ("openvino", "float"): _OPENVINO,
    ("openvino", "integer"): _OPENVINO,
}


def default_graph(profiler: str, bits_used: set[int]) -> GraphRecipe:
    """Return the measured best graph for a device.

    Args:
        profiler: Name of the profiler plugin, such as ``onnxruntime`` or ``openvino``.
        bits_used: Weight bit-widths that occur in the candidate.

    Returns:
        The graph recipe; an unknown profiler gets the portable one, which has standard operators only.
    """
    arithmetic = "integer" if min(bits_used, default=32) <= 8 else "float"
    return _BEST.get((profiler, arithmetic), _OPENVINO)
