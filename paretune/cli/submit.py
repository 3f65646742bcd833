"""``paretune submit``."""

from pathlib import Path
from typing import Annotated
from typing import Any
from typing import get_args

import typer
from rich.markup import escape
from rich.progress import BarColumn
from rich.progress import DownloadColumn
from rich.progress import Progress
from rich.progress import TextColumn

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.durations import budget_duration
from paretune.cli.output import FAILED
from paretune.cli.output import console
from paretune.cli.output import errors
from paretune.cli.output import fail
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.cli.tables import front_table
from paretune.cli.watching import watch_job
from paretune.client import Client
from paretune.client import job_failure
from paretune.errors import ApiError
from paretune.types import Job

_DATA, _GOAL, _SEARCH, _WORKLOAD = "Data", "Goal and budget", "Search", "Workload"


@reported
def submit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or the id of an uploaded model.")],
    data: Annotated[
        str,
        typer.Option(
            help="Evaluation examples: JSONL, CSV, Parquet, or a dataset's id.", metavar="FILE", rich_help_panel=_DATA
        ),
    ],
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Unlabelled text for calibration; default: a part of --data.", metavar="FILE", rich_help_panel=_DATA
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            help="Text for --recover, with or without labels; default: the calibration text.",
            metavar="FILE",
            rich_help_panel=_DATA,
        ),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Default: text.", rich_help_panel=_DATA)] = None,
    second_text_column: Annotated[
        str | None, typer.Option(help="For pairs of sentences.", rich_help_panel=_DATA)
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Default: label, if the data has it.", rich_help_panel=_DATA)
    ] = None,
    task: Annotated[options.Task, typer.Option(help="What the model does.")] = "sequence-classification",
    device: Annotated[str, typer.Option(help="Name of a registered device: `paretune devices`.")] = "local-cpu",
    max_drop: options.MaxDrop = None,
    max_latency: options.MaxLatency = None,
    max_size: options.MaxSize = None,
    objective: Annotated[
        options.Objective,
        typer.Option(
            help="What to make small: p50, p90 or p99 latency, the mean time (throughput), or peak_memory.",
            rich_help_panel=_GOAL,
        ),
    ] = "p50",
    budget: Annotated[
        float | None,
        typer.Option(
            help="Time for the whole job, such as 10m.",
            metavar="DURATION",
            parser=budget_duration,
            rich_help_panel=_GOAL,
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Limit of tried candidates.", rich_help_panel=_GOAL)
    ] = None,
    recover: Annotated[
        float | None,
        typer.Option(
            help="Time for recovery training after the search, such as 20m; on top of --budget.",
            metavar="DURATION",
            parser=budget_duration,
            rich_help_panel=_GOAL,
        ),
    ] = None,
    recover_mode: Annotated[
        options.RecoverMode | None,
        typer.Option(
            help="race (default) or gradual: a family of models, each cut from the last.", rich_help_panel=_GOAL
        ),
    ] = None,
    ignore_labels: Annotated[
        bool, typer.Option("--ignore-labels", help="Train with --recover on the text alone.", rich_help_panel=_GOAL)
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            help="Without --recover: spend part of the budget on fitting faster shapes to the dense model.",
            rich_help_panel=_GOAL,
        ),
    ] = True,
    batch: Annotated[int | None, typer.Option(min=1, max=1024, help="Default: 1.", rich_help_panel=_WORKLOAD)] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, max=8192, help="Default: 128.", rich_help_panel=_WORKLOAD)
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="Default: 1.", rich_help_panel=_WORKLOAD)] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Comma-separated: heads,ffn,depth,rank,sparsity,bits.", rich_help_panel=_SEARCH)
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            help="Integer formats, comma-separated: int8_dynamic,int8_static,int8_weights,int4_weights. "
            "Default: the device's best, and the others on the most promising shapes.",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    strategy: Annotated[options.Strategy | None, typer.Option(help="Default: guided.", rich_help_panel=_SEARCH)] = None,
    sampler: Annotated[options.Sampler | None, typer.Option(help="Default: tpe.", rich_help_panel=_SEARCH)] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.", rich_help_panel=_SEARCH)] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=9, help="9 is served first, before the fair sharing. Default: 5.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the progress and wait for the end.")] = False,
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Upload a model and its data, and start a job that looks for its fastest good versions.

    \b
    Examples:
      paretune submit ./my-model --data dev.jsonl --max-drop 0.01 --budget 10m --watch
      paretune submit ./my-model --data dev.jsonl --max-drop 0.01 --recover 20m --train train.jsonl
      paretune submit ./my-model --data dev.jsonl --max-drop 0.01 --objective p99 --batch 8
      paretune submit ./my-model --data dev.jsonl --max-latency 5 --max-size 20
      paretune submit ./embedder --data texts.jsonl --task embedding --device local-openvino
      JOB=$(paretune submit ./my-model --data dev.csv --label-column stars --json | jq -r .id)
    """
    options.check_goal(max_drop, max_latency, max_size)
    training = _recover(recover, recover_mode, ignore_labels=ignore_labels, train=train)
    _require_files(data, calibration, train)
    columns = {"text_column": text_column, "second_text_column": second_text_column, "label_column": label_column}
    workload = {"batch": batch, "sequence_length": sequence_length, "threads": threads}
    fields: dict[str, Any] = {"strategy": strategy, "sampler": sampler, "seed": seed, "name": name}
    fields |= {"priority": priority, "columns": _given(columns), "workload": _given(workload)}
    if not repair:
        fields["repair_share"] = 0
    kinds_given = options.parse_list(kinds, "--kinds", get_args(options.Kind))
    formats_given = options.parse_list(formats, "--formats", get_args(options.IntegerFormat))
    fields["space"] = _given({"kinds": kinds_given, "formats": formats_given})
    with connect(url, api_key, home) as client:
        job = client.submit(
            _model_id(client, model, quiet=as_json),
            _dataset_id(client, data),
            calibration=_dataset_id(client, calibration) if calibration else None,
            train=_dataset_id(client, train) if train else None,
            task=task,
            device=device,
            max_drop=max_drop,
            max_latency_ms=max_latency,
            max_size_mb=max_size,
            objective=objective,
            budget_seconds=budget,
            budget_trials=trials,
            recover=training,
            **_given(fields),
        )
        hint = f"Follow it:      paretune watch {job.id}\nBest so far:    paretune best {job.id}"
        show_started(client, job, hint, watch=watch, as_json=as_json)


def show_started(client: Client, job: Job, hint: str, *, watch: bool, as_json: bool) -> None:
    """Say that a job was started, and follow it to its end or say how to."""
    if not as_json:
        console.print(f"Job [bold]{escape(job.id)}[/] is {escape(job.state)}.")
    if watch:
        job = finish(client, job, as_json=as_json)
    if as_json:
        print_json(job)
    elif not watch:
        console.print(escape(hint))


def finish(client: Client, job: Job, *, as_json: bool) -> Job:
    """Follow a job to its end; an end without success ends the command with exit code 1."""
    if as_json:
        for _event in client.watch(job):
            pass
        job = client.job(job)
    else:
        job = watch_job(client, job.id, console)
        front = client.front(job)
        if front["points"] or front["baselines"]:
            console.print(front_table(front, console.width))
    if job.state != "succeeded":
        if as_json:
            print_json(job)
            raise typer.Exit(FAILED)
        fail(job_failure(job), as_json=False)
    if not as_json and job.best:
        console.print(escape(job.best["message"]))
        console.print(escape(f"Download:  paretune best {job.id} --format onnx -o DIR"))
    return job


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != {}}


def _is_id(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4 and not Path(text).exists()


def _model_id(client: Client, model: str, *, quiet: bool) -> str:
    if _is_id(model):
        return model
    columns = (TextColumn("Uploading {task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=errors, transient=True, disable=quiet) as bar:
        task = bar.add_task(escape(Path(model).name), total=None)
        return client.upload_model(model, progress=lambda sent, total: bar.update(task, completed=sent, total=total)).id


def _dataset_id(client: Client, data: str) -> str:
    return data if _is_id(data) else client.upload_dataset(data).id


def _require_files(*texts: str | None) -> None:
    """Raise an error for the first that is neither a file nor an id, before anything is uploaded."""
    for text in texts:
        if text is not None and not _is_id(text) and not Path(text).is_file():
            hint = "Give a JSONL, CSV or Parquet file, or the id of a dataset."
            raise ApiError(f"{text} is not a file.", hint=hint, code="invalid-dataset")


def _recover(
    seconds: float | None, mode: str | None, *, ignore_labels: bool, train: str | None
) -> dict[str, Any] | None:
    if seconds is None:
        needed = {"--recover-mode": mode is not None, "--ignore-labels": ignore_labels, "--train": train is not None}
        for option, given in needed.items():
            if given:
                raise typer.BadParameter("it needs a time for training: give --recover 20m as well", param_hint=option)
        return None
    return {"seconds": seconds, "use_labels": not ignore_labels} | _given({"mode": mode})
