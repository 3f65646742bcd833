"""A six-layer encoder on paper with an option database, a latency table, and a truth that differs from both."""

from dataclasses import dataclass
from dataclasses import replace
from datetime import timedelta

import numpy as np

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import Recipe
from infra.clock import utcnow
from profilers.types import Capabilities
from search.hypervolume import hypervolume
from search.options import BranchTable
from search.options import Option
from search.options import OptionDatabase
from search.options import Unit
from search.options import latency_key
from search.prepared import Prepared
from search.presets import presets
from search.requests import Goal
from search.requests import JobRequest
from search.requests import Space
from search.space import build_space
from search.strategies import make_strategy
from search.strategies.base import Proposal
from search.study import StudyState
from search.study import TrialRecord

LAYERS, HEADS, WIDTH = 6, 12, 1536
FORMATS = (32, 8)
START = utcnow()
ANATOMY = Anatomy(
    model_type="bert",
    task="sequence-classification",
    layers=LAYERS,
    hidden_size=384,
    heads=(HEADS,) * LAYERS,
    head_size=32,
    intermediate_size=(WIDTH,) * LAYERS,
    vocabulary_size=30522,
    max_sequence_length=512,
    labels=("0", "1"),
    parameters=22_000_000,
    has_token_types=True,
)
CAPABILITIES = Capabilities(profiler="onnxruntime", available=True)


def attention_time(heads, bits):
    return 0.05 * heads / HEADS * (0.45 if bits == 8 else 1.0) + (0.004 if heads else 0.0)


def feed_forward_time(width, bits):
    return 0.09 * width / WIDTH * (0.35 if bits == 8 else 1.0) + (0.003 if width else 0.0)


