"""``paretune jobs``, ``paretune priority`` and ``paretune cancel``."""

from itertools import islice
from typing import Annotated
from typing import Literal

import typer
from rich.markup import escape
from rich.table import Table

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.common import job_id
from paretune.cli.output import console
from paretune.cli.output import print_json
from paretune.cli.output import reported

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@reported
def jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 20,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """List your jobs, newest first.

    \b
    Examples:
      paretune jobs
      paretune jobs --state running --json | jq -r '.items[].id'
    """
    with connect(url, api_key, home) as client:
        found = list(islice(client.jobs(state=state), limit))
    if as_json:
        print_json({"items": found})
        return
    table = Table()
    for column in ("id", "state", "device", "created", "name"):
        table.add_column(column, no_wrap=column != "name")
    for job in found:
        created = job.created_at.astimezone().strftime("%m-%d %H:%M")
        shown = job.stage if job.state == "running" else job.state
        cells = (job.id, shown, str(job.request["device"]), created, job.name or "")
        table.add_row(*map(escape, cells))
    console.print(table if found else "No jobs yet. Start one: paretune submit MODEL_DIR --data FILE --watch")


@reported
def priority(
    job: options.JobId,
    value: Annotated[int, typer.Argument(min=0, max=9, help="9 is served first, 5 is usual.")],
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Change the priority of a job. What waits is served in the new order, what runs goes on.

    \b
    Examples:
      paretune priority latest 9
      paretune priority 0199f3c2-... 2
    """
    with connect(url, api_key, home) as client:
        changed = client.set_priority(job_id(client, job), value)
    if as_json:
        print_json(changed)
    else:
        console.print(f"Job {escape(changed.id)} has the priority {changed.priority}.")


@reported
def cancel(
    job: options.JobId,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Stop a job. What it found so far stays: `paretune best JOB`."""
    with connect(url, api_key, home) as client:
        done = client.cancel(job_id(client, job))
    if as_json:
        print_json(done)
    else:
        console.print(escape(f"Job {done.id} is {done.state}."))
