"""Options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

_CONNECTION = "Connection"

Url = Annotated[
    str | None,
    typer.Option("--url", help="Where the service is. Also PARETUNE_URL.", rich_help_panel=_CONNECTION),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="prefix.secret. Also PARETUNE_API_KEY.", rich_help_panel=_CONNECTION),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Directory of the embedded service. Also PARETUNE_HOME.", rich_help_panel=_CONNECTION),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, or `latest`.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        min=0.0,
        max=1.0,
        help="Largest loss of quality; 0.01 is one point of accuracy, or a mean cosine of 0.99 for embeddings.",
        metavar="FRACTION",
    ),
]
MaxLatency = Annotated[
    float | None, typer.Option("--max-latency", min=0.0, help="Latency ceiling in milliseconds.", metavar="MS")
]
MaxSize = Annotated[
    float | None,
    typer.Option("--max-size", min=0.0, help="Largest stored size, in millions of bytes.", metavar="MB"),
]
