"""``paretune keys``."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.output import console
from paretune.cli.output import print_json
from paretune.cli.output import reported

_QUOTAS = ("max_active_jobs", "max_workers", "max_priority")

app = typer.Typer(help="List, make, limit, rotate and revoke API keys (scope admin).", invoke_without_command=True)

MaxJobs = Annotated[int | None, typer.Option(min=0, help="Queued and running jobs of the key.", metavar="N")]
MaxWorkers = Annotated[
    int | None, typer.Option(min=1, help="Workers of one queue that may work for it at a time.", metavar="N")
]
MaxPriority = Annotated[int | None, typer.Option(min=0, max=9, help="Highest priority of its jobs.", metavar="N")]
KeyId = Annotated[str, typer.Argument(help="Id of the key: `paretune keys`.")]


@app.callback()
@reported
def keys(
    context: typer.Context,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """List all API keys, without their secrets."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, api_key, home) as client:
        found = client.keys()
    if as_json:
        print_json({"items": [key.model_dump(mode="json", exclude={"key"}) for key in found]})
        return
    table = Table()
    for column in ("id", "name", "prefix", "scopes", "state"):
        table.add_column(column, no_wrap=column == "id")
    for key in found:
        state = "revoked" if key.revoked_at else f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "active"
        table.add_row(*map(escape, (key.id, key.name, key.prefix, ", ".join(key.scopes), state)))
    console.print(table)


@app.command("add")
@reported
def add(
    name: Annotated[str, typer.Argument(help="Who or what uses it.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, submit, admin, device. Repeatable.")] = None,
    expires: Annotated[str | None, typer.Option(help="Moment, such as 2030-01-01T00:00:00Z.")] = None,
    max_active_jobs: MaxJobs = None,
    max_workers: MaxWorkers = None,
    max_priority: MaxPriority = None,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Make a key. It is shown once. Without --scope it may read and submit.

    \b
    Example:
      paretune keys add ci --scope read --scope submit
      paretune keys add students --max-workers 2 --max-priority 3
    """
    quotas = _given(max_active_jobs, max_workers, max_priority)
    with connect(url, api_key, home) as client:
        key = client.add_key(name, scope, expires_at=expires, quotas=quotas)
    if as_json:
        print_json(key)
    else:
        console.print(f"[bold]{escape(str(key.key))}[/]\nKeep it: it cannot be shown again.", soft_wrap=True)


@app.command("quotas")
@reported
def quotas(
    key: KeyId,
    max_active_jobs: MaxJobs = None,
    max_workers: MaxWorkers = None,
    max_priority: MaxPriority = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the quotas that are not given.")] = False,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Change how much a key may ask for. Jobs that are there already stay.

    \b
    Examples:
      paretune keys quotas ID --max-workers 4 --max-active-jobs 20
      paretune keys quotas ID --clear
    """
    given = _given(max_active_jobs, max_workers, max_priority)
    if clear:
        given = dict.fromkeys(_QUOTAS) | given
    with connect(url, api_key, home) as client:
        changed = client.set_quotas(key, given)
    if as_json:
        print_json(changed)
    else:
        values = changed.model_dump()
        console.print(", ".join(f"{name}: {'-' if values[name] is None else values[name]}" for name in _QUOTAS))


def _given(*values: int | None) -> dict[str, int | None]:
    return {name: value for name, value in zip(_QUOTAS, values, strict=True) if value is not None}


@app.command("rotate")
@reported
def rotate(
    key: KeyId,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Replace the secret of a key; what it owns stays its own."""
    with connect(url, api_key, home) as client:
        renewed = client.rotate_key(key)
    if as_json:
        print_json(renewed)
    else:
        console.print(f"[bold]{escape(str(renewed.key))}[/]\nKeep it: it cannot be shown again.", soft_wrap=True)


@app.command("revoke")
@reported
def revoke(
    key: KeyId,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Revoke a key at once and for good."""
    with connect(url, api_key, home) as client:
        client.revoke_key(key)
    if as_json:
        print_json({"id": key, "revoked": True})
    else:
        console.print("The key is revoked.")
