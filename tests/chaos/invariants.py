"""What must hold whatever happened. Each check returns what is wrong, in words; an empty list is good."""

import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from compressors.recipe import LayerRecipe
from infra.database.models import Blob
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.models import Trial
from infra.garbage import collect_blobs
from infra.garbage import needed_blobs
from infra.store.base import copy_and_hash
from profilers.types import Quality
from search.coordinator import EXHAUSTED
from search.drop_model import DropModel
from search.drop_model import Evidence
from search.healing import SOURCE
from search.lifecycle import ENDED
from tests.chaos.cluster import Cluster
from tests.chaos.cluster import command
from tests.chaos.operations import is_poison

_TRIAL_ENDED = frozenset({"complete", "rejected", "failed", "cancelled"})
_ORPHAN_SECONDS = 15.0
BASELINES = 2


def job_violations(cluster: Cluster, job_id: str) -> list[str]:
    """Check one job that should be over: state, trials, steps, events, front."""
    with cluster.database.read_session() as session:
        job = session.get_one(Job, job_id)
        trials = list(session.exec(select(Trial).where(Trial.job_id == job_id).order_by(col(Trial.number))))
        steps = list(session.exec(select(Step).where(Step.job_id == job_id)))
        found = [
            *_states(job, steps),
            *_trials(job, trials, cluster.trials, exhausted=_is_exhausted(session, job_id)),
            *_events(session, job_id, trials),
            *_poison(trials),
        ]
    shown = [point["id"] for point in cluster.patiently(lambda: cluster.client.front(job_id))["points"]]
    expected = recomputed_front(job, trials)
    if shown != expected:
        found.append(f"the front shows {shown}, but the trials give {expected}")
    return [f"job {job_id} ({job.state}): {text}" for text in found]


def _states(job: Job, steps: Sequence[Step]) -> list[str]:
    found = [] if job.state in ENDED else [f"has not ended: stage {job.stage}"]
    found += [f"step {step.key} is still {step.state}" for step in steps if step.state in ("queued", "running")]
    found += [f"step {step.key} started {step.attempt} times" for step in steps if step.attempt > step.max_attempts]
    found += [f"step {step.key} failed without a cause" for step in steps if step.state == "failed" and not step.error]
    if job.state == "failed" and not job.error:
        found.append("failed without a cause")
    return found


def _is_exhausted(session: Session, job_id: str) -> bool:
    """Whether the search said that it had run out of recipes: that of a tiny model may."""
    notices = session.exec(select(Event).where(Event.job_id == job_id, Event.kind == "notice"))
    return any(event.payload.get("message") == EXHAUSTED for event in notices)


def _trials(job: Job, trials: Sequence[Trial], budget: int, *, exhausted: bool) -> list[str]:
    found = [f"trial {trial.number} is {trial.state}" for trial in trials if trial.state not in _TRIAL_ENDED]
    numbers = [trial.number for trial in trials]
    if numbers != list(range(len(trials))):
        found.append(f"trial numbers are {numbers}")
    recipes = sum(trial.source not in ("baseline", SOURCE) for trial in trials)
    if recipes > budget or (job.state == "succeeded" and recipes != budget and not exhausted):
        found.append(f"{recipes} trials of {budget}")
    baselines = sum(trial.source == "baseline" for trial in trials)
    if job.state == "succeeded" and baselines != BASELINES:
        found.append(f"{baselines} baselines of {BASELINES}")
    return found


def _events(session: Session, job_id: str, trials: Sequence[Trial]) -> list[str]:
    """Every trial is announced as ended once, and the job as well."""
    events = list(session.exec(select(Event).where(Event.job_id == job_id).order_by(col(Event.id))))
    ends = Counter(
        event.payload["number"]
        for event in events
        if event.kind == "trial" and event.payload["state"] in _TRIAL_ENDED and not event.payload.get("confirmed")
    )
    found = [f"trial {trial.number} ended {ends[trial.number]} times" for trial in trials if ends[trial.number] != 1]
    states = [event.payload["state"] for event in events if event.kind == "state"]
    if sum(state in ENDED for state in states) != 1 or any(first == second for first, second in pairwise(states)):
        found.append(f"its states were {states}")
    return found


def _poison(trials: Sequence[Trial]) -> list[str]:
    """A candidate that crashes its runner is never complete; when it failed, the cause is said."""
    poison = [trial for trial in trials if is_poison(trial.candidate)]
    return [
        f"poison trial {trial.number} is {trial.state}: {trial.error}"
        for trial in poison
        if trial.state in ("complete", "rejected")
        or (trial.state == "failed" and not (trial.error or {}).get("message"))
    ]


