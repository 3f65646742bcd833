"""Operators of two graphs, compared by kind."""

from compressors.export.fusion import FUSED
from compressors.export.histograms import KINDS
from compressors.export.histograms import differences
from compressors.export.histograms import kind_of


def test_only_operators_of_different_number_are_told_by_kind() -> None:
    ours = {"MatMul": 3, "LayerNormalization": 2, "Softmax": 1, "Mystery": 1}
    theirs = {"MatMul": 4, "LayerNormalization": 2, "Softmax": 1, "Transpose": 4, "Shape": 1}
    assert differences(ours, theirs) == {
        "products": {"MatMul": (3, 4)},
        "moved data": {"Transpose": (0, 4)},
        "masks and shapes": {"Shape": (0, 1)},
        "other": {"Mystery": (1, 0)},
    }
    assert differences(ours, ours) == {}


def test_no_operator_is_of_two_kinds_and_fused_ones_are_of_theirs() -> None:
    names = [name for kind in KINDS.values() for name in kind]
    assert len(names) == len(set(names))
    assert all(kind_of(name) == kind for kind, fused in FUSED.items() for name in fused)
    layers = {
        "FullyConnected[Gelu]": "products",
        "Subgraph[MatMul, Softmax]": "attentions",
        "Subgraph[Erf]": "activations",
    }
    assert {name: kind_of(name) for name in layers} == layers
