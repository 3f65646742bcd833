"""``paretune best``."""

from pathlib import Path
from typing import Annotated
from typing import Any

import typer
from rich.markup import escape
from rich.progress import BarColumn
from rich.progress import DownloadColumn
from rich.progress import Progress
from rich.progress import TextColumn

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.common import job_id
from paretune.cli.output import console
from paretune.cli.output import errors
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.cli.tables import format_size
from paretune.cli.tables import front_table
from paretune.client import Client
from paretune.client import Format


@reported
def best(
    job: options.JobId,
    max_drop: options.MaxDrop = None,
    max_latency: options.MaxLatency = None,
    max_size: options.MaxSize = None,
    trial: Annotated[int | None, typer.Option(help="Take this trial instead of the best.")] = None,
    format: Annotated[Format, typer.Option(help="onnx gives a baseline as the file that was measured.")] = "onnx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Download the model into this folder.", metavar="DIR")
    ] = None,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Show the best model of a job, and download it with -o. Works at any moment, also while the job runs.

    \b
    Examples:
      paretune best latest
      paretune best JOB --max-drop 0.01 --format onnx -o ./best
      paretune best JOB --max-latency 5 --json | jq .latency
    """
    if trial is not None and (max_drop, max_latency, max_size) != (None, None, None):
        raise typer.BadParameter(
            "a trial is taken whatever the goal: leave out --max-drop, --max-latency and --max-size",
            param_hint="--trial",
        )
    options.check_goal(max_drop, max_latency, max_size)
    with connect(url, api_key, home) as client:
        identifier = job_id(client, job)
        if trial is None:
            view = client.best(identifier, max_drop=max_drop, max_latency_ms=max_latency, max_size_mb=max_size)
        else:
            view = client.request("GET", f"/v1/jobs/{identifier}/trials/{trial}")
        files = _download(client, view, format, output, quiet=as_json) if output is not None else []
        if as_json:
            print_json(view | {"files": files})
            return
        if output is None:
            console.print(front_table(client.front(identifier), console.width))
    _show(view, "Best: trial" if trial is None else "Trial")
    if output is not None:
        console.print(f"{len(files)} files in {escape(str(output))}:")
        for file in files:
            console.print(f"  {escape(file['path'])}  {format_size(file['size'])}")


def _download(client: Client, view: dict[str, Any], kind: Format, output: Path, *, quiet: bool) -> list[dict[str, Any]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=errors, transient=True, disable=quiet) as bar:
        task = bar.add_task(f"Preparing {kind}", total=None)
        paths = client.download(
            view["job_id"],
            kind,
            output,
            trial=view["number"],
            progress=lambda done, total: bar.update(task, completed=done, total=total, description="Downloading"),
        )
    return [{"path": str(path), "size": path.stat().st_size} for path in paths]


def _show(view: dict[str, Any], title: str) -> None:
    console.print(f"{title} {view['number']}, [bold]{escape(view['name'])}[/]" + escape(_numbers(view)))
    if view.get("verdict"):
        console.print(f"[dim]{escape(view['verdict'])}[/]")
    for note in view.get("notes", ()):
        console.print(f"[yellow]{escape(note)}[/]")
    if not view.get("confirmed"):
        console.print("[dim]Provisional: the final measurements have not been taken.[/]")


def _numbers(view: dict[str, Any]) -> str:
    latency, quality = view.get("latency"), view.get("quality")
    parts = []
    if latency:
        parts.append(f"{latency['speedup']['value']:.2f} {latency['unit']}")
        if latency.get("speedup_vs_int8"):
            parts.append(f"{latency['speedup_vs_int8']['value']:.2f} x int8 in one line")
    if quality:
        drop = quality["drop"]
        details = quality["details"]
        metric = "mean cosine" if "neighbour_overlap" in details else quality["metric"]
        parts.append(f"{metric} {quality['value']['value']:.4f} (drop {100 * drop['value']:+.2f} points)")
        if "neighbour_overlap" in details:
            parts.append(f"{details['neighbour_overlap']:.1%} of the nearest neighbours kept")
            parts.append(f"rank correlation of similarities {details['similarity_spearman']:.4f}")
    return ": " + ", ".join(parts) if parts else ""
