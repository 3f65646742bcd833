"""The latency table on a machine whose times are known exactly."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from compressors.anatomy import describe
from compressors.description import Anatomy
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from profilers.table import groups
from profilers.table import settle
from profilers.types import Capabilities
from profilers.types import Estimate
from search.branch_costs import TableCosts
from search.canonical import canonicalise
from search.latency_model import LatencyModel
from search.options import BranchTable
from search.prepared import GraphDefaults
from search.table_notes import describe_checks
from workers.operations.blocks import write_block
from workers.operations.table import branch_table
from workers.operations.table import plan
from workers.operations.table_block import Block
from workers.operations.table_checks import whole_models

CPU = Capabilities(profiler="onnxruntime", available=True, bits=(32, 8))
ANATOMY = Anatomy(
    model_type="bert",
    task="sequence-classification",
    layers=6,
    hidden_size=384,
    heads=(12,) * 6,
    head_size=32,
    intermediate_size=(1536,) * 6,
    vocabulary_size=1000,
    max_sequence_length=128,
    labels=("a", "b"),
    parameters=1,
    has_token_types=True,
)


class Measured(NamedTuple):
    """A measured recipe."""

    recipe: Recipe
    ratio: float

    @property
    def digest(self) -> str:
        """Of the recipe."""
        return self.recipe.digest


class Machine:
    """Times that add up, with an odd-heads step, and weights that are cheaper while they all fit into a cache.

    In bf16 products take a quarter of the time, but what lies around them takes longer.
    """

    fixed, layer, cache, miss = 0.003, 0.002, 0.01, 0.1
    bf16_products, bf16_rest = 0.25, 4.0

    def attention(self, recipe: AttentionRecipe, first: bool) -> float:
        heads = 12 if recipe.heads is None else recipe.heads
        if heads == 0:
            return 0.0
        speed = 1.0 if recipe.bits == 32 else 0.5
        return (0.001 + 0.004 * (heads + heads % 2) / 1.0) * speed * (0.3 if first else 1.0)

    def feed_forward(self, recipe: FeedForwardRecipe, first: bool) -> float:
        width = 1536 if recipe.intermediate_size is None else recipe.intermediate_size
        if width == 0:
            return 0.0
        speed = 1.0 if recipe.bits == 32 else 0.4
        return (0.001 + 0.08 * width / 1536) * speed * (0.05 if first else 1.0)

    def time(self, layers: list[LayerRecipe], first_token: bool, precision: str = "f32") -> float:
        products, rest = (1.0, 1.0) if precision == "f32" else (self.bf16_products, self.bf16_rest)
        attending = [i for i, layer in enumerate(layers) if layer.attention.heads != 0]
        cut = attending[-1] if first_token and attending else len(layers)
        branches = products * sum(
            self.attention(layer.attention, i >= cut) + self.feed_forward(layer.feed_forward, i >= cut)
            for i, layer in enumerate(layers)
        )
        misses = self.miss * max(0.0, min(branches, 0.5) - self.cache)
        return rest * (self.fixed + self.layer * len(layers)) + branches + misses

    def block(self, block: Block) -> float:
        empty = LayerRecipe(attention=AttentionRecipe(heads=0), feed_forward=FeedForwardRecipe(intermediate_size=0))
        given = LayerRecipe(attention=block.attention, feed_forward=block.feed_forward)
        layers = {"none": [], "all": [given] * 6, "last": [empty] * 5 + [given], "whole": [given] * 6}[block.extent]
        return self.time(layers, block.first_token, block.precision)


def measured_table(noise: float = 0.0, capabilities: Capabilities = CPU, precision: str = "f32") -> BranchTable:
    machine, generator = Machine(), np.random.default_rng(0)
    ratios = {}
    for block in plan(ANATOMY, capabilities, GraphDefaults(precision=precision)):
        value = machine.block(block) * float(np.exp(generator.normal(0, noise)))
        ratios[block] = Estimate(value=value, low=value * (1 - 2 * noise), high=value * (1 + 2 * noise))
    return branch_table(ratios, ANATOMY)


def measured_model(noise: float = 0.0) -> LatencyModel:
    return LatencyModel(TableCosts(measured_table(noise), ANATOMY), ANATOMY)


def random_recipe(generator: np.random.Generator, bits: tuple[int, ...] = (8, 32)) -> Recipe:
    layers = tuple(
        LayerRecipe.model_validate(
            {
                "attention": {"heads": int(generator.integers(0, 13)), "bits": int(generator.choice(bits))},
                "feed_forward": {
                    "intermediate_size": 32 * int(generator.integers(0, 49)),
                    "bits": int(generator.choice(bits)),
                },
            }
        )
        for _ in range(6)
    )
    return canonicalise(Recipe(layers=layers, graph=GraphRecipe()), ANATOMY)


def true_time(recipe: Recipe) -> float:
    present = [layer for layer in recipe.layers if not layer.removed]
    return Machine().time(present, first_token=True, precision=recipe.precision)


@pytest.mark.parametrize("noise", [0.0, 0.008])
def test_predicts_candidates_that_nobody_timed(noise: float) -> None:
    model, generator = measured_model(noise), np.random.default_rng(1)
    recipes = [random_recipe(generator) for _ in range(60)]
    errors = [model.predict(recipe).value / true_time(recipe) - 1 for recipe in recipes]
    assert np.median(np.abs(errors)) < 0.05
    order = np.corrcoef(
        np.argsort(np.argsort([model.predict(recipe).value for recipe in recipes])),
        np.argsort(np.argsort([true_time(recipe) for recipe in recipes])),
    )
    assert order[0, 1] > 0.97


def test_dense_and_smallest_models_are_reproduced() -> None:
    model = measured_model()
    dense = canonicalise(Recipe.dense(6), ANATOMY)
    layer = LayerRecipe(
        attention=AttentionRecipe(heads=1, bits=8), feed_forward=FeedForwardRecipe(intermediate_size=64, bits=8)
    )
    for recipe in (dense, Recipe(layers=(layer,) * 6)):
        assert model.predict(recipe).value == pytest.approx(true_time(recipe), rel=0.08)


def test_whole_models_are_timed_and_the_error_is_no_less_than_theirs() -> None:
    table, model = measured_table(), measured_model()
    assert [(check.name, check.bits, check.precision) for check in table.checks] == [
        ("dense", 8, "f32"),
        ("dense", 32, "f32"),
        ("smallest", 8, "f32"),
    ]
    shapes = [(12, 1536, 8), (12, 1536, 32), (1, 32, 8)]
    for check, (heads, width, bits) in zip(table.checks, shapes, strict=True):
        layer = LayerRecipe(
            attention=AttentionRecipe(heads=heads, bits=bits),
            feed_forward=FeedForwardRecipe(intermediate_size=width, bits=bits),
        )
        recipe = canonicalise(Recipe(layers=(layer,) * 6), ANATOMY)
        assert check.measured.value == pytest.approx(true_time(recipe))
        assert check.predicted == pytest.approx(model.predict(recipe).value)
    assert table.prediction_error == max(abs(check.error) for check in table.checks) > table.relative_error
    assert measured_table(noise=0.05).prediction_error >= 0.1 - 1e-9  # what the intervals say


def test_whole_models_that_take_longer_than_the_sum_of_their_parts_widen_the_error() -> None:
    plain, ratios = measured_table(), {}
    for block in plan(ANATOMY, CPU, GraphDefaults()):
        value = Machine().block(block) * (1.4 if block.extent == "whole" else 1.0)
        ratios[block] = Estimate(value=value, low=value, high=value)
    table = branch_table(ratios, ANATOMY)
    assert (table.fixed, table.layer, table.entries) == (plain.fixed, plain.layer, plain.entries)
    assert 0.35 < table.prediction_error < 0.6
    assert table.relative_error == plain.relative_error  # timing again would not make it better
    said = describe_checks(table)
    assert said is not None
    for check in table.checks:
        assert f"the {check.name} model" in said
        assert f"{check.error:+.1%}" in said
    dense = canonicalise(Recipe.dense(6), ANATOMY)
    estimate = LatencyModel(TableCosts(table, ANATOMY), ANATOMY).predict(dense)
    assert estimate.low < 1.4 * true_time(dense) <= estimate.high
    assert describe_checks(BranchTable(fixed={"f32": 0.1}, entries={})) is None


def test_what_a_table_was_off_by_counts_until_models_were_measured() -> None:
    table = measured_table()
    off = [check.model_copy(update={"predicted": check.measured.value / 1.4}) for check in table.checks]
    costs = TableCosts(table.model_copy(update={"checks": tuple(off)}), ANATOMY)
    assert LatencyModel(costs, ANATOMY).relative_error == pytest.approx(0.2)
    observations = []
    for heads, width in itertools.product((2, 4, 8, 12), (128, 512, 1024, 1536)):
        layer = LayerRecipe(
            attention=AttentionRecipe(heads=heads), feed_forward=FeedForwardRecipe(intermediate_size=width)
        )
        recipe = canonicalise(Recipe(layers=(layer,) * 6), ANATOMY)
        observations.append(Measured(recipe, 1.4 * true_time(recipe)))
    assert LatencyModel(costs, ANATOMY, observations[:2]).relative_error == pytest.approx(0.2)
    assert LatencyModel(costs, ANATOMY, observations).relative_error < 0.05


def test_whole_models_are_written_as_candidates_are() -> None:
    """Without a first-token head everything is computed; a narrow model's smallest may be its dense one."""
    everywhere = whole_models(ANATOMY.model_copy(update={"task": "embedding"}), CPU, GraphDefaults())
    assert not any(block.first_token for block in everywhere)
    assert all(block.first_token for block in whole_models(ANATOMY, CPU, GraphDefaults()))
    narrow = ANATOMY.model_copy(update={"heads": (1,) * 6, "intermediate_size": (32,) * 6})
    assert len(whole_models(narrow, CPU, GraphDefaults())) == 2


