"""The graph recipes that are worth timing against a given one, and how those that help go together. Light."""

from collections.abc import Sequence

from compressors.recipe import GraphRecipe

_FIRST: dict[str, object] = {"layout": "batch_first"}

FIXED_SHAPE = "fixed shape"
"""Name of :func:`with_fixed_shape` in a race."""


def with_fixed_shape(graph: GraphRecipe) -> GraphRecipe:
    """Return the recipe of the file that accepts the workload's shape only: offered beside the other, not instead."""
    return graph.model_copy(update={"static_shape": True})


def alternatives(graph: GraphRecipe, *, rounded: bool = False) -> dict[str, GraphRecipe]:
    """Return the recipes that differ from ``graph`` in one choice and compute the same function, by name.

    Operators of ONNX Runtime are tried only if ``graph`` has them already: elsewhere they do not run.

    Args:
        graph: What the others are compared with.
        rounded: Whether the matrices are rounded to 8 bits. What GELU's tanh form changes (at most 0.0005) is far less
            than that, so it counts as the same function there.
    """
    choices: dict[str, dict[str, object]] = {
        "packed qkv": {"packed_qkv": True},
        "separate qkv": {"packed_qkv": False},
        "elementary gelu": {"gelu": "erf"},
        "one gelu": {"gelu": "fused"},
        "merged keys": {"merged_keys": True},
        "projected keys": {"merged_keys": False},
    }
    if rounded:
        choices["approximate gelu"] = {"gelu": "tanh"}
    if graph.operators == "contrib":
        choices |= {
            "batch first": _FIRST,
            "sequence first": {"layout": "sequence_first", "fused_attention": False},
            "fused attention": {**_FIRST, "fused_attention": True},
            "skip norm": {"fused_skip_norm": True},
            "separate norm": {"fused_skip_norm": False},
            "standard operators": {
                **_FIRST,
                "operators": "standard",
                "fused_attention": False,
                "fused_skip_norm": False,
            },
        }
    found = {name: graph.model_copy(update=update) for name, update in choices.items()}
    return {name: changed for name, changed in found.items() if changed != graph}


def combine(graph: GraphRecipe, changed: Sequence[GraphRecipe]) -> GraphRecipe:
    """Return ``graph`` with the changes of all others, as far as they do not contradict an earlier one."""
    taken: dict[str, object] = {}
    start = graph.model_dump()
    for other in changed:
        update = {name: value for name, value in other.model_dump().items() if value != start[name]}
        if all(taken.get(name, value) == value for name, value in update.items()):
            taken |= update
    return graph.model_copy(update=taken)
