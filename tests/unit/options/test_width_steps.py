"""From times of near widths to the widths that the solver may choose."""

import json
from math import ceil
from pathlib import Path

import pytest

from compressors.options.levels import STEPS
from compressors.options.levels import USUAL_STEP
from compressors.options.levels import all_width_levels
from compressors.options.levels import width_levels
from compressors.recipe import FeedForwardRecipe
from profilers.types import Artifact
from profilers.types import Estimate
from search.branches import allowed_units
from search.options import BranchTable
from search.options import Option
from search.options import OptionDatabase
from search.options import Unit
from search.options import WidthStep
from search.prepared import GraphDefaults
from search.requests import Space
from search.space import build_space
from search.table_notes import describe_steps
from tests.unit.options.test_table import ANATOMY
from tests.unit.options.test_table import CPU
from tests.unit.profilers.simulation import SimulatedModel
from tests.unit.profilers.simulation import SimulatedSession
from workers.operations.table_block import Block
from workers.operations.width_steps import measure_steps
from workers.operations.width_steps import step_blocks

WIDTH = max(ANATOMY.intermediate_size)
KERNEL_STEPS = {8: 16, 32: 64}
"""By bits."""


class Device(SimulatedSession):
    """Fills matrices up to a multiple that depends on the number format; the files say which model it is."""

    def load(self, artifact: Artifact, *, static: bool = True) -> SimulatedModel:
        block = Block.model_validate(json.loads(artifact.path.read_text()))
        branch = block.feed_forward
        step = KERNEL_STEPS[branch.bits]
        return SimulatedModel(1.0 + 0.02 * ceil(branch.intermediate_size / step) * step)


def measured(seconds: float, folder: Path) -> tuple[WidthStep, ...]:
    artifacts = {}
    for block in step_blocks(ANATOMY, CPU, GraphDefaults()):
        path = folder / block.name
        path.write_text(block.model_dump_json())
        artifacts[block] = Artifact(path=path)
    return measure_steps(Device(), artifacts, seconds, 0)


def table(**steps: int | None) -> BranchTable:
    """A table with a step for weights of 8 bits (``b8``) and of 32 (``b32``)."""
    found = [
        WidthStep(bits=int(name[1:]), precision="f32", base=64, times={}, step=step) for name, step in steps.items()
    ]
    return BranchTable(fixed={"f32": 0.1}, entries={}, width_steps=tuple(found))


def database(widths: tuple[int, ...]) -> OptionDatabase:
    options = [
        Option(feed_forward=FeedForwardRecipe(intermediate_size=width, bits=bits), error=1 - width / WIDTH)
        for bits in (32, 8)
        for width in widths
        if width or bits == 32
    ]
    options.append(Option(feed_forward=FeedForwardRecipe(intermediate_size=840, rank=16), error=0.5))
    return OptionDatabase(units=(Unit(layer=0, branch="feed_forward", options=tuple(options)),))


def allowed(given: OptionDatabase, bits: int, measured_table: BranchTable | None, rank: int | None = None) -> list[int]:
    space = build_space(ANATOMY, CPU.model_copy(update={"low_rank": True}), Space(), GraphDefaults())
    (unit,) = allowed_units(given, space, measured_table)
    branches = [option.recipe for option in unit.options]
    return [branch.intermediate_size for branch in branches if (branch.bits, branch.rank) == (bits, rank)]


def test_each_number_format_gets_the_step_of_its_kernels(tmp_path: Path) -> None:
    found = measured(4.0, tmp_path)
    assert {entry.bits: entry.step for entry in found} == KERNEL_STEPS
    assert all(entry.base == 64 and sorted(entry.times) == [8, 16, 24, 32, 64] for entry in found)
    stored = BranchTable(fixed={"f32": 0.1}, entries={}, width_steps=found).model_dump_json()
    again = BranchTable.model_validate_json(stored)
    assert again.width_steps == found
    assert [again.width_step(bits, "f32") for bits in (8, 32, 4)] == [16, 64, USUAL_STEP]


def test_narrow_models_are_not_asked() -> None:
    narrow = ANATOMY.model_copy(update={"intermediate_size": (96,) * 6})
    assert step_blocks(narrow, CPU, GraphDefaults()) == []
    assert measure_steps(Device(), {}, 0.0, 0) == ()


def test_tables_of_earlier_versions_have_the_usual_step() -> None:
    stored = {"fixed": 0.1, "layer": 0.01, "entries": {}, "relative_error": 0.02, "seconds": 45.0}
    earlier = BranchTable.model_validate(stored)
    assert earlier.width_step(8, "f32") == earlier.width_step(32, "f32") == USUAL_STEP
    assert (earlier.fixed, earlier.layer) == ({"f32": 0.1, "bf16": 0.1}, {"f32": 0.01, "bf16": 0.01})
    assert describe_steps(earlier) is describe_steps(None) is None


@pytest.mark.parametrize("step", STEPS)
def test_one_database_has_the_widths_for_every_step(step: int) -> None:
    given = database(all_width_levels(WIDTH))
    known = table(b8=step, b32=64)
    assert allowed(given, 8, known) == [width for width in width_levels(WIDTH, step) if width]
    assert allowed(given, 32, known) == list(width_levels(WIDTH, 64))
    assert allowed(given, 32, None) == allowed(given, 32, table(b32=None)) == list(width_levels(WIDTH, USUAL_STEP))


def test_each_arithmetic_has_its_own_step() -> None:
    """A coarse one in fp32 takes no widths from a search in bf16; products of integers have theirs in both."""
    fine = WidthStep(bits=32, precision="bf16", base=64, times={}, step=8)
    known = table(b8=16, b32=64)
    known = known.model_copy(update={"width_steps": (*known.width_steps, fine)})
    found = {name: [known.width_step(bits, name) for bits in (8, 32)] for name in ("f32", "bf16")}
    assert found == {"f32": [16, 64], "bf16": [16, 8]}
    space = build_space(ANATOMY, CPU, Space(), GraphDefaults(precision="bf16"))
    (unit,) = allowed_units(database(all_width_levels(WIDTH)), space, known)
    plain = [option.recipe for option in unit.options if (option.recipe.bits, option.recipe.rank) == (32, None)]
    assert [recipe.intermediate_size for recipe in plain] == list(width_levels(WIDTH, 8))


def test_other_widths_than_the_levels_are_multiples_of_the_step() -> None:
    """Those of databases with other levels, and of factorised branches."""
    given = database((WIDTH, 1000, 504, 128, 0))
    assert allowed(given, 32, table(b32=8)) == [WIDTH, 1000, 504, 128, 0]
    assert allowed(given, 32, table(b32=64)) == [WIDTH, 128, 0]
    assert allowed(database(all_width_levels(WIDTH)), 32, table(b32=8), rank=16) == [840]
    assert allowed(database(all_width_levels(WIDTH)), 32, table(b32=16), rank=16) == []


def test_the_finding_is_said_in_words() -> None:
    message = describe_steps(table(b8=16, b32=None))
    assert message is not None
    assert "with 8 bits multiples of 16; in f32 times of near widths do not differ clearly" in message
    times = {8: Estimate(value=1.1, low=1.0, high=1.2)}
    unusual = WidthStep(bits=32, precision="bf16", base=64, times=times, step=64)
    assert "in bf16 multiples of 64" in str(
        describe_steps(BranchTable(fixed={"f32": 0}, entries={}, width_steps=(unusual,)))
    )
