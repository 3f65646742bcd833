"""What OpenVINO executes: the layers of a compiled model, what each has fused, and the arithmetic that it runs in."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOLD = ("Erf", "Gelu", "MatMul", "Relu", "ScaledDotProductAttention", "Softmax", "Tanh")
"""Operators of the model that a layer's name tells where it executes them beside others: by these one sees what is
fused. A layer that adds a bias or moves a transpose is called by its own name alone."""
PRODUCTS = ("FullyConnected", "MatMul", "GatherMatmul")
"""Layers that are matrix products, whatever else they do."""
_IGNORED = ("Const", "Input", "Output")
_CURVES = ("Erf", "Tanh")
_OWN = {"FullyConnected": "MatMul"}
_INTEGERS = {"i8": "int8", "u8": "int8"}
"""OpenVINO tells the type of the inputs, which have a sign or not."""
_STEPS_OF_GELU = 3
"""``x * (erf(x / sqrt 2) + 1) * 0.5``: an addition and two multiplications after the ``Erf`` (or ``Tanh``)."""


@dataclass(frozen=True)
class Layer:
    """One layer of a compiled model.

    Attributes:
        kind: OpenVINO's ``layerType``, such as ``FullyConnected``, ``MVN`` or ``Subgraph``.
        precision: OpenVINO's ``runtimePrecision``: ``f32``, ``bf16``, ``i8``, ``u8``, ...
        fused: Types of the operators of :data:`TOLD` that it executes, sorted, without its own.
    """

    kind: str
    precision: str
    fused: tuple[str, ...]

    @property
    def name(self) -> str:
        """For example ``FullyConnected[Gelu]`` or ``Subgraph[MatMul, Softmax]``."""
        return f"{self.kind}[{', '.join(self.fused)}]" if self.fused else self.kind

    @property
    def is_product(self) -> bool:
        """Whether it multiplies matrices."""
        return self.kind in PRODUCTS or "MatMul" in self.fused


@dataclass(frozen=True)
class Operators:
    """What is known of a model before it is compiled: afterwards only names of its operators are left.

    Attributes:
        types: Type of every operator of :data:`TOLD`, by name.
        gelus: By the name of each ``Erf`` or ``Tanh`` of a GELU that is written out, the name of the multiplication
            that ends it. OpenVINO calls a GELU that it has recognised by the latter; in one that it has not
            recognised, the former is left.
    """

    types: Mapping[str, str]
    gelus: Mapping[str, str]

    @classmethod
    def of(cls, model: Any) -> "Operators":
        """Read an ``openvino.Model``."""
        nodes = model.get_ops()
        types = {node.get_friendly_name(): node.get_type_name() for node in nodes}
        ends = {node.get_friendly_name(): _end_of_gelu(node) for node in nodes if node.get_type_name() in _CURVES}
        gelus = {name: end for name, end in ends.items() if end is not None}
        return cls({name: kind for name, kind in types.items() if kind in TOLD}, gelus)

    def of_layers(self, layers: Iterable[Iterable[str]]) -> dict[str, str]:
        """Return the types by name, for layers that execute the operators of these names."""
        left = {name for names in layers for name in names}
        return {**self.types} | {end: "Gelu" for curve, end in self.gelus.items() if curve not in left}


def read_layers(compiled: Any, operators: Operators) -> list[Layer]:
    """Return the layers that are executed, without constants, inputs and outputs.

    Args:
        compiled: An ``openvino.CompiledModel``.
        operators: Of the model that it was compiled from.
    """
    rows = []
    for node in compiled.get_runtime_model().get_ops():
        told = node.get_rt_info()
        kind, precision, names = (_text(told, key) for key in ("layerType", "runtimePrecision", "originalLayersNames"))
        if kind not in _IGNORED:
            rows.append((kind, precision, names.split(",")))
    types = operators.of_layers(names for _, _, names in rows)
    return [
        Layer(kind, precision, tuple(sorted({types[name] for name in names if name in types} - {_OWN.get(kind, kind)})))
        for kind, precision, names in rows
    ]


def histogram(layers: Iterable[Layer]) -> dict[str, int]:
    """Return how many layers of each name there are."""
    return dict(sorted(Counter(layer.name for layer in layers).items()))


def products(layers: Iterable[Layer]) -> dict[str, int]:
    """Return how many matrix products run in each arithmetic, such as ``{"f32": 2, "int8": 12}``.

    A layer that has fused several products, as attention does, counts once.
    """
    named = (_INTEGERS.get(layer.precision, layer.precision) for layer in layers if layer.is_product)
    return dict(sorted(Counter(named).items()))


def _end_of_gelu(curve: Any) -> str | None:
    """Return the name of the last of the additions and multiplications, three at most, that follow an ``Erf``.

    ``None``: there is none of both, so this is no GELU, as of the ``Tanh`` of a classifier.
    """
    node, met = curve, list[str]()
    for _ in range(_STEPS_OF_GELU):
        readers = node.output(0).get_target_inputs()
        following = [reader.get_node() for reader in readers]
        if len(following) != 1 or following[0].get_type_name() not in ("Add", "Multiply"):
            break
        node = following[0]
        met.append(node.get_type_name())
    return str(node.get_friendly_name()) if {*met} == {"Add", "Multiply"} else None


def _text(told: Any, key: str) -> str:
    return str(told[key].value) if key in told else ""
