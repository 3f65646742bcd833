"""Every line of the log says what it is about."""

import json
import logging
import subprocess
import sys

from infra.log import JsonFormatter
from infra.log import log_context


def entry(message: str, *arguments: object, **options: object) -> dict[str, object]:
    record = logging.getLogger("paretune.test").makeRecord(
        "paretune.test", logging.WARNING, __file__, 1, message, arguments, options.get("exc_info")
    )
    parsed: dict[str, object] = json.loads(JsonFormatter().format(record))
    return parsed


def test_entries_carry_the_ids_of_the_context() -> None:
    assert "job_id" not in entry("outside")
    with log_context(job_id="j", trial_id=None):
        with log_context(step_id="s"):
            inner = entry("said %s", "so")
        outer = entry("outer")
    assert (inner["message"], inner["level"], inner["job_id"], inner["step_id"]) == ("said so", "warning", "j", "s")
    assert "trial_id" not in inner
    assert "step_id" not in outer
    assert "job_id" not in entry("outside again")


def test_an_exception_is_one_line() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        text = JsonFormatter().format(logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info()))
    assert "\n" not in text
    assert "ValueError: first" in json.loads(text)["exception"]


def test_every_line_of_a_process_is_an_object() -> None:
    code = (
        "import logging; from infra.log import configure_logging; configure_logging('json');"
        "logging.getLogger('a').info('one\\ntwo'); logging.getLogger('uvicorn.access').info('%s', 3)"
    )
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one\ntwo", "3"]
