"""The option database of the job's model: what each branch may become, and what that does to the model."""

import time
from collections.abc import Callable
from collections.abc import MutableMapping
from dataclasses import asdict
from typing import Literal

import torch

from compressors.calibration.statistics import Calibration
from compressors.network import EncoderNetwork
from compressors.options.database import BranchUnit
from compressors.options.database import UnitName
from compressors.options.database import build_options
from compressors.options.scoring import ScoringSet
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import Recipe
from infra.database.models import JsonObject
from infra.digests import json_digest
from search.options import Merge
from search.options import Option
from search.options import OptionDatabase
from search.options import Unit
from workers.operations.bench import Bench
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.operations.option_units import OptionUnits
from workers.runner.operation import OperationContext

BITS: tuple[Bits, ...] = (32, 8)
"""Of every database, whatever the device: the search leaves out what its own does not run, and another device finds all
that it needs."""
TOKENS = 3000
"""Of the scoring texts, for single branches: they are many, and what replacing one does is seen on few texts."""
TOKENS_DEPTH = 6
"""Deeper models score single branches on fewer tokens, or the time would grow with the square of the depth."""
LEAST_TOKENS = 750


def options(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "offered"} -> {"options", "options_seconds"}``; ``offered``: ``zeros`` of :func:`build_database`.

    Branches that an interrupted attempt has finished are in the job's work directory, and are not built again.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    offered = arguments["offered"]
    work = bench(inputs, context)
    started = time.monotonic()
    database = build_database(
        work.network,
        work.calibration,
        ScoringSet.collect(scoring_examples(work, scoring_tokens(len(work.network.layers)))),
        zeros=offered["zeros"],
        progress=lambda done, of: context.progress({"doing": "options", "done": done, "of": of}),
        built=OptionUnits(inputs.option_units / json_digest(offered)),
    )
    seconds = round(time.monotonic() - started, 3)
    return {"options": database.model_dump(mode="json"), "options_seconds": seconds}


def build_database(
    network: EncoderNetwork,
    calibration: Calibration,
    scoring: ScoringSet,
    *,
    zeros: bool = False,
    progress: Callable[[int, int], None] | None = None,
    built: MutableMapping[UnitName, BranchUnit] | None = None,
) -> OptionDatabase:
    """Build what a job has: every width, in floating point and in 8 bits, low rank, dropped and merged layers.

    Arguments as of :func:`compressors.options.database.build_options`. Branches with zeros only where they are asked
    for: they take time, and few devices gain from them.
    """
    found = build_options(
        network,
        calibration,
        scoring,
        Recipe.dense(len(network.layers)),
        BITS,
        low_rank=True,
        zeros=zeros,
        depth=True,
        progress=progress,
        built=built,
    )
    return OptionDatabase(
        units=tuple(to_unit(unit) for unit in found.units),
        fixed_size_bytes=found.fixed_size_bytes,
        drops=found.drops,
        merges=tuple(Merge.model_validate(asdict(merge)) for merge in found.merges),
    )


def scoring_tokens(layers: int) -> int:
    """Return how many tokens single branches of a model of this depth are scored on."""
    return max(LEAST_TOKENS, TOKENS * TOKENS_DEPTH // max(TOKENS_DEPTH, layers))


def scoring_examples(work: Bench, tokens: int | None = None) -> list[dict[str, torch.Tensor]]:
    """Return scoring texts one by one as model inputs; about ``tokens`` tokens of them, or all."""
    texts = work.data.scoring
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if work.anatomy.has_token_types else [])
    found: list[dict[str, torch.Tensor]] = []
    for index in range(len(texts)):
        if tokens is not None and tokens <= 0:
            break
        feeds = texts.batch([index])
        found.append({name: torch.from_numpy(feeds[name]) for name in names})
        tokens = None if tokens is None else tokens - feeds["input_ids"].shape[1]
    return found


def to_unit(unit: BranchUnit) -> Unit:
    """Return a unit in the form in which the search reads it."""
    branch: Literal["attention", "feed_forward"] = "attention" if unit.kind == "attention" else "feed_forward"
    found = [
        Option(
            attention=option.recipe if isinstance(option.recipe, AttentionRecipe) else None,
            feed_forward=option.recipe if isinstance(option.recipe, FeedForwardRecipe) else None,
            error=option.error,
            divergence=option.divergence,
            size_bytes=option.size_bytes,
        )
        for option in unit.options
    ]
    return Unit(layer=unit.layer, branch=branch, options=tuple(found))
