"""``paretune doctor``: finds the usual mistakes."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.output import FAILED
from paretune.cli.output import console
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.client import Client
from paretune.errors import ApiError

_CHECKUP_SECONDS = 120
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}
_CPU_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warning", "problem"]
    detail: str
    hint: str = ""


@reported
def doctor(
    as_json: options.Json = False,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Look at this machine and at the service, and say what to do about each problem. Exit code 1 if there is one.

    On the machine of the service: home, API key file, port, database, broker, store, cores and their load, memory,
    clock, device backends, and which layers of the sandbox around runners this kernel gives. Then what the running
    service says.

    \b
    Examples:
      paretune doctor
      paretune doctor --home ./work --json
    """
    with connect(url, api_key, home) as client:
        findings = [*_machine(client), *_service(client)]
    broken = any(finding.status == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not broken, "checks": [asdict(finding) for finding in findings]})
    else:
        marks = {"ok": "[green]ok[/]      ", "warning": "[yellow]warning[/] ", "problem": "[red]problem[/] "}
        for finding in findings:
            console.print(f"{marks[finding.status]} {escape(f'{finding.name}: {finding.detail}')}", soft_wrap=True)
            if finding.hint:
                console.print(f"          {escape(finding.hint)}", soft_wrap=True)
    if broken:
        raise typer.Exit(FAILED)


def _machine(client: Client) -> Iterator[Finding]:
    version = platform.python_version()
    supported = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if supported else "problem", version, "" if supported else "Use Python 3.11 or newer.")
    yield _processor()
    if urlsplit(client.config.url).hostname in _THIS_MACHINE:
        yield from _host(client.config.home)


def _host(home: Path) -> Iterator[Finding]:
    """What the service itself finds out about its host; it has the libraries for that, the client has not."""
    environment = os.environ | {"PARETUNE_HOME": str(home)}
    command = [sys.executable, "-m", "workers.checkup"]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_CHECKUP_SECONDS
        )
        yield from (Finding(**finding) for finding in json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError) as error:
        hint = "Run python -m workers.checkup to see why."
        yield Finding("host", "problem", f"cannot be examined: {type(error).__name__}", hint)


def _processor() -> Finding:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return Finding("processor", "warning", platform.processor() or platform.machine())
    flags = set(next((line.split(":")[1] for line in text.splitlines() if line.startswith("flags")), "").split())
    found = [flag for flag in _CPU_FLAGS if flag in flags]
    fast = any("vnni" in flag or "amx" in flag for flag in found)
    hint = "" if fast else "No instructions for int8 (VNNI, AMX): expect less from quantisation."
    return Finding("processor", "ok" if fast else "warning", ", ".join(found) or platform.machine(), hint)


def _service(client: Client) -> Iterator[Finding]:
    config = client.config
    yield Finding("url", "ok", f"{config.url} (from {config.url_source})")
    checks: tuple[Callable[[Client], Iterator[Finding]], ...] = (_health, _key, _devices)
    for check in checks:
        try:
            yield from check(client)
        except ApiError as error:
            yield Finding(check.__name__.strip("_"), "problem", error.detail, error.hint)
            if error.status in {0, 401}:
                return


def _health(client: Client) -> Iterator[Finding]:
    live = client.request("GET", "/health/live")
    yield Finding("service", "ok", f"version {live['version']} answers")
    try:
        ready = client.request("GET", "/health/ready", attempts=1)
    except ApiError as error:
        if "checks" not in error.body:
            yield Finding("ready", "problem", error.detail, "Look at the service's log.")
            return
        ready = error.body
    for check in ready["checks"]:
        yield Finding(
            f"service {check['name']}",
            "ok" if check["ok"] else "problem",
            check["detail"],
            "" if check["ok"] else "Look at the service's log.",
        )


def _key(client: Client) -> Iterator[Finding]:
    own = client.request("GET", "/v1/keys/me")
    yield Finding(
        "key", "ok", f"{own['name']}, scopes {', '.join(own['scopes'])} (from {client.config.api_key_source})"
    )


def _devices(client: Client) -> Iterator[Finding]:
    found = client.devices()
    if not found:
        yield Finding("devices", "problem", "none registered", "paretune devices add local-cpu --profiler onnxruntime")
    for device in found:
        capabilities = device.capabilities
        if not capabilities:
            hint = f"Start one for the queue device.{device.name}: docs/guides/devices.md."
            yield Finding(f"device {device.name}", "warning", "no worker has looked at it yet", hint)
        elif not capabilities.get("available"):
            yield Finding(f"device {device.name}", "warning", "not available", str(capabilities.get("reason", "")))
        else:
            yield Finding(f"device {device.name}", "ok", device.profiler)
