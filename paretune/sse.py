"""Server-sent events, as much of the format as the service uses."""

from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One event of a stream."""

    event: str
    data: str
    id: str | None


def parse(lines: Iterable[str]) -> Iterator[Message]:
    """Parse the lines of a stream; comments and empty events are skipped."""
    event, identifier = "message", None
    data: list[str] = []
    for line in lines:
        if line == "":
            if data:
                yield Message(event, "\n".join(data), identifier)
            event, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            event = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            identifier = value