@dataclass
class Problem:
    """Truth: unit weights that nobody is told, and a device that is not what its table says.

    Attributes:
        weights: ``[units]``: how much the error of each unit really costs.
        interaction: Extra loss when both branches of a layer suffer.
    """

    seed: int = 0
    interaction: float = 0.5

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        self.weights = np.exp(rng.normal(-3.0, 1.0, 2 * LAYERS))
        self.curvature = rng.uniform(1.2, 3.0, 2 * LAYERS)
        self.factors = {"attention": 1.15, "feed_forward": 0.9, "fixed": 1.1}

    def error(self, unit, kept, bits):
        return (1 - kept) ** self.curvature[unit] + (0.004 if bits == 8 and kept > 0 else 0.0)

    def ratio(self, recipe: Recipe) -> float:
        total = 0.16 * self.factors["fixed"]
        for layer in recipe.layers:
            if layer.removed:
                continue
            heads = HEADS if layer.attention.heads is None else layer.attention.heads
            width = WIDTH if layer.feed_forward.intermediate_size is None else layer.feed_forward.intermediate_size
            total += self.factors["attention"] * attention_time(heads, layer.attention.bits)
            total += self.factors["feed_forward"] * feed_forward_time(width, layer.feed_forward.bits)
        return total

    def drop(self, recipe: Recipe) -> float:
        total = 0.0
        for index, layer in enumerate(recipe.layers):
            heads = 0 if layer.removed else HEADS if layer.attention.heads is None else layer.attention.heads
            inner = layer.feed_forward.intermediate_size
            width = 0 if layer.removed else WIDTH if inner is None else inner
            attention = self.weights[2 * index] * self.error(2 * index, heads / HEADS, layer.attention.bits)
            feed_forward = self.weights[2 * index + 1] * self.error(
                2 * index + 1, width / WIDTH, layer.feed_forward.bits
            )
            total += attention + feed_forward + self.interaction * np.sqrt(attention * feed_forward)
        return float(total)

    def size(self, recipe: Recipe) -> int:
        return round(1e8 * self.ratio(recipe))

    def database(self, *, divergences: bool = True) -> OptionDatabase:
        rng = np.random.default_rng(self.seed + 1)
        units = []
        for unit in range(2 * LAYERS):
            is_attention = unit % 2 == 0
            full = HEADS if is_attention else WIDTH
            step = 1 if is_attention else 128
            options = []
            for bits in FORMATS:
                for kept in range(0, full + 1, step):
                    if kept == 0 and bits == 8:
                        continue
                    error = self.error(unit, kept / full, bits)
                    divergence = 2 * self.weights[unit] * error * np.exp(rng.normal(0, 0.3)) if divergences else None
                    branch = (
                        {"attention": AttentionRecipe(heads=kept, bits=bits)}
                        if is_attention
                        else {"feed_forward": FeedForwardRecipe(intermediate_size=kept, bits=bits)}
                    )
                    size = round(1e6 * kept / full * bits / 32)
                    options.append(Option(error=error, divergence=divergence, size_bytes=size, **branch))
            branch_name = "attention" if is_attention else "feed_forward"
            units.append(Unit(layer=unit // 2, branch=branch_name, options=tuple(options)))
        return OptionDatabase(units=tuple(units), fixed_size_bytes=1_000_000)

    def table(self) -> BranchTable:
        entries = {}
        for bits in FORMATS:
            for heads in (2, 6, 12):
                key = latency_key(AttentionRecipe(heads=heads, bits=bits), full=HEADS)
                entries[key] = attention_time(heads, bits)
            for width in (256, 768, 1536):
                key = latency_key(FeedForwardRecipe(intermediate_size=width, bits=bits), full=WIDTH)
                entries[key] = feed_forward_time(width, bits)
        return BranchTable(fixed={"f32": 0.16}, entries=entries)

    def prepared(self, **changes) -> Prepared:
        values = {
            "anatomy": ANATOMY,
            "capabilities": CAPABILITIES,
            "options": self.database(),
            "latency_table": self.table(),
        }
        return Prepared(**(values | changes))

    def strategy(self, name="guided", sampler="tpe", repair_share=0.0, **changes):
        request = JobRequest(
            model_id="m",
            dataset_id="d",
            strategy=name,
            sampler=sampler,
            repair_share=repair_share,
            space={"kinds": ["heads", "ffn", "depth", "bits"], "ffn_step": 128},
        )
        prepared = self.prepared(**changes)
        space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
        return make_strategy(request, prepared, space)

    def record(self, number, proposal, outcome="done") -> TrialRecord:
        record = TrialRecord(
            trial_id=str(number),
            number=number,
            digest=proposal.recipe.digest,
            source=proposal.source,
            outcome=outcome,
            recipe=proposal.recipe,
            params=proposal.params,
            sampler_state=proposal.sampler_state,
        )
        return self.finish(record) if outcome == "done" else record

    def finish(self, record: TrialRecord) -> TrialRecord:
        drop, ratio = self.drop(record.recipe), self.ratio(record.recipe)
        return replace(
            record,
            outcome="done",
            ratio=ratio,
            reference_ms=20.0,
            loss=drop,
            drop=drop,
            drop_at_least=drop - 0.001,
            divergence=2 * drop,
            size_bytes=self.size(record.recipe),
            finished_at=START + timedelta(seconds=record.number),
        )

    def presets(self) -> list[Proposal]:
        request = Space(kinds=("heads", "ffn", "depth", "bits"), ffn_step=128)
        space = build_space(ANATOMY, CAPABILITIES, request, self.prepared().graph_defaults)
        return [Proposal(p.recipe, "preset", space.to_params(p.recipe)) for p in presets(space, request)]

    def search(self, strategy, trials, *, seed=0, goal=None, at_a_time=2, first=()) -> StudyState:
        start = tuple(self.record(number, proposal) for number, proposal in enumerate(first))
        study = StudyState(job_id="job", seed=seed, goal=goal or Goal(), trials=start)
        while len(study.trials) < trials:
            study = replace(study, progress=len(study.trials) / trials)
            proposals = strategy.ask(study, at_a_time)
            number = len(study.trials)
            records = [self.record(number + i, proposal) for i, proposal in enumerate(proposals)]
            study = replace(study, trials=(*study.trials, *records))
        return study


def front_volume(study: StudyState, trials: int | None = None) -> float:
    """Area of log latency against drop up to 10 points that the first trials dominate."""
    points = [(np.log(t.ratio), t.drop) for t in study.trials[:trials]]
    return hypervolume(points, [0.0, 0.1])
