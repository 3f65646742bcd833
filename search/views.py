"""What users see of trials and fronts: plain pydantic models for the API, tables and pictures."""

from datetime import datetime
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict

from compressors.recipe import Recipe
from profilers.types import Estimate
from profilers.types import Form
from profilers.types import Fusions
from profilers.types import Objective
from search.goals import Verdict


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class LatencyView(_View):
    """Latency of one model, or its memory where that is the job's objective.

    Attributes:
        objective: What ``ratio`` and all factors compare: ``p50``, ``p90``, ``p99``, ``throughput``, ``peak_memory``.
        unit: What follows a factor in words, such as ``x as fast as fp32``.
        ratio: Fraction of the dense reference's time or memory, with its 95 % interval.
        speedup: Reference / model: 2.0 is half the time, or half the memory, of the dense fp32 model.
        speedup_vs_int8: Against int8 in one line; ``None`` while that is not measured.
        speedup_vs: Against every measured baseline but fp32, by name.
        latency_ms: At the workload: the quantile or the mean of the objective, else the median, as the ratio of
            ``reference_ms``.
        reference_ms: Of the dense reference: the median of all measurements of the job that were not noisy.
        predicted_ratio: What the latency model expected before measuring.
        status: ``ok``, ``noisy`` or ``slower_than_front``.
        processes: Fresh processes that the measurement was repeated in.
        samples_per_second: Where throughput is the objective: batch / mean time.
        peak_memory_mb: What loading and running the model adds to the resident memory of a fresh process, at most.
        reference_memory_mb: The same of the dense reference, where memory is the objective.
        fusions: How many fused operators the runtime should find in the graphs of the model and of the reference, and
            how many it executes.
        fusion_parity: Whether none is missing in either, so that the graphs can be compared. A model that lacks one is
            in no front; a reference that lacks one flatters the factors against it (``FrontView.reference_note``).
            ``None`` where the runtime does not tell.
        fusion_unknown: Why it does not.
        products: How many matrix products the runtime computes in which arithmetic, such as ``{"f32": 2, "int8": 12}``:
            whether a low precision really runs. ``None`` where the runtime does not tell.
    """

    objective: Objective
    unit: str
    ratio: Estimate
    speedup: Estimate
    speedup_vs_int8: Estimate | None
    speedup_vs: dict[str, Estimate]
    latency_ms: float
    reference_ms: float
    predicted_ratio: float | None
    status: str
    processes: int
    samples_per_second: float | None
    peak_memory_mb: float | None
    reference_memory_mb: float | None
    fusions: Fusions | None
    fusion_parity: bool | None
    fusion_unknown: str | None
    products: dict[str, int] | None


class QualityView(_View):
    """Quality of one model.

    Attributes:
        metric: Name of the metric.
        value: Its value with the 95 % interval.
        dense: The dense model's value on the same examples.
        drop: dense - value, interval paired over examples.
        expected_drop: Drop to be expected of more examples, from all that the model was evaluated on and from what
            changed predictions cost the job's other models. Front, best model and a goal's ``max_drop`` go by it.
            Without labels it is ``drop``.
        divergence: Label-free distance to the dense model.
        fidelity: Closeness to the dense model, 0 to 1.
        examples: Number of examples; of a model that was given up early only those of the first part.
        split: ``search`` or ``holdout``.
        optimism: Drop on the held-out split minus drop during the search; ``None`` until confirmed.
        details: Further numbers.
    """

    metric: str
    value: Estimate
    dense: float
    drop: Estimate
    expected_drop: float
    divergence: float
    fidelity: float
    examples: int
    split: str
    optimism: float | None
    details: dict[str, float]


class LayerView(_View):
    """What is left of one layer: ``None`` where the branch is gone.

    Attributes:
        removed: Whether the whole layer is gone, with its normalisations.
        merged: How many of the following layers, which are ``removed``, are merged into this one.
        merged_into: Of a layer that is gone: the one that it is merged into.
    """

    removed: bool
    merged: int
    merged_into: int | None
    heads: int | None
    intermediate_size: int | None
    attention_rank: int | None
    feed_forward_rank: int | None
    attention_sparsity: float
    feed_forward_sparsity: float
    attention_bits: int | None
    feed_forward_bits: int | None


class OperatorView(_View):
    """How often one operator is executed in two graphs of the same network.

    Attributes:
        kind: What it is for: a key of :data:`compressors.export.histograms.KINDS`, or ``other``.
        name: As the runtime calls it.
        written: Times in the graph that was written from the recipe.
        traced: Times in torch's own export.
    """

    kind: str
    name: str
    written: int
    traced: int


