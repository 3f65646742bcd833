"""The ``paretune`` command."""

import typer

from paretune.cli import devices
from paretune.cli import keys
from paretune.cli.again import again
from paretune.cli.backup import backup
from paretune.cli.backup import restore
from paretune.cli.best import best
from paretune.cli.doctor import doctor
from paretune.cli.jobs import cancel
from paretune.cli.jobs import jobs
from paretune.cli.jobs import priority
from paretune.cli.report import report
from paretune.cli.submit import submit
from paretune.cli.up import up
from paretune.cli.watch import watch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    help="""Compress transformers for a device, by measuring on it.

\b
  1. Start the service:     paretune up
  2. Submit a model:        paretune submit ./my-model --data dev.jsonl --max-drop 0.01 --budget 10m --watch
  3. Take the best one:     paretune best latest --format onnx -o ./best

Every command prints one JSON object with --json. Exit codes: 0 success, 1 the service or the job failed,
2 the request was wrong.
""",
)
app.command()(up)
app.command()(submit)
app.command()(again)
app.command()(watch)
app.command()(jobs)
app.command()(best)
app.command()(report)
app.command()(priority)
app.command()(cancel)
app.add_typer(devices.app, name="devices")
app.add_typer(keys.app, name="keys")
app.command()(backup)
app.command()(restore)
app.command()(doctor)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
