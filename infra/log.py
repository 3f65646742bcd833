"""Logging of the service's processes: one line an entry, to stderr, as text or as JSON.

Whoever works on something says so with :func:`log_context`; every entry of that thread then carries the ids.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC
from datetime import datetime
from typing import Literal

Format = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)-7s %(processName)s[%(process)d] %(name)s: %(message)s"
_context: ContextVar[dict[str, str] | None] = ContextVar("log_context", default=None)


@contextmanager
def log_context(**ids: str | None) -> Iterator[None]:
    """Add ids, such as ``job_id`` and ``trial_id``, to every entry of this thread or task within the block."""
    given = {name: value for name, value in ids.items() if value is not None}
    token = _context.set((_context.get() or {}) | given)
    try:
        yield
    finally:
        _context.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object an entry: ``time``, ``level``, ``logger``, ``process``, ``message``, ids, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **(_context.get() or {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(style: Format = "text", level: int = logging.INFO) -> None:
    """Send the log of this process to stderr; calling it again changes nothing.

    Args:
        style: ``json`` also takes over the loggers of uvicorn, so that every line is an object.
        level: Least level that is written.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else logging.Formatter(_TEXT))
    root.addHandler(handler)
    root.setLevel(level)
    if style == "json":
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
