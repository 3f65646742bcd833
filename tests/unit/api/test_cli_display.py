"""What commands show of jobs and models, without a server."""

from datetime import UTC
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console

from paretune.cli.tables import front_table
from paretune.cli.watching import event_line
from paretune.cli.watching import fraction
from paretune.types import Event
from paretune.types import Job


def running(elapsed: float, trials: int, **request: Any) -> Job:
    """A job that has been at work for so many seconds and has tried so many candidates."""
    return Job(
        id="1",
        name=None,
        state="running",
        stage="search",
        cancel_requested=False,
        request=request,
        error=None,
        summary=None,
        created_at=datetime.now(UTC),
        started_at=datetime.now(UTC),
        finished_at=None,
        progress={"elapsed_seconds": elapsed, "trials": {"total": trials}},
    )


@pytest.mark.parametrize(
    ("budget", "recover", "elapsed", "trials", "expected"),
    [
        ({"seconds": 600, "trials": None}, None, 300, 9, 0.5),
        ({"seconds": 600, "trials": 10}, None, 300, 9, 0.9),
        ({"seconds": 600, "trials": None}, {"seconds": 1200}, 600, 9, 1 / 3),
        ({"seconds": 600, "trials": None}, {"seconds": 1200}, 1200, 9, 2 / 3),
        ({"seconds": 600, "trials": 10}, {"seconds": 1200}, 600, 10, 1 / 3),
        ({"seconds": None, "trials": 10}, {"seconds": 1200}, 600, 5, 0.5),
        ({"seconds": 600, "trials": None}, {"seconds": 1200}, 9000, 9, 0.99),
    ],
)
def test_the_bar_counts_the_time_of_the_training_too(
    budget: dict[str, Any], recover: dict[str, Any] | None, elapsed: float, trials: int, expected: float
) -> None:
    assert fraction(running(elapsed, trials, budget=budget, recover=recover)) == pytest.approx(expected)


def test_a_line_says_on_how_few_texts_a_model_was_given_up() -> None:
    payload = {"number": 7, "source": "guided", "name": None, "state": "rejected", "ratio": None, "drop": 0.125}
    told = [
        event_line(Event(id=1, kind="trial", payload=payload | changes, created_at=datetime.now(UTC)))
        for changes in ({}, {"stopped": None}, {"stopped": {"examples": 48, "of": 349}})
    ]
    whole = "trial 7 guided: rejected, not measured, drop +12.50 points"
    assert [line.split("[/] ")[1] for line in told] == [whole, whole, f"{whole} on the first 48 of 349 texts"]


def model(number: int, *, old: bool = False) -> dict[str, Any]:
    """A model as the service answers; an old service does not know the loss to be expected."""
    latency = {"speedup": {"value": 3.0, "low": 2.9, "high": 3.1}, "latency_ms": 3.3}
    quality = {"value": {"value": 0.8821}, "drop": {"value": -0.0025, "low": -0.02, "high": 0.01}, "details": {}}
    expected = {} if old else {"expected_drop": 0.0046}
    name = f"{number} layers, 68% heads, 55% FFN, int8, healed"
    return {
        "id": str(number),
        "number": number,
        "name": name,
        "latency": latency,
        "quality": quality | expected,
        "size_bytes": 19_100_000,
    }


def shown(width: int, *models: dict[str, Any], **more: Any) -> str:
    console = Console(width=width)
    front = {"job_id": "[/1]", "status": "confirmed", "objective_name": "p50 latency", "points": models}
    with console.capture() as capture:
        console.print(front_table(front | {"baselines": [], "best": None} | more, width))
    return capture.get()


def test_what_the_best_is_chosen_by_is_shown_at_any_width() -> None:
    narrow, wide = shown(80, model(6)), shown(140, model(6))
    for text in (narrow, wide):
        assert "expected" in text
        assert "+0.46" in text
        assert "[/1]" in text
    for words in ("quality", "0.8821", "19.1 MB", "…"):
        assert words in wide
        assert words not in narrow


def test_baselines_that_are_missing_are_told_below_the_table() -> None:
    note = "Nothing is held against the baseline int8_static: it failed. [/] is no markup."
    text = " ".join(shown(120, model(6), notes=[note]).split())
    assert note in text
    assert text.index("healed") < text.index(note)


@pytest.mark.parametrize("width", [80, 100, 110, 120, 135, 200])
def test_nothing_is_squeezed_out_of_the_table_of_embeddings(width: int) -> None:
    embedding = model(6)
    embedding["quality"] = embedding["quality"] | {
        "details": {"neighbour_overlap": 0.9071, "similarity_spearman": 0.9917}
    }
    text = shown(width, embedding)
    for words in ("│ 6 │", "6 layers", "expected", "+0.46"):
        assert words in text, text
    assert "┃  ┃" not in text, text
    assert "in…" not in text, text
    assert ("rank corr." in text) == (width >= 100)
    assert ("(2.90…3.10)" in text) == (width >= 135)


def test_a_flattered_reference_is_told_under_the_table() -> None:
    note = "fuses only 1 of 13 norms [of] the reference"
    assert note in shown(140, model(6), reference_note=note)
    assert "None" not in shown(140, model(6), reference_note=None)


def test_an_older_service_that_knows_no_expected_loss_is_shown_too() -> None:
    assert "+0.46" not in shown(140, model(6, old=True))
    assert "-0.25" in shown(140, model(6, old=True))
