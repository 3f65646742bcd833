"""JSON lines through the pipes of a child process, without ever waiting for a child that hangs."""

import json
import os
import selectors
import subprocess
from typing import cast

from infra.errors import RunnerError
from infra.json_types import JsonObject

_READ_BYTES = 1024 * 1024
_LONGEST_MESSAGE = 256 * 1024 * 1024


class Channel:
    """The parent's ends of the two pipes.

    Args:
        process: Started with ``stdin`` and ``stdout`` as pipes.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._input = process.stdin
        self._output = process.stdout
        self._unsent = b""
        self._unread = bytearray()
        self.ended = False
        """Whether the child has closed its end."""
        os.set_blocking(self._input.fileno(), False)
        os.set_blocking(self._output.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)

    def send(self, message: JsonObject) -> None:
        """Queue a message; it is written while :meth:`receive` waits.

        Raises:
            RunnerError: The message is not JSON.
        """
        try:
            text = json.dumps(message, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RunnerError(f"These arguments are not JSON: {error}.") from error
        self._unsent += text.encode() + b"\n"
        self._selector.register(self._input, selectors.EVENT_WRITE)

    def receive(self, timeout: float) -> list[JsonObject]:
        """Return the messages that arrive within ``timeout`` seconds, as soon as there is one.

        Raises:
            RunnerError: What arrived is no message, or is too long for one.
        """
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._input:
                self._write()
            else:
                self._read()
        *lines, rest = self._unread.split(b"\n")
        self._unread = rest
        if len(rest) > _LONGEST_MESSAGE:
            raise RunnerError("The runner sent a message that is too long.")
        return [_parse(line) for line in lines]

    def close(self) -> None:
        """Close both ends."""
        self._selector.close()
        self._output.close()
        self._unsent = b""
        try:
            self._input.close()
        except BrokenPipeError:
            return

    def _write(self) -> None:
        try:
            written = os.write(self._input.fileno(), self._unsent)
        except BrokenPipeError:
            written = len(self._unsent)  # the child is gone; reading will tell
        self._unsent = self._unsent[written:]
        if not self._unsent:
            self._selector.unregister(self._input)

    def _read(self) -> None:
        data = os.read(self._output.fileno(), _READ_BYTES)
        self._unread += data
        if not data:
            self.ended = True
            self._selector.unregister(self._output)


def _parse(line: bytes | bytearray) -> JsonObject:
    try:
        message = json.loads(line)
    except ValueError:
        raise RunnerError("The runner sent something that is not a message.") from None
    if not isinstance(message, dict):
        raise RunnerError("The runner sent something that is not a message.")
    return cast("JsonObject", message)
