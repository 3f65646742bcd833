"""``paretune report``."""

import json
from pathlib import Path
from typing import Annotated
from typing import Any

import typer

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.common import job_id
from paretune.cli.output import console
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.cli.tables import format_size
from paretune.client import Client

FORMS = ("html", "png", "json")


@reported
def report(
    job: options.JobId,
    trial: Annotated[int | None, typer.Option(help="Report on this model instead of the whole job.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, or a folder for files.", metavar="FILE|DIR"),
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write the page. The default.")] = False,
    png: Annotated[bool, typer.Option("--png", help="Write the picture: the front, or what was removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; with -o, write it.")] = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Write the report of a job, or of one model, as a page, a picture or JSON. Works at any moment.

    The page is one file without script: open it in any browser, print it, send it to somebody. A file's suffix says
    what is wanted; with several of --html, --png and --json, -o names a folder.

    \b
    Examples:
      paretune report latest
      paretune report JOB -o front.png
      paretune report JOB --trial 7 --html --png -o ./reports
      paretune report JOB --json | jq .agreement
    """
    forms = [form for form, wanted in zip(FORMS, (html, png, as_json), strict=True) if wanted] or _by_suffix(output)
    printed = as_json and output is None
    if printed and len(forms) > 1:
        raise typer.BadParameter("--json prints the report; name a folder to have it beside others", param_hint="-o")
    with connect(url, api_key, home) as client:
        identifier = job_id(client, job)
        if printed:
            print_json(_as_json(client, identifier, trial))
            return
        base = f"report-{identifier}" if trial is None else f"report-{identifier}-trial-{trial}"
        paths = _places(output, base, forms)
        for form, path in paths.items():
            content = _content(client, identifier, trial, form)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if as_json:
        print_json({"files": [{"path": str(path), "size": path.stat().st_size} for path in paths.values()]})
        return
    for path in paths.values():
        console.print(f"{path}  {format_size(path.stat().st_size)}", markup=False, soft_wrap=True)


def _by_suffix(output: Path | None) -> list[str]:
    suffix = output.suffix.removeprefix(".").lower() if output is not None and not output.is_dir() else ""
    return [suffix] if suffix in FORMS else ["html"]


def _places(output: Path | None, base: str, forms: list[str]) -> dict[str, Path]:
    """Return the file of each form: in a folder if ``output`` is one, or has no suffix, or there are several forms."""
    if output is not None and not output.is_dir() and output.suffix:
        if len(forms) > 1:
            raise typer.BadParameter(f"{output} is one file, not a folder for {len(forms)}", param_hint="-o")
        return {forms[0]: output}
    return {form: (output or Path()) / f"{base}.{form}" for form in forms}


def _content(client: Client, job: str, trial: int | None, form: str) -> bytes:
    if form == "html":
        return client.report_html(job, trial=trial).encode()
    if form == "png":
        return client.report_png(job, trial=trial)
    return json.dumps(_as_json(client, job, trial), indent=2, ensure_ascii=False).encode()


def _as_json(client: Client, job: str, trial: int | None) -> dict[str, Any]:
    return client.report(job) if trial is None else client.request("GET", f"/v1/jobs/{job}/trials/{trial}")