def test_both_arithmetics_of_a_device_have_times_of_their_own() -> None:
    table = measured_table(capabilities=CPU.model_copy(update={"precisions": ("f32", "bf16")}), precision="bf16")
    assert table.layer == {
        "f32": pytest.approx(Machine.layer),
        "bf16": pytest.approx(Machine.bf16_rest * Machine.layer),
    }
    model, generator = LatencyModel(TableCosts(table, ANATOMY), ANATOMY), np.random.default_rng(3)
    some = [canonicalise(Recipe.dense(6), ANATOMY), *(random_recipe(generator, bits=(32,)) for _ in range(20))]
    for precision in ("f32", "bf16"):
        recipes = [recipe.model_copy(update={"precision": precision}) for recipe in some]
        errors = [abs(model.predict(recipe).value / true_time(recipe) - 1) for recipe in recipes]
        assert np.median(errors) < 0.05, precision
        assert errors[0] < 0.05, precision
        first = table.entries[f"attention.first_token:12:rank=0:bits=32:{precision}"]
        speed = 1.0 if precision == "f32" else Machine.bf16_products
        alone = speed * Machine().attention(AttentionRecipe(), first=True)
        assert first == pytest.approx(alone, rel=0.15), precision


def test_narrow_branches_keep_what_does_not_shrink_with_the_width() -> None:
    model = measured_model()
    for width in (8, 16, 32, 56):
        for bits in (8, 32):
            branch = FeedForwardRecipe(intermediate_size=width, bits=bits)
            true = Machine().feed_forward(branch, first=False) * (1 + Machine.miss)
            found = model.branch_time(branch, 0, "f32")
            assert found == pytest.approx(true, rel=0.2), (
                f"{width} in {bits} bits; a line to zero is three times too low"
            )
    assert model.branch_time(FeedForwardRecipe(intermediate_size=0), 0, "f32") == 0.0


