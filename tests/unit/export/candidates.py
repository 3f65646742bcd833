"""Random legal candidates: networks whose layers are cut, factorised, thinned and quantised in every combination."""

import copy

import torch
from hypothesis import strategies as st

from compressors.network import EncoderNetwork
from compressors.network import Linear
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.isa import this_cpu

graphs = st.builds(
    GraphRecipe,
    operators=st.sampled_from(["contrib", "standard"]),
    layout=st.sampled_from(["batch_first", "sequence_first"]),
    packed_qkv=st.booleans(),
    fused_attention=st.booleans(),
    fused_skip_norm=st.booleans(),
    gelu=st.sampled_from(["erf", "fused"]),
    first_token_head=st.booleans(),
    merged_keys=st.booleans(),
    static_shape=st.booleans(),
)
zeros = st.sampled_from([{}, {}, {"sparsity": 0.5}, {"sparsity": 0.9}, {"sparsity": 0.5, "pattern": "2:4"}])


def layer_recipes(heads: int, width: int, bits: tuple[int, ...]) -> st.SearchStrategy[LayerRecipe]:
    """Any legal recipe of a layer with ``heads`` heads and ``width`` feed-forward channels."""
    rank = st.none() | st.integers(1, 12)
    common = {"rank": rank, "bits": st.sampled_from(bits)}
    attention = st.fixed_dictionaries({"heads": st.none() | st.integers(0, heads), **common})
    feed_forward = st.fixed_dictionaries({"intermediate_size": st.none() | st.integers(0, width), **common})
    return st.builds(
        LayerRecipe,
        attention=st.builds(lambda fields, sparse: AttentionRecipe(**fields, **sparse), attention, zeros),
        feed_forward=st.builds(lambda fields, sparse: FeedForwardRecipe(**fields, **sparse), feed_forward, zeros),
        removed=st.sampled_from([False, False, False, True]),
    )


def recipes(
    bits: tuple[int, ...], embedding_bits: tuple[int, ...], layers: int = 3, heads: int = 4, width: int = 64
) -> st.SearchStrategy[Recipe]:
    """Any legal recipe of a tiny model with these bit-widths."""
    return st.builds(
        Recipe,
        layers=st.tuples(*[layer_recipes(heads, width, bits)] * layers),
        quantization=st.builds(
            QuantizationRecipe,
            scheme=st.sampled_from(["dynamic", "static", "weight_only"]),
            ranges=st.sampled_from(["minmax", "percentile", "entropy", "mse"]),
            smoothing=st.sampled_from([0.0, 0.7]),
            attention_products=st.booleans(),
            reduce_range=st.just(True) if this_cpu().saturating_int8 else st.booleans(),
            embedding_bits=st.sampled_from(embedding_bits),
        ),
        graph=graphs,
    )


def cut(network: EncoderNetwork, recipe: Recipe) -> EncoderNetwork:
    """Return a network of the recipe's shape: the first heads and channels stay, ranks by plain SVD.

    Which weights stay does not matter here; that is tested where they are chosen.
    """
    result = copy.deepcopy(network)
    layers = []
    for layer, wanted in zip(result.layers, recipe.layers, strict=True):
        if wanted.removed:
            continue
        attention, feed_forward = layer.attention, layer.feed_forward
        assert attention is not None
        assert feed_forward is not None
        heads = attention.heads if wanted.attention.heads is None else wanted.attention.heads
        rows = heads * attention.head_size
        for name in ("query", "key", "value"):
            setattr(attention, name, _edit(getattr(attention, name), wanted.attention, rows=rows))
        attention.output = _edit(attention.output, wanted.attention, columns=rows)
        attention.heads = heads
        size = wanted.feed_forward.intermediate_size
        feed_forward.up = _edit(feed_forward.up, wanted.feed_forward, rows=size)
        feed_forward.down = _edit(feed_forward.down, wanted.feed_forward, columns=size)
        layer.attention = attention if heads else None
        layer.feed_forward = feed_forward if size != 0 else None
        layers.append(layer)
    result.layers = layers
    return result


def _edit(linear: Linear, wanted: BranchRecipe, rows: int | None = None, columns: int | None = None) -> Linear:
    assert linear.weight is not None
    weight = linear.weight[:rows, :columns].clone()
    bias = None if linear.bias is None else linear.bias[:rows].clone()
    if wanted.rank is None or min(weight.shape) == 0:
        return Linear(_thinned(weight, wanted), bias, bits=wanted.bits)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    rank = min(wanted.rank, values.numel())
    left, right = left[:, :rank] * values[:rank], right[:rank].clone()
    return Linear(None, bias, _thinned(left, wanted), _thinned(right, wanted), wanted.bits)


def _thinned(weight: torch.Tensor, wanted: BranchRecipe) -> torch.Tensor:
    """Set the smallest weights to zero: of each row, or of every four beside each other where a row has so many."""
    if weight.numel() == 0:
        return weight
    columns = weight.shape[1]
    group = 4 if wanted.pattern == "2:4" and columns % 4 == 0 else columns
    rows = weight.reshape(-1, group)
    count = int(wanted.sparsity * group)
    smallest = rows.abs().argsort(dim=1)[:, :count]
    return rows.scatter(1, smallest, 0.0).reshape(weight.shape)
