"""Time and identifiers."""

import os
import time
import uuid
from datetime import UTC
from datetime import datetime


def utcnow() -> datetime:
    """Return the current time, timezone-aware, UTC."""
    return datetime.now(UTC)


def uuid7() -> str:
    """Return a time-ordered UUID (RFC 9562, version 7) as text; ``uuid.uuid7`` exists only from Python 3.14."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random >> 68 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (1 << 62) - 1
    return str(uuid.UUID(int=value))
