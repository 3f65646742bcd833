"""Number formats: what is offered, what is searched, and that guided jobs try the others on good shapes only."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.types import Capabilities
from search.canonical import canonicalise
from search.formats import alternatives
from search.formats import has_format
from search.formats import in_format
from search.formats import offered_formats
from search.latency_model import LatencyModel
from search.latency_model import Measured
from search.memory_costs import StoredCosts
from search.prepared import GraphDefaults
from search.presenter import describe
from search.presets import presets
from search.requests import Goal
from search.requests import Space
from search.space import build_space
from search.strategies.guided import FORMAT_ORIGIN
from search.strategies.guided import FORMATS_AFTER
from search.strategies.guided import MOST_FORMATS
from search.strategies.guided import format_is_beaten
from search.strategies.novelty import random_params
from tests.unit.search import guided_problem
from tests.unit.search.synthetic import ANATOMY

CPU = Capabilities(
    profiler="onnxruntime", available=True, bits=(32, 8, 4), schemes=("dynamic", "static", "weight_only")
)
QUANTIZATION = QuantizationRecipe(reduce_range=True, embedding_bits=8)
DEFAULTS = GraphDefaults(quantization=QUANTIZATION)


def names(allowed=None, capabilities=CPU):
    return [entry.name for entry in offered_formats(capabilities, DEFAULTS, allowed)]


def space(formats=None, **changes):
    return build_space(ANATOMY, CPU, Space(ffn_step=2, formats=formats, **changes), DEFAULTS)


def recipe(bits):
    layer = LayerRecipe(attention=AttentionRecipe(bits=bits), feed_forward=FeedForwardRecipe(bits=bits))
    return Recipe(layers=(layer,) * ANATOMY.layers, quantization=QUANTIZATION)


def test_the_device_and_the_request_decide_what_is_offered():
    assert names() == ["int8", "int8 static", "int8 weights", "int4 weights"]
    assert names(("int4_weights", "int8_static")) == ["int8 static", "int4 weights"]
    assert names(capabilities=CPU.model_copy(update={"bits": (32, 8), "schemes": ("dynamic",)})) == ["int8"]
    assert names(capabilities=CPU.model_copy(update={"bits": (32,)})) == []
    offered = offered_formats(CPU, DEFAULTS, None)
    assert [entry.name for entry in alternatives(offered, (32, 8))] == [
        *("int8 static", "int8 weights", "int4 weights"),
        *("int8 gptq", "int4 weights gptq"),
    ]
    assert alternatives(offered, (32,)) == [offered[0], *alternatives(offered, (32, 8))]
    products = {entry.name for entry in offered if entry.quantization.reduce_range}
    assert products == {"int8", "int8 static"}  # only products of integers saturate


def test_by_default_only_the_preferred_format_is_searched():
    parameters = {parameter.name: parameter.levels for parameter in space().parameters}
    assert "scheme" not in parameters
    assert parameters["layer.0.ffn_bits"] == (32, 8)
    assert [entry.name for entry in space().formats] == names()


def test_formats_that_are_asked_for_are_parameters_of_direct():
    subject = space(("int8_dynamic", "int8_static", "int4_weights"))
    parameters = {parameter.name: parameter.levels for parameter in subject.parameters}
    assert parameters["scheme"] == ("dynamic", "static")
    assert parameters["layer.0.ffn_bits"] == (32, 8, 4)


@given(st.integers(0, 2**32))
def test_params_with_formats_and_recipes_translate_into_each_other(seed):
    subject = space(("int8_static", "int8_weights", "int4_weights"))
    found = subject.to_recipe(random_params(subject, random.Random(seed)))
    assert canonicalise(found, ANATOMY) == found
    params = subject.to_params(found)
    assert params is not None
    assert subject.to_recipe(params) == found


def test_a_request_for_four_bits_gets_them_from_the_first_trial_on():
    subject = space(("int4_weights",))
    assert subject.bits == (32, 4)
    dense = next(preset for preset in presets(subject, Space(), (1.0,)) if preset.name == "dense int4 weights")
    assert {layer.attention.bits for layer in dense.recipe.layers} == {4}
    assert dense.recipe.quantization == QuantizationRecipe(scheme="weight_only", embedding_bits=8)


def test_gptq_takes_the_place_of_smoothing():
    preferred = QuantizationRecipe(scheme="static", ranges="minmax", smoothing=0.7)
    offered = offered_formats(CPU, GraphDefaults(quantization=preferred), None)
    assert (offered[0].name, offered[0].quantization.smoothing) == ("int8 static", 0.7)
    compensated = next(entry for entry in alternatives(offered, (32, 8)) if entry.name == "int8 static gptq")
    assert compensated.quantization.smoothing == 0.0
    layers = canonicalise(recipe(8), ANATOMY).layers
    for wanted, smoothing in ((preferred, 0.7), (preferred.model_copy(update={"rounding": "gptq"}), 0.0)):
        found = canonicalise(Recipe(layers=layers, quantization=wanted), ANATOMY)
        assert found.quantization == wanted.model_copy(update={"smoothing": smoothing})


def test_only_used_settings_are_part_of_a_name():
    floating = canonicalise(recipe(32), ANATOMY)
    assert floating.quantization == QuantizationRecipe()  # floating point has floating-point tables
    assert canonicalise(recipe(8), ANATOMY).quantization == QUANTIZATION
    for number_format in alternatives(offered_formats(CPU, DEFAULTS, None), (32, 8)):
        found = canonicalise(in_format(recipe(8), number_format), ANATOMY)
        assert has_format(found, number_format)
        assert number_format.name in describe(found, ANATOMY)
        assert found.quantization.embedding_bits == 8
    mixed = canonicalise(recipe(8), ANATOMY).layers
    half = recipe(8).model_copy(update={"layers": (mixed[0], *recipe(32).layers[1:])})
    assert describe(canonicalise(half, ANATOMY), ANATOMY).endswith("mixed int8/f32")


def test_formats_are_told_apart_in_what_is_learnt_of_them():
    """Weight-only models that take a third longer than the usual int8 do not spoil what is expected of that."""
    anatomy = guided_problem.ANATOMY
    layer = LayerRecipe(attention=AttentionRecipe(bits=8), feed_forward=FeedForwardRecipe(bits=8))
    usual = Recipe(layers=(layer,) * anatomy.layers, quantization=QUANTIZATION)
    other = usual.model_copy(update={"quantization": QuantizationRecipe(scheme="weight_only", embedding_bits=8)})
    costs = StoredCosts(anatomy)
    plain = LatencyModel(costs, anatomy, (), QUANTIZATION).predict(usual).value
    seen = [Measured(usual, plain, usual.digest), Measured(other, 1.3 * plain, other.digest)]
    model = LatencyModel(costs, anatomy, seen, QUANTIZATION)
    assert model.predict(usual).value == pytest.approx(plain, rel=0.05)
    assert model.predict(other).value > 1.2 * plain


def test_guided_tries_other_formats_late_and_on_its_best_shapes(monkeypatch):
    monkeypatch.setattr(guided_problem, "CAPABILITIES", CPU)
    problem = guided_problem.Problem(seed=4)
    study = problem.search(problem.strategy("guided"), 40, goal=Goal(max_drop=0.03))
    tried = [trial for trial in study.trials if (trial.sampler_state or {}).get("origin") == FORMAT_ORIGIN]
    assert 3 <= len(tried) <= MOST_FORMATS + 1  # two are asked for at a time
    assert all(trial.number >= FORMATS_AFTER * 40 for trial in tried)
    assert len({trial.recipe.quantization for trial in tried}) >= 3

    def shape(found):
        return tuple((layer.attention.heads, layer.feed_forward.intermediate_size) for layer in found.layers)

    known = {shape(trial.recipe) for trial in study.trials if trial not in tried}
    assert {shape(trial.recipe) for trial in tried} <= known


def test_int8_is_tried_on_shapes_of_a_solver_that_keeps_to_floating_point(monkeypatch):
    """As where bf16 is faster: the option database has no branches with 8 bits."""
    monkeypatch.setattr(guided_problem, "CAPABILITIES", CPU)
    monkeypatch.setattr(guided_problem, "FORMATS", (32,))
    problem = guided_problem.Problem(seed=4)
    study = problem.search(problem.strategy("guided"), 40, goal=Goal(max_drop=0.03))
    tried = [trial for trial in study.trials if (trial.sampler_state or {}).get("origin") == FORMAT_ORIGIN]
    assert tried
    first = offered_formats(CPU, GraphDefaults(), None)[0]
    assert has_format(tried[0].recipe, first)


def test_a_format_that_brings_nothing_is_given_up():
    problem = guided_problem.Problem(seed=4)
    study = problem.search(problem.strategy("guided"), 6)
    static = next(entry for entry in offered_formats(CPU, DEFAULTS, None) if entry.name == "int8 static")
    first = study.trials[0]
    trial = replace(first, digest="other", recipe=in_format(first.recipe, static), outcome="done")
    assert not format_is_beaten(static, [], study.trials)
    assert format_is_beaten(static, [trial], study.trials)  # equal to the first in everything
    smaller = replace(trial, size_bytes=1)
    assert not format_is_beaten(static, [smaller], study.trials)
    assert not format_is_beaten(static, [replace(smaller, outcome="running")], study.trials)
