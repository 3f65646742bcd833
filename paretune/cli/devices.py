"""``paretune devices``."""

import json
from typing import Annotated
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.output import console
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.types import Device

app = typer.Typer(help="List and register devices.", invoke_without_command=True)


@app.callback()
@reported
def devices(
    context: typer.Context,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """List the devices that jobs can be measured on.

    \b
    Examples:
      paretune devices
      paretune devices add cpu-4-threads --profiler onnxruntime --option affinity=[0,1,2,3]
    """
    if context.invoked_subcommand is not None:
        return
    with connect(url, api_key, home) as client:
        found = client.devices()
    if as_json:
        print_json({"items": found})
        return
    table = Table()
    for column in ("name", "profiler", "state", "hardware", "formats", "options"):
        table.add_column(column)
    for device in found:
        hardware = str(device.facts.get("gpu") or device.facts.get("cpu") or "")
        formats = ", ".join(device.capabilities.get("formats", []))
        given = json.dumps(device.options) if device.options else ""
        table.add_row(*map(escape, (device.name, device.profiler, _state(device), hardware, formats, given)))
    console.print(table if found else "No devices yet: `paretune up` registers the local ones.")


@app.command("add")
@reported
def add(
    name: Annotated[str, typer.Argument(help="Lower case letters, digits, dot, dash, underscore.")],
    profiler: Annotated[str, typer.Option(help="onnxruntime, openvino or torch_cuda.")],
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the profiler, value as JSON. Repeatable.")
    ] = None,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Register a device profile."""
    with connect(url, api_key, home) as client:
        device = client.add_device(name, profiler, dict(map(parse_option, option or [])))
    if as_json:
        print_json(device)
    else:
        console.print(f"Device [bold]{escape(device.name)}[/] is registered.")
        console.print(
            f"Its worker serves the queue [bold]device.{escape(device.name)}[/] and describes it: `paretune devices`.",
            soft_wrap=True,
        )


def _state(device: Device) -> str:
    if not device.capabilities:
        return "no worker has looked at it yet"
    return "available" if device.capabilities.get("available") else str(device.capabilities.get("reason"))


def parse_option(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is JSON where it is valid JSON, text otherwise.

    Raises:
        typer.BadParameter: There is no equals sign.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--option")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
