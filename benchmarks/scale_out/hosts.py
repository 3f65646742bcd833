"""Hosts made of network namespaces, joined by a bridge: other addresses, no shared loopback, no shared sockets."""

import os
import subprocess
from collections.abc import Sequence

SERVER = "10.213.0.1"
_BRIDGE = "ptbench0"


class Hosts:
    """Some hosts in one network with this one.

    Args:
        count: Number of hosts.

    Attributes:
        real: Whether they are network namespaces; else everything runs in the namespace of this process.
        reason: Why not.
    """

    def __init__(self, count: int) -> None:
        self.names = [f"ptbench-host{number}" for number in range(count)]
        self.real, self.reason = True, ""

    def __enter__(self) -> "Hosts":
        try:
            self._create()
        except (OSError, subprocess.CalledProcessError) as error:
            output = getattr(error, "stderr", b"") or b""
            self.real, self.reason = False, output.decode().strip() or str(error)
            self._remove()
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    @property
    def server_address(self) -> str:
        """Where database and broker listen."""
        return SERVER if self.real else "127.0.0.1"

    def command(self, host: int, command: Sequence[str]) -> list[str]:
        """Return the command that runs ``command`` on a host."""
        return ["ip", "netns", "exec", self.names[host], *command] if self.real else list(command)

    def _create(self) -> None:
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{SERVER}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        for number, name in enumerate(self.names):
            outside, inside = f"ptb{number}", f"ptc{number}"
            _ip("netns", "add", name)
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            _ip("link", "set", outside, "master", _BRIDGE, "up")
            _ip("-n", name, "addr", "add", f"10.213.0.{10 + number}/24", "dev", inside)
            _ip("-n", name, "link", "set", inside, "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def _remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, env={**os.environ, "LANG": "C"})
