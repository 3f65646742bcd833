"""The latency table: what every branch adds to the time of a whole graph on this device, at this workload."""

import time
from collections import defaultdict
from collections.abc import Mapping

from compressors.description import Anatomy
from compressors.options.levels import low_ranks
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import FeedForwardRecipe
from infra.database.models import JsonObject
from profilers.table import race_many
from profilers.table import settle
from profilers.types import Capabilities
from profilers.types import Effort
from profilers.types import Estimate
from search.options import Branch
from search.options import BranchTable
from search.options import Precision
from search.options import latency_key
from search.prepared import GraphDefaults
from workers.operations.formats import block_formats
from workers.operations.inputs import JobInputs
from workers.operations.measure import stand
from workers.operations.table_block import BRANCHES
from workers.operations.table_block import NO_ATTENTION
from workers.operations.table_block import NO_FEED_FORWARD
from workers.operations.table_block import Block
from workers.operations.table_block import artifacts_of
from workers.operations.table_checks import checked
from workers.operations.table_checks import whole_models
from workers.operations.width_steps import STEPS_SHARE
from workers.operations.width_steps import measure_steps
from workers.runner.operation import OperationContext

FINE_HEADS = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 3 / 4, 1.0)
FINE_WIDTHS = (1 / 24, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Widths that are timed in the number format that the search will mostly use, as fractions of the full width."""
COARSE = (1 / 6, 1 / 2, 1.0)
"""The same in any other format."""
MEDIUM = 1 / 3
"""Width of the branches that stand beside those that are varied."""
MULTIPLE = 32
"""Widths of feed-forward branches are multiples of this."""
EFFORT = Effort(half_width=0.03, seconds=3.0, total_seconds=45.0, min_blocks=10, control_every=2, retreats=1)


def plan(anatomy: Anatomy, capabilities: Capabilities, defaults: GraphDefaults) -> list[Block]:
    """Return the models to time: some 25, so that every option of a branch lies between two of them, and whole ones.

    Branches are varied beside branches of the other kind of medium width: alone, the weights of a narrow branch may
    fit into a cache that they would not have for themselves in any model of use.
    """
    formats = block_formats(capabilities, defaults)
    main, precision = formats[0]
    bare = [Block(precision=arithmetic) for arithmetic in dict.fromkeys(arithmetic for _, arithmetic in formats)]
    blocks = [block.model_copy(update={"extent": extent}) for block in bare for extent in ("all", "none")]
    blocks += _varied(anatomy, main, main, precision, fine=True)
    blocks += _last_layer(anatomy, defaults, main, precision)
    if (main, precision) != (32, "f32"):
        beside: Bits = main if precision == "f32" else 32
        blocks += _varied(anatomy, 32, beside, "f32", fine=False)
        blocks += _last_layer(anatomy, defaults, 32, "f32")
    if capabilities.low_rank:
        blocks += _low_rank(anatomy, main, precision)
    blocks += whole_models(anatomy, capabilities, defaults)
    return list(dict.fromkeys(blocks))


def table(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "anatomy", "blocks", "steps", "max_seconds"} -> {"latency_table", "table_seconds"}``.

    ``blocks`` and ``steps`` are lists of ``{"block", "artifact"}``: models of :func:`plan`, and of
    :func:`workers.operations.width_steps.step_blocks`.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    anatomy = Anatomy.model_validate(arguments["anatomy"])
    blocks, steps = artifacts_of(arguments["blocks"]), artifacts_of(arguments["steps"])
    context.progress({"doing": "timing building blocks", "of": len(blocks) + len(steps)})
    open_stand = stand(inputs, context)
    started = time.monotonic()
    seconds: float = arguments["max_seconds"]
    for_steps = STEPS_SHARE * seconds if steps else 0.0
    effort = EFFORT.model_copy(update={"total_seconds": seconds - for_steps})
    named = {block.name: artifact for block, artifact in blocks.items()}
    ratios = race_many(open_stand.session, open_stand.reference, named, effort, inputs.seed)
    found = branch_table({block: ratios[block.name] for block in blocks}, anatomy)
    update = {
        "seconds": seconds,
        "width_steps": measure_steps(open_stand.session, steps, for_steps, inputs.seed),
    }
    return {
        "latency_table": found.model_copy(update=update).model_dump(mode="json"),
        "table_seconds": round(time.monotonic() - started, 3),
    }


def branch_table(ratios: Mapping[Block, Estimate], anatomy: Anatomy) -> BranchTable:
    """Take the branches' times out of whole models' times, and see how well their sums are candidates' times.

    Args:
        ratios: Time of each block of :func:`plan`, relative to the dense reference.
        anatomy: Of the dense model.
    """
    bare = {block.precision: ratio.value for block, ratio in ratios.items() if _is_bare(block)}
    empty = {block.precision: ratio.value for block, ratio in ratios.items() if block.extent == "none"}
    curves: dict[tuple[Branch, Block], dict[int, Estimate]] = defaultdict(dict)
    entries: dict[str, float] = {}
    for block, ratio in ratios.items():
        for branch in BRANCHES:
            base = ratios.get(block.without(branch))
            if block.extent == "all" and base is not None and not _is_bare(block.without(branch)):
                form, width = _form(block, branch)
                curves[branch, form][width] = _scaled(ratio, -base.value, 1 / anatomy.layers)
        if block.extent == "last" and block.feed_forward.intermediate_size:
            entries[_key(block, "feed_forward")] = max(0.0, ratio.value - ratios[block.without("feed_forward")].value)
        elif block.extent == "last":
            entries[_key(block, "attention")] = max(0.0, ratio.value - bare[block.precision])
    for (branch, form), curve in curves.items():
        field = "heads" if branch == "attention" else "intermediate_size"
        for width, value in settle(curve).items():
            recipe = getattr(form, branch).model_copy(update={field: width})
            entries[_key(form.model_copy(update={branch: recipe}), branch)] = max(0.0, value)
    table = BranchTable(
        fixed={precision: _fixed(ratios, precision, value) for precision, value in bare.items()},
        layer={precision: max(0.0, value - empty[precision]) / anatomy.layers for precision, value in bare.items()},
        entries=entries,
        relative_error=max((ratio.high - ratio.low) / (2 * ratio.value) for ratio in ratios.values()),
    )
    return checked(table, {block: ratio for block, ratio in ratios.items() if block.extent == "whole"}, anatomy)


def _is_bare(block: Block) -> bool:
    return block.extent == "all" and block.attention == NO_ATTENTION and block.feed_forward == NO_FEED_FORWARD


def _fixed(ratios: Mapping[Block, Estimate], precision: Precision, bare: float) -> float:
    """Time in an arithmetic that no branch explains, so that the sum is exact for the model of medium width.

    Less than the time of the bare model, by what its norms would cost if their inputs were not always in a cache.
    """
    both = [
        (ratios[block.without("feed_forward")].value, ratios[block.without("attention")].value, ratio.value)
        for block, ratio in ratios.items()
        if {block.without("feed_forward"), block.without("attention")} <= ratios.keys()
        and (block.extent, block.precision) == ("all", precision)
        and not (_is_bare(block.without("feed_forward")) or _is_bare(block.without("attention")))
    ]
    if not both:
        return bare
    attention, feed_forward, together = both[0]
    return max(0.0, attention + feed_forward - together)


def _form(block: Block, branch: Branch) -> tuple[Block, int]:
    """What curves are grouped by: the block with only this branch, of no particular width; and the width."""
    recipe = getattr(block, branch)
    if branch == "attention":
        form = Block(attention=recipe.model_copy(update={"heads": None}), precision=block.precision)
        return form, recipe.heads
    form = Block(feed_forward=recipe.model_copy(update={"intermediate_size": None}), precision=block.precision)
    return form, recipe.intermediate_size


def _varied(anatomy: Anatomy, bits: Bits, beside: Bits, precision: Precision, *, fine: bool) -> list[Block]:
    """Every width of one kind of branch beside a medium one of the other kind."""
    heads, width = max(anatomy.heads), max(anatomy.intermediate_size)
    attention = AttentionRecipe(heads=_counts(heads, (MEDIUM,), 1)[-1], bits=beside) if heads else NO_ATTENTION
    medium = FeedForwardRecipe(intermediate_size=_counts(width, (MEDIUM,), MULTIPLE)[-1], bits=beside)
    feed_forward = medium if width else NO_FEED_FORWARD
    counts = _counts(heads, FINE_HEADS if fine else COARSE, 1)
    blocks = [Block(attention=attention), Block(feed_forward=feed_forward)]
    blocks += [Block(attention=AttentionRecipe(heads=h, bits=bits), feed_forward=feed_forward) for h in counts]
    blocks += [
        Block(attention=attention, feed_forward=FeedForwardRecipe(intermediate_size=w, bits=bits))
        for w in _counts(width, FINE_WIDTHS if fine else COARSE, MULTIPLE)
    ]
    return [block.model_copy(update={"precision": precision}) for block in blocks]


def _last_layer(anatomy: Anatomy, defaults: GraphDefaults, bits: Bits, precision: Precision) -> list[Block]:
    """Branches of the last layer where only the first token is read; their times are nearly linear in the width."""
    heads, width = max(anatomy.heads), max(anatomy.intermediate_size)
    if anatomy.task != "sequence-classification" or not defaults.graph.first_token_head or not heads:
        return []
    last = Block(precision=precision, extent="last", first_token=True)
    attentions = [AttentionRecipe(heads=count, bits=bits) for count in _counts(heads, (1 / 6, 1.0), 1)]
    found = [last.model_copy(update={"attention": attention}) for attention in attentions]
    if width:
        feed_forward = FeedForwardRecipe(intermediate_size=width, bits=bits)
        found.append(found[-1].model_copy(update={"feed_forward": feed_forward}))
    return found


def _low_rank(anatomy: Anatomy, bits: Bits, precision: Precision) -> list[Block]:
    """Factorised branches of full width beside medium ones, at a medium rank: what they cost beyond their products."""
    base = _varied(anatomy, bits, bits, precision, fine=False)
    heads, width, hidden = max(anatomy.heads), max(anatomy.intermediate_size), anatomy.hidden_size
    found = []
    if heads:
        rank = _medium(low_ranks(heads * anatomy.head_size, hidden))
        found.append(base[1].model_copy(update={"attention": AttentionRecipe(heads=heads, rank=rank, bits=bits)}))
    if width:
        rank = _medium(low_ranks(width, hidden))
        branch = FeedForwardRecipe(intermediate_size=width, rank=rank, bits=bits)
        found.append(base[0].model_copy(update={"feed_forward": branch}))
    return found


def _medium(ranks: tuple[int, ...]) -> int:
    return ranks[len(ranks) // 2]


def _counts(full: int, shares: tuple[float, ...], multiple: int) -> list[int]:
    rounded = {min(full, max(multiple, round(full * share / multiple) * multiple)) for share in shares}
    return sorted(rounded) if full else []


def _scaled(ratio: Estimate, shift: float, scale: float) -> Estimate:
    low, value, high = ((number + shift) * scale for number in (ratio.low, ratio.value, ratio.high))
    return Estimate(value=value, low=low, high=high)


def _key(block: Block, branch: Branch) -> str:
    recipe = block.attention if branch == "attention" else block.feed_forward
    return latency_key(recipe, full=0, precision=block.precision, first_token=block.first_token)
