"""Makes views from rows."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from math import exp
from math import hypot
from math import log

from compressors.description import Anatomy
from compressors.recipe import BranchRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.database.models import Job
from infra.database.models import Trial
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Quality
from search.audits import audit_view
from search.audits import remarks
from search.candidates import baseline_of
from search.candidates import recipe_of
from search.first_look import stop_of
from search.formats import format_name
from search.goals import Choice
from search.goals import choose
from search.guard import Ruling
from search.guard import guarded_front
from search.guard import noisy_count
from search.objectives import WORDINGS
from search.parity import exclusion
from search.parity import reference_note
from search.prepared import Prepared
from search.reference_time import milliseconds
from search.requests import Goal
from search.requests import JobRequest
from search.rival_notes import rival_notes
from search.standing import Standing
from search.standing import is_confirmed
from search.standing import reference_time
from search.standing import standings
from search.views import FrontView
from search.views import LatencyView
from search.views import LayerView
from search.views import QualityView
from search.views import TrialView

ONE_LINER = "int8_one_liner"
REFERENCE = "fp32"
"""Latency is a fraction of its time already."""


class Presenter:
    """Views of one job's trials, with one idea of what its front is.

    Args:
        job: The job.
        trials: All its trials.
    """

    def __init__(self, job: Job, trials: Sequence[Trial]) -> None:
        self._job = job
        self._trials = {trial.id: trial for trial in trials}
        self._prepared = Prepared.load(job.prepared) if job.prepared and "anatomy" in job.prepared else None
        labelled = self._prepared is None or self._prepared.labelled
        request = JobRequest.model_validate(job.request)
        self._reference_ms = reference_time(trials)
        self._objective, self._batch = request.objective, request.workload.batch
        self._final = job.state == "succeeded" or job.summary is not None
        measured = standings(trials, labelled=labelled, final=False)
        compared = standings(trials, labelled=labelled, final=True) if self._final else measured
        self._entries = {entry.trial_id: entry for entry in compared}
        self._expected_drops = {entry.trial_id: entry.expected_drop for entry in measured}
        self._front, self._rulings = guarded_front(self._entries.values())
        named = {entry.baseline: entry for entry in self._baselines if entry.baseline is not None}
        self._rivals = {name: entry for name, entry in named.items() if name != REFERENCE}

    def choice(self, goal: Goal | None = None) -> Choice:
        """Return the best model for ``goal``, by default the job's own."""
        goal = goal or JobRequest.model_validate(self._job.request).goal
        return choose(goal, self._front, self._baselines, noisy_count(self._entries.values()))

    def best(self, goal: Goal | None = None) -> TrialView | None:
        """Return the view of the best model."""
        best = self.choice(goal).best
        return self.trial(self._trials[best.trial_id]) if best else None

    def front(self) -> FrontView:
        """Return the view of the front."""
        choice = self.choice()
        confirmed = self._final and bool(self._entries) and all(entry.confirmed for entry in self._entries.values())
        return FrontView(
            job_id=self._job.id,
            job_state=self._job.state,
            status="confirmed" if confirmed else "provisional",
            objective=self._objective,
            objective_name=WORDINGS[self._objective].name,
            verdict=choice.verdict,
            message=choice.message,
            reference_note=reference_note(self._trials.values()),
            notes=rival_notes(list(self._trials.values()), over=self._final),
            best=self.best(),
            points=[self.trial(self._trials[entry.trial_id]) for entry in self._front],
            baselines=[self.trial(self._trials[entry.trial_id]) for entry in self._baselines],
            trials=dict(Counter(trial.state for trial in self._trials.values())),
        )

    def others(self) -> list[TrialView]:
        """Return the measured recipes that are not on the front, fastest first."""
        shown = {entry.trial_id for entry in [*self._front, *self._baselines]}
        rest = [trial for trial in self._trials.values() if trial.id not in shown and trial.measurement is not None]
        views = [self.trial(trial) for trial in rest]
        return sorted(views, key=lambda view: view.latency.ratio.value if view.latency else float("inf"))

    def trial(self, trial: Trial) -> TrialView:
        """Return the view of one trial."""
        baseline, recipe = baseline_of(trial.candidate), recipe_of(trial.candidate)
        anatomy = self._prepared.anatomy if self._prepared else None
        return TrialView(
            id=trial.id,
            job_id=trial.job_id,
            number=trial.number,
            kind="recipe" if recipe else "baseline",
            name=baseline or trial.facts.get("name") or (describe(recipe, anatomy) if recipe and anatomy else "recipe"),
            source=trial.source,
            digest=trial.digest,
            state=trial.state,
            confirmed=is_confirmed(trial),
            on_front=any(entry.trial_id == trial.id for entry in self._front),
            healed=recipe is not None and recipe.weights is not None,
            verdict=self._verdict(trial),
            notes=remarks(trial),
            audit=audit_view(trial.facts.get("audit")),
            latency=self._latency(trial),
            quality=_quality(trial, self._expected_drops.get(trial.id)),
            size_bytes=trial.size_bytes,
            size_ratio=self._size_ratio(trial),
            layers=layer_views(recipe, anatomy) if recipe and anatomy else [],
            recipe=recipe,
            facts=trial.facts,
            error=trial.error,
            created_at=trial.created_at,
            finished_at=trial.finished_at,
        )

    @property
    def _baselines(self) -> list[Standing]:
        return [entry for entry in self._entries.values() if entry.baseline is not None]

    def _verdict(self, trial: Trial) -> str | None:
        ruling: Ruling | None = self._rulings.get(trial.id)
        if ruling is None:
            row = trial.final_measurement if is_confirmed(trial) else trial.measurement
            excluded = exclusion(trial, Measurement.model_validate(row)) if row else None
            rejected: str | None = trial.facts.get("rejected")
            return rejected or excluded
        if ruling.passed and not any(entry.trial_id == trial.id for entry in self._front):
            return f"another model is at least {WORDINGS[self._objective].equal}, as good and as small"
        return ruling.reason

    def _latency(self, trial: Trial) -> LatencyView | None:
        row = trial.final_measurement if is_confirmed(trial) else trial.measurement
        if row is None:
            return None
        measurement = Measurement.model_validate(row)
        predicted: Mapping[str, float] = trial.predicted or {}
        against = {name: quotient(rival.ratio, measurement.ratio) for name, rival in self._rivals.items()}
        usual = self._reference_ms or measurement.reference_ms
        latency_ms = milliseconds(measurement, usual)
        mean_ms = latency_ms if measurement.objective == "throughput" else None
        return LatencyView(
            objective=measurement.objective,
            unit=WORDINGS[measurement.objective].unit,
            ratio=measurement.ratio,
            speedup=inverse(measurement.ratio),
            speedup_vs_int8=against.get(ONE_LINER),
            speedup_vs=against,
            latency_ms=latency_ms,
            reference_ms=usual,
            predicted_ratio=predicted.get("ratio"),
            status=measurement.status,
            processes=measurement.processes,
            samples_per_second=1000.0 * self._batch / mean_ms if mean_ms else None,
            peak_memory_mb=measurement.peak_memory_mb,
            reference_memory_mb=measurement.reference_memory_mb,
            fusions=measurement.fusions,
            fusion_parity=measurement.fusion_parity,
            fusion_unknown=measurement.fusion_unknown or None,
            products=measurement.facts.get("models", {}).get("candidate", {}).get("products"),
        )

    def _size_ratio(self, trial: Trial) -> float | None:
        dense = self._prepared.dense_size_bytes if self._prepared else None
        return trial.size_bytes / dense if dense and trial.size_bytes is not None else None


