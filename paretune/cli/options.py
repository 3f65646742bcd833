"""Options that commands share."""

import math
from pathlib import Path
from typing import Annotated
from typing import Literal

import typer

_CONNECTION = "Connection"

Task = Literal["sequence-classification", "embedding"]
Objective = Literal["p50", "p90", "p99", "throughput", "peak_memory"]
RecoverMode = Literal["race", "gradual"]
Strategy = Literal["guided", "direct", "random"]
Sampler = Literal["tpe", "nsga2", "gp", "random"]
Kind = Literal["heads", "ffn", "depth", "rank", "sparsity", "bits"]
IntegerFormat = Literal["int8_dynamic", "int8_static", "int8_weights", "int4_weights"]
"""Values that the service takes; a test compares them with its own."""

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


def check_goal(max_drop: float | None, max_latency: float | None, max_size: float | None) -> None:
    """Refuse goals that contradict each other or that nothing reaches.

    Raises:
        typer.BadParameter: With the option to change.
    """
    if max_drop is not None and max_latency is not None:
        raise typer.BadParameter("give one of --max-drop and --max-latency, not both", param_hint="--max-latency")
    for option, value in {"--max-latency": max_latency, "--max-size": max_size}.items():
        if value is not None and not 0 < value < math.inf:
            raise typer.BadParameter("give more than 0, and a finite number", param_hint=option)


def parse_list(text: str | None, option: str, allowed: tuple[str, ...]) -> list[str] | None:
    """Split comma-separated names.

    Raises:
        typer.BadParameter: One is not among the allowed ones, or there is none.
    """
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [name for name in names if name not in allowed]
    if wrong or not names:
        unknown = f"{wrong[0]!r} is not one of them" if wrong else "there is none"
        raise typer.BadParameter(f"{unknown}; choose from {', '.join(allowed)}", param_hint=option)
    return names
