"""Where two graphs of the same network differ in what a runtime executes, by kind of operator. Light: no torch.

Norms, attentions and activations, as :mod:`compressors.export.fusion` counts them, should be as many in both. All else
are ways of writing the same: three products or one, transposes or another layout, a mask computed once or often.
"""

from collections.abc import Mapping

from compressors.export.fusion import FUSED
from compressors.export.fusion import layer_parts

KINDS: dict[str, frozenset[str]] = {
    "norms": frozenset({*FUSED["norms"], "MVN"}),
    "attentions": frozenset({*FUSED["attentions"], "ScaledDotProductAttention"}),
    "activations": frozenset({*FUSED["activations"], "Erf", "Relu", "Tanh"}),
    "products": frozenset(
        {"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "FullyConnected", "MatMulNBits", "MatMulInteger"}
        | {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "Einsum"}
    ),
    "rounding": frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize"}),
    "moved data": frozenset(
        {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "StridedSlice", "Gather"}
        | {"GatherND", "GatherElements", "Expand", "Tile", "Flatten", "Identity", "Reorder", "Pad"}
    ),
    "masks and shapes": frozenset(
        {"Shape", "Cast", "Convert", "Where", "Select", "Equal", "Less", "Greater", "GreaterOrEqual", "LessOrEqual"}
        | {"And", "Or", "Not", "IsNaN", "IsInf", "ConstantOfShape", "Range", "ReduceSum", "CumSum", "Trilu", "Max"}
    ),
    "arithmetic": frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Neg", "Pow", "Sqrt", "Min", "Eltwise", "Subgraph"}),
}
"""Names of operators of ONNX, of ONNX Runtime and of OpenVINO's layers. What is in none of them is ``other``."""
ORDER = (*KINDS, "other")
"""All kinds, in the order in which they are told."""

Differences = dict[str, dict[str, tuple[int, int]]]
"""By kind, then by operator: how many the first graph has, and how many the second."""


def differences(first: Mapping[str, int], second: Mapping[str, int]) -> Differences:
    """Return the operators of which two graphs have different numbers, by kind.

    Args:
        first: Number of executed operators by name.
        second: The same of the other graph.
    """
    found: Differences = {}
    for name in sorted(first.keys() | second.keys()):
        counts = first.get(name, 0), second.get(name, 0)
        if counts[0] != counts[1]:
            found.setdefault(kind_of(name), {})[name] = counts
    return {kind: found[kind] for kind in ORDER if kind in found}


def kind_of(operator: str) -> str:
    """Return the kind of an operator, a key of :data:`KINDS` or ``other``.

    A layer that has fused several operators is attention if there is a softmax in it, else a product if it multiplies
    matrices.
    """
    layer, executed = layer_parts(operator)
    names = {layer, *executed}
    return next((kind for kind in ("attentions", "products", *KINDS) if names & KINDS[kind]), "other")