class GraphAuditView(_View):
    """A model's graph held against torch's own export of the same network.

    Attributes:
        ok: Whether the file computes the same, and ONNX Runtime, on its own devices, fuses every block of it.
        outcome: What was found, in words; ``None`` where the file failed: ``TrialView.verdict`` says why.
        latency: ``faster`` | ``equal`` | ``slower`` | ``noisy``, of this graph against torch's, in the same arithmetic.
        ratio: The time of this graph relative to torch's, with its interval.
        runtime: Whose operators were counted.
        comparison: Where both graphs differ in them, by kind, in words.
        operators: All of them.
    """

    ok: bool
    outcome: str | None
    latency: Literal["faster", "equal", "slower", "noisy"] | None
    ratio: Estimate | None
    runtime: str | None
    comparison: str | None
    operators: list[OperatorView]


class TrialView(_View):
    """One trial. Numbers are final where the trial is confirmed, those of the search otherwise.

    Attributes:
        kind: ``recipe`` or ``baseline``.
        name: ``fp32``, ``uniform 50% int8``, ``6 of 6 layers, 62 % of heads, ...``.
        state: State of the trial's row.
        confirmed: Whether quality is held-out and latency from fresh processes.
        on_front: Whether it is in the job's front now.
        healed: Whether its weights come from recovery training.
        verdict: Why it is or is not, in words.
        notes: What to know before taking it, such as a graph that is slower than torch's own export.
        audit: What the comparison with torch's own export has found; ``None``: it was not audited.
        size_ratio: Stored size as a fraction of the dense fp32 artifact's.
        layers: The structure, layer by layer; empty for baselines.
        recipe: The complete recipe; ``None`` for baselines.
        facts: What was noted on the way. ``first_part`` is what the first part of the search split said; ``stopped`` in
            it is why evaluation ended there, if it did.
        error: Problem of a failed trial.
    """

    id: str
    job_id: str
    number: int
    kind: Literal["recipe", "baseline"]
    name: str
    source: str
    digest: str
    state: str
    confirmed: bool
    on_front: bool
    healed: bool
    verdict: str | None
    notes: list[str]
    audit: GraphAuditView | None
    latency: LatencyView | None
    quality: QualityView | None
    size_bytes: int | None
    size_ratio: float | None
    layers: list[LayerView]
    recipe: Recipe | None
    facts: dict[str, Any]
    error: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class FrontView(_View):
    """The front of a job at this moment.

    Attributes:
        status: ``provisional`` while numbers of the search are shown, ``confirmed`` when they are final.
        objective: What the models are ordered by and held against the baselines with.
        objective_name: The same in words, such as ``p99 latency``.
        verdict: See :class:`search.goals.Choice`.
        message: The verdict in words.
        reference_note: What the runtime does not fuse in the dense reference, which flatters the factors against it;
            ``None``: nothing is missing, or the runtime does not tell.
        notes: What the models are not held against, and why: baselines that failed or have no final numbers.
        best: The model that the job's goal wants.
        points: The front, the best by the objective first; every point clearly beats the baselines of equal or better
            quality, and the dense model in its best graph.
        baselines: What the user could have had in one line.
        trials: Number of trials by state.
    """

    job_id: str
    job_state: str
    status: Literal["provisional", "confirmed"]
    objective: Objective
    objective_name: str
    verdict: Verdict
    message: str
    reference_note: str | None
    notes: list[str]
    best: TrialView | None
    points: list[TrialView]
    baselines: list[TrialView]
    trials: dict[str, int]


class AgreementView(_View):
    """How well a number that is known early ranks the models by a number that is known late.

    Attributes:
        early: What is known early: ``first_divergence``, the divergence on the first part of the search split, where
            hopeless models are given up; ``divergence`` or ``drop`` on the search split; ``predicted_latency``.
        late: What it stands for: ``drop``, ``holdout_drop`` or ``latency``.
        rank_correlation: Spearman's, from -1 to 1; ``None`` for fewer than three models, or if all are equal.
        models: Number of compressed models that both numbers are known of.
    """

    early: Literal["first_divergence", "divergence", "drop", "predicted_latency"]
    late: Literal["drop", "holdout_drop", "latency"]
    rank_correlation: float | None
    models: int


class ReportView(_View):
    """Everything about a job's outcome.

    Attributes:
        model: Name of the dense model.
        dataset: Name of the data that quality was judged on.
        front: The front.
        summary: ``job.summary`` as the finish wrote it; ``None`` before.
        others: Measured trials that are not on the front, fastest first.
        agreement: How well the stages of the search rank the models.
        form: Which download is the form that was measured: ``onnx`` | ``torch``.
        usage: Three lines of Python that run that download of any of the candidates from inside its folder, in the
            device's runtime; empty before the model is inspected. A baseline may be a file of another kind: the
            manifest of its download has its own lines.
    """

    job_id: str
    name: str | None
    model: str
    dataset: str
    request: dict[str, Any]
    dense: dict[str, Any]
    front: FrontView
    summary: dict[str, Any] | None
    others: list[TrialView]
    agreement: list[AgreementView]
    form: Form
    usage: list[str]
    error: dict[str, Any] | None
