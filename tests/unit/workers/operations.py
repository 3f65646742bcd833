"""Operations that behave as badly as the real ones might."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from infra.database.models import JsonObject
from infra.errors import InvalidModelError
from workers.runner.active_clock import ActiveClock
from workers.runner.operation import OperationContext

OPERATIONS = {
    name: f"{__name__}:{name}"
    for name in (
        "echo",
        "count",
        "environment",
        "noisy",
        "refuse",
        "break_down",
        "fill_disk",
        "not_json",
        "die",
        "crash",
        "hog",
        "hang",
        "spawn_and_hang",
        "write",
        "spin",
        "large",
        "read_stdin",
        "beat",
    )
}


def echo(arguments: JsonObject, context: OperationContext) -> JsonObject:
    for number in range(3):
        context.progress({"number": number})
    return {"echo": arguments, "role": context.role, "pid": os.getpid(), "cwd": str(Path.cwd())}


def count(_arguments: JsonObject, context: OperationContext) -> JsonObject:
    context.state["calls"] = context.state.get("calls", 0) + 1
    return {"calls": context.state["calls"], "pid": os.getpid()}


def environment(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    return {"environment": dict(os.environ), "session": os.getsid(0), "pid": os.getpid()}


def noisy(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    sys.stdout.write('{"result": "forged by print"}\n')
    sys.stdout.flush()
    os.write(1, b'{"result": "forged by write"}\n')
    subprocess.run(["echo", '{"result": "forged by a child"}'], check=True)
    return {"honest": True}


def refuse(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    raise InvalidModelError("The model is damaged.", hint="Upload it again.", errors=[{"field": "f", "message": "m"}])


def break_down(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    raise KeyError("surprise")


def fill_disk(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    Path("/dev/full").write_text("x", encoding="utf-8")
    return {}


def not_json(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    return {"value": float("nan")}


def die(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    os.kill(os.getpid(), arguments["signal"])
    time.sleep(60)
    return {}


def crash(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    ctypes.string_at(0)
    return {}


def hog(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    if arguments.get("in_child"):
        code = "import time; x = bytearray(400 * 2**20); time.sleep(60)"
        subprocess.run([sys.executable, "-c", code], check=True)
    kept = []
    while True:
        kept.append(bytearray(10 * 2**20))
        time.sleep(0.01)


def hang(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
    return {}


def spawn_and_hang(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    child = subprocess.Popen(["sleep", "3600"])
    Path(arguments["pids"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(3600)
    return {}


def write(arguments: JsonObject, context: OperationContext) -> JsonObject:
    (context.workdir / "file").write_bytes(b"x" * arguments["bytes"])
    return {}


def spin(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    while True:
        pass


def large(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    return {"text": arguments["text"] * 2}


def read_stdin(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    return {"read": sys.stdin.read()}


def beat(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Append to a file as long as the active clock has not come to an end."""
    started = time.monotonic()
    with ActiveClock() as clock, Path(arguments["path"]).open("ab", buffering=0) as file:
        while clock() < arguments["seconds"]:
            file.write(b".")
            time.sleep(0.05)
    return {"active": clock(), "passed": time.monotonic() - started}
