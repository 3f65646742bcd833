import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError
from profilers.types import Capabilities
from search.canonical import break_even_rank
from search.canonical import canonicalise
from search.prepared import GraphDefaults
from search.presets import presets
from search.requests import Space
from search.space import build_space
from search.strategies.novelty import random_params
from tests.unit.search.synthetic import ANATOMY

EVERYTHING = Capabilities(
    profiler="openvino", available=True, bits=(32, 8, 4), precisions=("f32", "bf16"), sparse_speedup=True
)
DEFAULTS = GraphDefaults(quantization=QuantizationRecipe(attention_products=True), precision="bf16")


def space(request=None, capabilities=EVERYTHING, defaults=DEFAULTS):
    return build_space(ANATOMY, capabilities, request or Space(ffn_step=2), defaults)


def layers(*layer):
    return Recipe(layers=layer)


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_params_and_recipes_translate_into_each_other(seed, min_layers):
    subject = space(Space(ffn_step=3, head_step=3, min_layers=min_layers))
    recipe = subject.to_recipe(random_params(subject, random.Random(seed)))
    assert canonicalise(recipe, ANATOMY) == recipe
    params = subject.to_params(recipe)
    assert params is not None
    assert subject.to_recipe(params) == recipe
    assert sum(not layer.removed for layer in recipe.layers) >= min_layers
    assert recipe.graph == DEFAULTS.graph


@given(st.integers(0, 2**32))
def test_every_rank_in_a_canonical_recipe_saves_weights(seed):
    subject = space()
    for layer in subject.to_recipe(random_params(subject, random.Random(seed))).layers:
        if layer.attention.rank is not None:
            rows = (layer.attention.heads or 4) * ANATOMY.head_size
            assert layer.attention.rank * (rows + ANATOMY.hidden_size) < rows * ANATOMY.hidden_size
        if layer.feed_forward.rank is not None:
            rows = layer.feed_forward.intermediate_size or 8
            assert layer.feed_forward.rank * (rows + ANATOMY.hidden_size) < rows * ANATOMY.hidden_size


def test_equal_models_have_one_digest():
    dense = Recipe.dense(3)
    same = [
        layers(
            LayerRecipe(attention=AttentionRecipe(heads=4, rank=break_even_rank(16, 16))),
            LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=8, rank=100)),
            LayerRecipe(),
        ),
        dense.model_copy(update={"criterion": "taylor", "factorization": "plain"}),
        layers(LayerRecipe(merged=1), LayerRecipe(attention=AttentionRecipe(mask="sparsegpt")), LayerRecipe()),
        dense.model_copy(update={"quantization": QuantizationRecipe(attention_products=True)}),
    ]
    assert {canonicalise(recipe, ANATOMY).digest for recipe in same} == {dense.digest}
    gone = LayerRecipe(
        attention=AttentionRecipe(heads=0, bits=8), feed_forward=FeedForwardRecipe(intermediate_size=0, sparsity=0.5)
    )
    assert canonicalise(layers(gone, LayerRecipe(), LayerRecipe()), ANATOMY).layers[0] == LayerRecipe(removed=True)
    used = layers(LayerRecipe(attention=AttentionRecipe(heads=2)), LayerRecipe(), LayerRecipe())
    assert canonicalise(used.model_copy(update={"criterion": "taylor"}), ANATOMY) != canonicalise(used, ANATOMY)


def test_the_device_decides_what_is_searched():
    plain = Capabilities(profiler="onnxruntime", available=True, bits=(32,), low_rank=False)
    subject = space(capabilities=plain, defaults=GraphDefaults())
    assert set(subject.kinds) == {"heads", "ffn", "depth"}
    assert len(subject.notes) == 3
    assert not [p for p in subject.parameters if "rank" in p.name or "bits" in p.name or "sparsity" in p.name]
    with pytest.raises(InvalidInputError) as caught:
        space(Space(kinds=("sparsity", "bits")), plain, GraphDefaults())
    assert "zeros" in caught.value.hint


def test_unasked_kinds_are_left_alone():
    subject = space(Space(kinds=("ffn",), ffn_step=4))
    assert {p.name for p in subject.parameters} == {f"layer.{i}.ffn" for i in range(3)}
    assert subject.parameters[0].levels == (4, 8)
    recipes = [preset.recipe for preset in presets(subject, Space(kinds=("ffn",), ffn_step=4))]
    assert all(layer.attention.heads is None and layer.attention.bits == 32 for r in recipes for layer in r.layers)


def test_presets_are_distinct_known_to_the_sampler_and_start_dense():
    found = presets(space(), Space(ffn_step=2))
    names = [preset.name for preset in found]
    assert names[:3] == ["dense f32", "dense bf16", "dense int8"]
    assert "uniform 50% int8" in names
    assert "uniform 50% bf16" in names
    assert len({preset.recipe.digest for preset in found}) == len(found)
    half = next(p.recipe for p in found if p.name == "uniform 50% int8")
    assert {(layer.attention.heads, layer.feed_forward.intermediate_size) for layer in half.layers} == {(2, 4)}
    assert all(space().to_params(preset.recipe) is not None for preset in found)
