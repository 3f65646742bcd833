"""``job.summary``: the verdict, the front, and where the time went."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from statistics import median
from typing import Any

from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from search.audits import audit_notes
from search.first_look import stop_of
from search.goals import choose
from search.graph_choice import GraphChoice
from search.graph_choice import describe
from search.guard import guarded_front
from search.guard import noisy_count
from search.parity import reference_note
from search.prepared import Prepared
from search.requests import JobRequest
from search.rival_notes import rival_notes
from search.space import build_space
from search.standing import standings
from search.table_notes import describe_checks
from search.table_notes import describe_steps

LEARNING = ("table", "options")
"""Steps that find out about device and model before the search of ``guided``."""


def summarise(
    job: Job, request: JobRequest, prepared: Prepared, trials: Sequence[Trial], steps: Sequence[Step], now: datetime
) -> dict[str, Any]:
    """Return the summary of a job whose final measurements are complete.

    Returns:
        ``objective``, ``verdict`` and ``message`` (:class:`search.goals.Choice`), ``best`` (trial id), ``front`` (trial
        ids, best first), ``guard`` (ruling by trial id), ``trials`` (count by state), ``wall_seconds`` (by phase and by
        kind of step), ``prediction`` (error of the predictions), ``notes`` (what was not searched and why; baselines
        that failed or have no final numbers; doubts about the labels; too little text for calibration; which widths the
        device rewards; how many models were given up early; a reference that is not fused; graphs that are slower than
        torch's own export), ``graphs`` (which form of the graph the device ran fastest, and what was tried).
    """
    entries = standings(trials, labelled=prepared.labelled, final=True)
    front, rulings = guarded_front(entries)
    baselines = [entry for entry in entries if entry.baseline is not None]
    choice = choose(request.goal, front, baselines, noisy_count(entries))
    space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
    return {
        "objective": request.objective,
        "verdict": choice.verdict,
        "message": choice.message,
        "hint": choice.hint,
        "best": choice.best.trial_id if choice.best else None,
        "front": [entry.trial_id for entry in front],
        "guard": {trial_id: asdict(ruling) for trial_id, ruling in rulings.items()},
        "confirmed": bool(entries) and all(entry.confirmed for entry in entries),
        "trials": dict(Counter(trial.state for trial in trials)),
        "wall_seconds": wall_seconds(job, steps, now),
        "prediction": prediction_error(trials),
        "notes": [*space.notes, *rival_notes(trials, over=True), *_remarks(prepared, trials)],
        "graphs": graphs(job),
    }


def stopped_early(trials: Sequence[Trial]) -> str | None:
    """Return how many models were given up after the first part of the texts, in words; ``None`` if none was."""
    looks = [trial.facts["first_part"] for trial in trials if stop_of(trial.facts)]
    if not looks:
        return None
    part = f"{looks[0]['examples']} of {looks[0]['of']} texts"
    return f"Given up after the first {part}, because they lose too much: {len(looks)} of {len(trials)} trials."


def _remarks(prepared: Prepared, trials: Sequence[Trial]) -> list[str]:
    steps = describe_steps(prepared.latency_table)
    checks = describe_checks(prepared.latency_table)
    doubts = prepared.label_notice, prepared.calibration_notice
    said = *doubts, steps, checks, stopped_early(trials), reference_note(trials), *audit_notes(trials)
    return [note for note in said if note]


def graphs(job: Job) -> dict[str, Any] | None:
    """Return what races of equivalent graphs on the device have shown, or ``None`` where there were none."""
    prepared = job.prepared or {}
    choices = prepared.get("graph_choices")
    if not choices:
        return None
    message = describe({form: GraphChoice.model_validate(choice) for form, choice in choices.items()})
    return {"message": message, "choices": choices, "seconds": prepared["graph_seconds"]}


def wall_seconds(job: Job, steps: Sequence[Step], now: datetime) -> dict[str, Any]:
    """Return the job's wall time in seconds: in total, by phase, and as the sum of each kind of step."""
    begin = job.started_at or job.created_at
    searched = _first_start(steps, "evaluate", now)
    confirmed = _first_start(steps, "confirm", now)
    recovered = _first_start(steps, "recover", confirmed)
    learnt = _span([step for step in steps if step.kind in LEARNING])
    by_kind: dict[str, float] = {}
    for step in steps:
        if step.started_at and step.finished_at:
            seconds = (step.finished_at - step.started_at).total_seconds()
            by_kind[step.kind] = by_kind.get(step.kind, 0.0) + seconds
    return {
        "total": (now - begin).total_seconds(),
        "queued": (begin - job.created_at).total_seconds(),
        "prepare": (searched - begin).total_seconds(),
        "learn": learnt,
        "search": (recovered - searched).total_seconds() - learnt,
        "recover": (confirmed - recovered).total_seconds(),
        "finalise": (now - confirmed).total_seconds(),
        "by_step": by_kind,
    }


def _span(steps: Sequence[Step]) -> float:
    """Return the seconds from the first start to the last end."""
    times = [(step.started_at, step.finished_at) for step in steps if step.started_at and step.finished_at]
    return (max(end for _, end in times) - min(start for start, _ in times)).total_seconds() if times else 0.0


def _first_start(steps: Sequence[Step], kind: str, default: datetime) -> datetime:
    return min((step.started_at for step in steps if step.kind == kind and step.started_at), default=default)


def prediction_error(trials: Sequence[Trial]) -> dict[str, float | int] | None:
    """Return the median relative error of the latency predictions that were made before measuring."""
    errors = [
        abs(trial.predicted["ratio"] / trial.measurement["ratio"]["value"] - 1.0)
        for trial in trials
        if trial.predicted and trial.measurement
    ]
    return {"median_relative_error": median(errors), "trials": len(errors)} if errors else None
