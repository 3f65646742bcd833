"""Follow a job on the terminal: a bar with trials, best so far and time left; plain lines elsewhere."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TaskID
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn

from paretune.cli.durations import format_duration
from paretune.cli.tables import factor
from paretune.client import Client
from paretune.outage import poll
from paretune.types import Event
from paretune.types import Job

_REFRESH_SECONDS = 1.0
_ON_THE_WAY = ("queued", "evaluated")
"""States of a trial that are not worth a line."""


def describe_best(job: Job) -> str:
    """The best model so far in one phrase."""
    best = job.best
    if not best or best.get("speedup") is None:
        return "nothing measured yet"
    drop = best.get("drop")
    quality = f", drop {100 * drop:+.2f}" if drop is not None else ""
    return f"{best['speedup']:.2f} {factor(job.request.get('objective'))}{quality}"


def fraction(job: Job) -> float:
    """How much of the budget is used, 0 to 1: of the time or of the trials, whichever is more.

    Recovery training has time of its own after the search. Then the trials, which limit the search alone, count only
    where the search has no time to count.
    """
    if job.is_over:
        return 1.0
    progress, budget = job.progress or {}, job.request.get("budget", {})
    training = (job.request.get("recover") or {}).get("seconds", 0.0)
    parts = [0.0]
    if budget.get("seconds"):
        parts.append(progress.get("elapsed_seconds", 0.0) / (budget["seconds"] + training))
    if budget.get("trials") and not (training and budget.get("seconds")):
        parts.append(progress.get("trials", {}).get("total", 0) / budget["trials"])
    return min(max(parts), 0.99)


def watch_job(client: Client, job_id: str, console: Console) -> Job:
    """Show a job until it is over and return it."""
    return _with_bar(client, job_id, console) if console.is_terminal else _with_lines(client, job_id, console)


def _with_bar(client: Client, job_id: str, console: Console) -> Job:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[trials]} trials"),
        TextColumn("best {task.fields[best]}"),
        TimeElapsedColumn(),
        TextColumn("left {task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task("queued", total=1.0, trials="0", best="–", left="–")
        job = _update(bar, task, _read(client, job_id))
        refreshed = time.monotonic()
        for event in client.watch(job_id):
            if event.kind in {"notice", "error"}:
                bar.console.print(event_line(event))
            if event.kind == "state" or time.monotonic() - refreshed > _REFRESH_SECONDS:
                job = _update(bar, task, _read(client, job_id))
                refreshed = time.monotonic()
        if not job.is_over:
            job = _update(bar, task, _read(client, job_id))
    return job


def _read(client: Client, job_id: str) -> Job:
    """Read the job, also through a short outage of the service: whoever watches goes on watching."""
    what, url = f"job {job_id}", client.config.url
    return poll(lambda: client.job(job_id), lambda _: True, what=what, url=url, pause=0.0, timeout=None)


def _update(bar: Progress, task: TaskID, job: Job) -> Job:
    progress = job.progress or {}
    remaining = progress.get("remaining_seconds")
    bar.update(
        task,
        completed=fraction(job),
        description=escape(job.stage if not job.is_over else job.state),
        trials=str(progress.get("trials", {}).get("total", 0)),
        best=describe_best(job),
        left=format_duration(remaining) if remaining is not None else "?",
    )
    return job


def _with_lines(client: Client, job_id: str, console: Console) -> Job:
    for event in client.watch(job_id):
        if event.kind != "progress" and event.payload.get("state") not in _ON_THE_WAY:
            console.print(event_line(event), soft_wrap=True)
    return _read(client, job_id)


def event_line(event: Event) -> str:
    """Return what a log says about an event, in the console's markup."""
    moment = event.created_at.astimezone().strftime("%H:%M:%S")
    payload = event.payload
    if event.kind == "trial":
        unit = factor(payload.get("objective"))
        speed = f"{1 / payload['ratio']:.2f} {unit}" if payload.get("ratio") else "not measured"
        drop = f", drop {100 * payload['drop']:+.2f} points" if payload.get("drop") is not None else ""
        stopped = payload.get("stopped")
        drop += f" on the first {stopped['examples']} of {stopped['of']} texts" if stopped else ""
        name = payload.get("name") or payload.get("source", "")
        text = f"trial {payload.get('number')} {name}: {payload.get('state')}, {speed}{drop}"
    elif "export_id" in payload:
        text = f"export {payload['export_id']}: {payload.get('state') or payload.get('message')}"
    elif event.kind in {"stage", "state"}:
        text = f"{event.kind}: {payload.get(event.kind)}"
    else:
        text = " ".join(str(payload[part]) for part in ("message", "hint") if payload.get(part)) or str(payload)
    return f"[dim]{moment}[/] {escape(text)}"