def inverse(ratio: Estimate) -> Estimate:
    """Return the speed-up of a latency ratio."""
    return Estimate(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low)


def quotient(numerator: Estimate, denominator: Estimate) -> Estimate:
    """Return the quotient of two ratios that were measured independently; half-widths of the logarithms add as errors.

    Both were measured against the same reference in blocks of their own, so the interval is slightly too wide rather
    than too narrow.
    """
    value = numerator.value / denominator.value
    half_width = hypot(_log_half_width(numerator), _log_half_width(denominator))
    return Estimate(value=value, low=value * exp(-half_width), high=value * exp(half_width))


def describe(recipe: Recipe, anatomy: Anatomy) -> str:
    """Name a recipe by what is left, for example ``6 layers, 58 % heads, 41 % FFN, int8``."""
    present = [index for index, layer in enumerate(recipe.layers) if not layer.removed]
    views = layer_views(recipe, anatomy)
    heads = sum(views[index].heads or 0 for index in present) / max(1, sum(anatomy.heads))
    width = sum(views[index].intermediate_size or 0 for index in present) / max(1, sum(anatomy.intermediate_size))
    kept = [recipe.layers[index] for index in present]
    branches = [branch for layer in kept for branch in (layer.attention, layer.feed_forward)]
    parts = [f"{len(present)} layers", f"{heads:.0%} heads", f"{width:.0%} FFN", _number_format(recipe, branches)]
    if any(branch.rank is not None for branch in branches):
        parts.append("low rank")
    if any(branch.sparsity for branch in branches):
        parts.append("sparse")
    if any(layer.merged for layer in kept):
        parts.append("merged layers")
    if recipe.weights is not None:
        parts.append("healed")
    return ", ".join(parts)