def recomputed_front(job: Job, trials: Sequence[Trial]) -> list[str]:
    """Return the ids of the front, fastest first, from nothing but the numbers of the trials.

    Written independently of ``search``, but for what drop is to be expected: final numbers if there are any, the guard
    against the baselines and the dense model in its best graph, no domination.
    """
    measured = [trial for trial in trials if trial.state == "complete"]
    final = [trial for trial in measured if trial.holdout and trial.final_measurement]
    use_final = bool(final) and (job.state == "succeeded" or job.summary is not None)
    losses = _expected_drops(trials) if (job.prepared or {}).get("labelled", True) else {}
    points = {
        trial.id: _numbers(trial, use_final, losses.get(trial.id)) for trial in (final if use_final else measured)
    }
    present = [trial for trial in measured if trial.id in points]
    baselines = [points[trial.id] for trial in present if trial.source == "baseline"]
    dense = [points[trial.id] for trial in present if _is_dense(trial)]
    passed = {
        trial.id: points[trial.id]
        for trial in present
        if trial.source != "baseline"
        and _beats(points[trial.id], baselines)
        and (_is_dense(trial) or _beats(points[trial.id], dense))
    }
    front = [name for name, point in passed.items() if not any(_dominates(other, point) for other in passed.values())]
    return sorted(front, key=lambda name: _objectives(passed[name]))


def _is_dense(trial: Trial) -> bool:
    recipe = trial.candidate.get("recipe")
    if recipe is None:
        return False
    return recipe.get("weights") is None and all(
        LayerRecipe.model_validate(layer) == LayerRecipe() for layer in recipe["layers"]
    )


def _expected_drops(trials: Sequence[Trial]) -> dict[str, float]:
    splits = [
        {trial.id: Evidence.of(Quality.model_validate(found)) for trial in trials if (found := getattr(trial, name))}
        for name in ("quality", "holdout")
    ]
    model = DropModel(*(split.values() for split in splits))
    return {
        trial.id: model.expected([split[trial.id] for split in splits if trial.id in split])
        for trial in trials
        if trial.id in splits[0]
    }


def _numbers(trial: Trial, final: bool, expected_drop: float | None) -> JsonObject:
    measurement = trial.final_measurement if final else trial.measurement
    quality = trial.holdout if final else trial.quality
    assert measurement is not None
    assert quality is not None
    drop = quality["drop"]
    loss = drop["value"] if expected_drop is None else expected_drop
    return {"ratio": measurement["ratio"], "drop": drop, "loss": loss, "size": trial.size_bytes}


def _beats(point: JsonObject, baselines: Sequence[JsonObject]) -> bool:
    rivals = [baseline for baseline in baselines if baseline["drop"]["value"] <= point["drop"]["high"]]
    fastest = min(rivals, key=lambda rival: float(rival["ratio"]["value"]), default=None)
    return fastest is None or point["ratio"]["high"] < fastest["ratio"]["low"]


def _objectives(point: JsonObject) -> tuple[float, float, int]:
    return point["ratio"]["value"], point["loss"], point["size"]


def _dominates(first: JsonObject, second: JsonObject) -> bool:
    one, other = _objectives(first), _objectives(second)
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def store_violations(cluster: Cluster) -> list[str]:
    """Collect, then compare store and rows; call it when no job runs."""
    cluster.patiently(lambda: collect_blobs(cluster.database, cluster.store, 0.0))
    with cluster.database.read_session() as session:
        needed = needed_blobs(session)
        rows = set(session.exec(select(Blob.sha256)))
    stored = {blob.sha256 for blob in cluster.store.list_blobs()}
    found = [f"blob {sha256} has no owner after collection" for sha256 in (rows | stored) - needed]
    found += [f"blob {sha256} is needed and gone" for sha256 in needed - (rows & stored)]
    for sha256 in needed & stored:
        with cluster.store.open(sha256) as stream:
            if copy_and_hash(stream, None).sha256 != sha256:
                found.append(f"blob {sha256} is damaged")
    return found


def orphan_violations(cluster: Cluster) -> list[str]:
    """Look for processes of the service that hang below none of its living processes."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        family = {process.pid for name in cluster.processes for process in cluster.family(name)}
        orphans = [process for process in cluster.belonging() if process.pid not in family]
        if not orphans or time.monotonic() > deadline:
            return [f"orphan {process.pid}: {command(process)[:120]}" for process in orphans]
        cluster.sleep(0.5)