def test_what_low_rank_costs_beyond_its_products_is_measured() -> None:
    """Ranks and widths that were not timed cost their share times the overhead of the rank that was."""
    machine = Machine()
    blocks = plan(ANATOMY, CPU, GraphDefaults())
    (timed,) = (block for block in blocks if block.feed_forward.rank is not None)
    overhead = {}
    for extra in (1.0, 3.0):
        ratios = {}
        for block in blocks:
            plain = block.model_copy(
                update={
                    "attention": block.attention.model_copy(update={"rank": None}),
                    "feed_forward": block.feed_forward.model_copy(update={"rank": None}),
                }
            )
            value = machine.block(plain)
            if block == timed:
                base = machine.block(block.without("feed_forward"))
                value = base + extra * (value - base) / 2  # half the multiplications at this rank
            ratios[block] = Estimate(value=value, low=value, high=value)
        costs = TableCosts(branch_table(ratios, ANATOMY), ANATOMY)
        ranks = (timed.feed_forward.rank, 60, 230)
        overhead[extra] = [
            costs.branch(FeedForwardRecipe(rank=rank, intermediate_size=width, bits=bits), 0, "f32", first_token=False)
            / costs.branch(FeedForwardRecipe(intermediate_size=width, bits=bits), 0, "f32", first_token=False)
            for rank, width, bits in zip(ranks, (None, 768, 1536), (8, 8, 32), strict=True)
        ]
    assert np.array(overhead[3.0]) == pytest.approx(3 * np.array(overhead[1.0]), rel=1e-6)
    assert overhead[1.0][0] == pytest.approx(0.5, rel=0.02)


def test_a_step_that_is_no_noise_is_kept() -> None:
    curve = {
        1: Estimate(value=1.0, low=0.99, high=1.01),
        2: Estimate(value=0.995, low=0.985, high=1.005),
        3: Estimate(value=2.0, low=1.98, high=2.02),
        4: Estimate(value=1.5, low=1.48, high=1.52),
    }
    settled = settle(curve)
    assert settled[1] == settled[2] == pytest.approx(0.9975)
    assert settled[3] == 2.0
    assert settled[4] == 1.5


def test_groups_hold_everything_once_within_the_limit() -> None:
    sizes = {str(n): size for n, size in enumerate([3, 4, 5, 20, 1, 1, 7])}
    found = groups(sizes, 8)
    assert [name for group in found for name in group] == list(sizes)
    assert all(sum(sizes[name] for name in group) <= 8 or len(group) == 1 for group in found)


def test_blocks_of_a_real_model_load_and_run(network: EncoderNetwork, tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    defaults = GraphDefaults()
    blocks = plan(describe(network), CPU, defaults)
    assert len({block.name for block in blocks}) == len(blocks)
    ids = np.ones((2, 9), dtype=np.int64)
    for block in blocks[:2] + blocks[-6:]:
        path = write_block(network, block, defaults, tmp_path).path
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feeds = {"input_ids": ids, "attention_mask": ids, "token_type_ids": 0 * ids}
        (logits,) = session.run(None, {item.name: feeds[item.name] for item in session.get_inputs()})
        assert np.isfinite(logits).all()
