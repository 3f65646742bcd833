"""The graph that each back end runs fastest, as measured by ``benchmarks.graph_recipes``. Light to import."""

from compressors.recipe import GraphRecipe

_ONNX_RUNTIME = GraphRecipe(operators="contrib", layout="sequence_first", packed_qkv=True, gelu="fused")
_OPENVINO = GraphRecipe(operators="standard", layout="batch_first", packed_qkv=False, gelu="fused")


def default_graph(profiler: str, bits_used: set[int]) -> GraphRecipe:
    """Return the measured best graph for a device.

    Args:
        profiler: Name of the profiler plugin, such as ``onnxruntime`` or ``openvino``.
        bits_used: Weight bit-widths that occur in the candidate: quantised products favour another form.

    Returns:
        The graph recipe; an unknown profiler gets the portable one, which has standard operators only.
    """
    if profiler == "onnxruntime":
        return _ONNX_RUNTIME.model_copy(update={"packed_qkv": 8 not in bits_used})
    return _OPENVINO
