"""What workers would have written for a job: prepared facts, baselines and measured candidates."""

from datetime import timedelta

from sqlmodel import Session

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import BaselineCandidate
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from infra.clock import utcnow
from infra.database.models import Job
from infra.database.models import Trial
from infra.events import append_event
from profilers.types import Capabilities
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Quality
from search.prepared import Prepared

HEADS, WIDTH = 2, 16


EMBEDDING_QUALITY = {
    "metric": "fidelity",
    "fidelity": 0.9925,
    "details": {"cosine_p01": 0.9811, "neighbour_overlap": 0.907, "similarity_spearman": 0.9917},
}
"""What is different in the quality of an embedding model."""


def _around(value: float, margin: float) -> Estimate:
    return Estimate(value=value, low=value - margin, high=value + margin)


def prepare(session: Session, job: Job) -> None:
    """Put the job into the search stage."""
    anatomy = Anatomy(
        model_type="bert",
        task="sequence-classification",
        layers=2,
        hidden_size=8,
        heads=(HEADS, HEADS),
        head_size=4,
        intermediate_size=(WIDTH, WIDTH),
        vocabulary_size=7,
        max_sequence_length=512,
        labels=("bad", "good"),
        parameters=1000,
        has_token_types=True,
    )
    prepared = Prepared(
        anatomy=anatomy, capabilities=Capabilities(profiler="onnxruntime", available=True), dense_size_bytes=1000
    )
    job.prepared = prepared.model_dump(mode="json")
    job.state, job.stage = "running", "search"
    job.started_at = utcnow() - timedelta(seconds=30)
    session.add(job)
    append_event(session, job.id, "state", {"state": "running"})


def recipe(heads: int, width: int) -> Recipe:
    """A recipe that keeps this much of every layer."""
    layer = LayerRecipe(attention=AttentionRecipe(heads=heads), feed_forward=FeedForwardRecipe(intermediate_size=width))
    return Recipe(layers=(layer, layer))


def add_trial(
    session: Session, job: Job, number: int, candidate: RecipeCandidate | BaselineCandidate, ratio: float, drop: float
) -> Trial:
    """Add a measured trial and its event."""
    measurement = Measurement(
        status="ok",
        ratio=_around(ratio, 0.005),
        latency_ms=10 * ratio,
        reference_ms=10.0,
        p90_ratio=ratio,
        control_ratio=_around(1.0, 0.005),
        blocks=20,
        dropped_blocks=0,
        seconds=1.0,
    )
    quality = Quality(
        metric="accuracy",
        value=_around(0.9 - drop, 0.01),
        dense=0.9,
        drop=_around(drop, 0.001),
        divergence=drop,
        fidelity=1 - drop,
        examples=100,
        split="search",
        padded=False,
    )
    trial = Trial(
        job_id=job.id,
        number=number,
        source="baseline" if isinstance(candidate, BaselineCandidate) else "direct",
        candidate=candidate.model_dump(mode="json"),
        digest=candidate_digest(candidate),
        state="complete",
        quality=quality.model_dump(mode="json"),
        measurement=measurement.model_dump(mode="json"),
        size_bytes=round(1000 * ratio),
    )
    session.add(trial)
    append_event(session, job.id, "trial", {"number": number, "state": "complete"})
    return trial


def add_outcome(session: Session, job: Job) -> list[Trial]:
    """fp32, int8, a good small model and a bad tiny one."""
    prepare(session, job)
    return [
        add_trial(session, job, 0, BaselineCandidate(name="fp32"), 1.0, 0.0),
        add_trial(session, job, 1, BaselineCandidate(name="int8_one_liner"), 0.5, 0.004),
        add_trial(session, job, 2, RecipeCandidate(recipe=recipe(1, 8)), 0.3, 0.008),
        add_trial(session, job, 3, RecipeCandidate(recipe=recipe(1, 4)), 0.2, 0.05),
    ]
