"""Whether a runtime fuses every block of a graph, counted against the blocks that the network has.

A comparison of two graphs is only fair if the runtime finds its fused operators in both. One that is missed, because
a shape was not noted or a constant was written in another way, costs more than many a compression wins. Light: no
torch.
"""

from collections.abc import Iterable
from collections.abc import Mapping

from compressors.description import Anatomy
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.validation import is_dropped

NORMS = ("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization")
ATTENTIONS = ("Softmax", "MultiHeadAttention", "Attention")
GELUS = ("Gelu", "BiasGelu", "FastGelu", "QuickGelu")
FUSED = {"norms": NORMS, "attentions": ATTENTIONS, "activations": GELUS}
"""Operators that a block of each kind becomes when ONNX Runtime fuses it; whatever else it becomes is slower."""


def expected_fusions(anatomy: Anatomy, recipe: Recipe | None = None) -> dict[str, int]:
    """Return how many fused operators of each kind of :data:`FUSED` the surviving blocks of a network should become.

    Every layer that is left has its two norms, whatever branches it has lost; the embeddings have one. A ReLU is an
    operator of its own already and counts as nothing. A kind that is not known of the model is left out.

    Args:
        anatomy: The network that the recipe is applied to.
        recipe: What is left of it; by default everything.
    """
    plans = recipe.layers if recipe is not None else (LayerRecipe(),) * anatomy.layers
    kept = [index for index, plan in enumerate(plans) if not is_dropped(plan)]
    attentions = [index for index in kept if anatomy.heads[index] and plans[index].attention.heads != 0]
    branches = [
        index for index in kept if anatomy.intermediate_size[index] and plans[index].feed_forward.intermediate_size != 0
    ]
    expected = {"norms": 1 + 2 * len(kept), "attentions": len(attentions)}
    if anatomy.activation is not None:
        expected["activations"] = len(branches) if anatomy.activation in ("gelu", "gelu_tanh") else 0
    return expected


def fusions(operators: Mapping[str, int], kinds: Iterable[str] = FUSED) -> dict[str, int]:
    """Return how many fused operators of the given kinds an executed graph has, from the histogram of its operators."""
    return {kind: sum(count for name, count in operators.items() if is_fused(name, kind)) for kind in kinds}


def is_fused(operator: str, kind: str) -> bool:
    """Whether an executed operator is a fused one of a kind of :data:`FUSED`.

    ONNX Runtime's operators are named by what they are; OpenVINO's layers by their type and, in brackets, by the
    operators of the model that they execute beside others (``profilers.backends.openvino_layers``): a norm is one
    ``MVN``, a softmax is in one layer, alone or with its products, and a GELU is one where no ``Erf`` is left of it.
    """
    if operator in FUSED[kind]:
        return True
    layer, executed = layer_parts(operator)
    if kind == "norms":
        return layer == "MVN"
    if kind == "attentions":
        return layer == "ScaledDotProductAttention" or "Softmax" in executed
    return "Gelu" in executed


def layer_parts(operator: str) -> tuple[str, set[str]]:
    """Split a name such as ``Subgraph[MatMul, Softmax]`` into the layer and what it executes beside others."""
    layer, _, rest = operator.partition("[")
    return layer, set(rest.rstrip("]").split(", ")) - {""}
