"""``paretune again``."""

from typing import Annotated
from typing import Any

import typer

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.common import job_id
from paretune.cli.durations import budget_duration
from paretune.cli.output import reported
from paretune.cli.submit import show_started
from paretune.client import goal_of


@reported
def again(
    job: options.JobId,
    device: Annotated[
        str | None, typer.Option(help="Name of a registered device: `paretune devices`. Default: the same.")
    ] = None,
    max_drop: options.MaxDrop = None,
    max_latency: options.MaxLatency = None,
    max_size: options.MaxSize = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Time for the whole job, such as 10m.", metavar="DURATION", parser=budget_duration),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the progress and wait for the end.")] = False,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Start a job like an earlier one: on another device, or with another goal or budget.

    Nothing is uploaded. Calibration and option database depend on model and data only and are taken over; the new job
    measures its device and searches for it.

    \b
    Examples:
      paretune again latest --device local-openvino --watch
      paretune again JOB --max-drop 0.02 --budget 20m
    """
    options.check_goal(max_drop, max_latency, max_size)
    with connect(url, api_key, home) as client:
        before = client.job(job_id(client, job))
        changes: dict[str, Any] = {"name": name}
        if device is not None:
            changes["device"] = device
        if goal := goal_of(max_drop, max_latency, max_size):
            changes["goal"] = goal
        if budget is not None:
            trials = before.request.get("budget", {}).get("trials")
            changes["budget"] = {"seconds": budget, "trials": trials}
        started = client.submit_like(before, **changes)
        show_started(client, started, f"Follow it:      paretune watch {started.id}", watch=watch, as_json=as_json)