def _number_format(recipe: Recipe, branches: Sequence[BranchRecipe]) -> str:
    """Name the formats of a recipe's branches, such as ``int8`` or ``mixed int8/f32``."""
    names = [format_name(bits, recipe.quantization) for bits in (8, 4) if bits in {b.bits for b in branches}]
    if any(branch.bits >= 16 for branch in branches) or not names:
        names.append(recipe.precision)
    return names[0] if len(names) == 1 else f"mixed {'/'.join(names)}"


def layer_views(recipe: Recipe, anatomy: Anatomy) -> list[LayerView]:
    """Return the structure of a recipe, layer by layer, with the dense sizes filled in."""
    shapes = zip(recipe.layers, anatomy.heads, anatomy.intermediate_size, strict=True)
    hosts = {index + step: index for index, layer in enumerate(recipe.layers) for step in range(1, layer.merged + 1)}
    return [_layer_view(layer, heads, width, hosts.get(index)) for index, (layer, heads, width) in enumerate(shapes)]


def _layer_view(layer: LayerRecipe, heads: int, width: int, merged_into: int | None) -> LayerView:
    attention, feed_forward = layer.attention, layer.feed_forward
    kept_heads = heads if attention.heads is None else attention.heads
    kept_width = width if feed_forward.intermediate_size is None else feed_forward.intermediate_size
    if layer.removed:
        kept_heads = kept_width = 0
    return LayerView(
        removed=layer.removed,
        merged=layer.merged,
        merged_into=merged_into,
        heads=kept_heads or None,
        intermediate_size=kept_width or None,
        attention_rank=attention.rank,
        feed_forward_rank=feed_forward.rank,
        attention_sparsity=attention.sparsity,
        feed_forward_sparsity=feed_forward.sparsity,
        attention_bits=attention.bits if kept_heads else None,
        feed_forward_bits=feed_forward.bits if kept_width else None,
    )


def _quality(trial: Trial, expected_drop: float | None) -> QualityView | None:
    row = trial.holdout if is_confirmed(trial) else trial.quality
    if row is None:
        return None
    quality = Quality.model_validate(row)
    searched = Quality.model_validate(trial.quality) if trial.quality else None
    expected, stop = quality.drop.value if expected_drop is None else expected_drop, stop_of(trial.facts)
    optimism = quality.drop.value - searched.drop.value if searched and is_confirmed(trial) else None
    return QualityView(
        metric=quality.metric,
        value=quality.value,
        dense=quality.dense,
        drop=quality.drop,
        expected_drop=max(expected, stop.at_least) if stop else expected,
        divergence=quality.divergence,
        fidelity=quality.fidelity,
        examples=quality.examples,
        split=quality.split,
        optimism=optimism,
        details=quality.details,
    )


def _log_half_width(estimate: Estimate) -> float:
    return (log(max(estimate.high, 1e-12)) - log(max(estimate.low, 1e-12))) / 2
