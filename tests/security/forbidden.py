"""What code that got into a runner might try; each operation says how far it came."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from infra.json_types import JsonObject
from workers.runner.operation import OperationContext

OPERATIONS = {
    name: f"{__name__}:{name}"
    for name in (
        "read",
        "write",
        "run_file",
        "connect",
        "connect_unix",
        "listen_as_cuda",
        "name_thread",
        "call_kernel",
        "new_namespace",
        "signal_process",
        "open_device",
        "limits",
        "start_threads",
        "compute",
        "run_model",
        "link",
    )
}


def _told(error: OSError) -> JsonObject:
    return {"refused": os.strerror(error.errno or 0)}


def read(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        return {"content": Path(arguments["path"]).read_bytes()[:10_000].decode(errors="replace")}
    except OSError as error:
        return _told(error)


def write(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        Path(arguments["path"]).write_text("changed")
    except OSError as error:
        return _told(error)
    return {"written": True}


def run_file(arguments: JsonObject, context: OperationContext) -> JsonObject:
    program = context.workdir / "program"
    program.write_bytes(Path(arguments["program"]).read_bytes())
    program.chmod(0o700)
    try:
        return {"status": subprocess.run([program], check=False).returncode}
    except OSError as error:
        return _told(error)


def connect(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        socket.create_connection(("127.0.0.1", arguments["port"]), timeout=2).close()
    except OSError as error:
        return _told(error)
    return {"connected": True}


def connect_unix(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(arguments["path"])
    except OSError as error:
        return _told(error)
    return {"connected": True}


def listen_as_cuda(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """As CUDA does while it starts."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as server:
            server.bind(f"\0cuda-uvmfd-{os.getpid()}")
            server.listen()
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                try:
                    client.connect(f"\0cuda-uvmfd-{os.getpid()}")
                except OSError as error:
                    return {"listening": True} | _told(error)
    except OSError as error:
        return _told(error)
    return {"listening": True, "connected": True}


def name_thread(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """As CUDA does while it starts."""
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("cuda")
    except OSError as error:
        return _told(error)
    return {"written": True}


def call_kernel(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(arguments["number"]), 0, 0, 0, 0, 0, 0)
    return {"result": result, "refused": os.strerror(ctypes.get_errno()) if result < 0 else ""}


def new_namespace(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Through clone(2), which a filter cannot forbid as a whole: threads and processes are made by it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user_namespace = 0x10000000
    child = libc.syscall(ctypes.c_long(56), ctypes.c_ulong(user_namespace | signal.SIGCHLD), 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    if child < 0:
        return {"refused": os.strerror(ctypes.get_errno())}
    os.waitpid(child, 0)
    return {"made": True}


def signal_process(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        os.kill(arguments["pid"], 0)
    except OSError as error:
        return _told(error)
    return {"reached": True}


def open_device(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        os.close(os.open(arguments["path"], os.O_RDWR))
    except OSError as error:
        return _told(error)
    return {"opened": True}


def limits(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "processes": resource.getrlimit(resource.RLIMIT_NPROC),
        "capabilities": int(fields["CapEff"], 16) | int(fields["CapBnd"], 16) | int(fields["CapInh"], 16),
        "no_new_privileges": fields["NoNewPrivs"],
        "filter": fields["Seccomp"],
    }


def start_threads(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    for _ in range(arguments["count"]):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    time.sleep(60)
    return {}


def compute(_arguments: JsonObject, context: OperationContext) -> JsonObject:
    """What honest work does: libraries, temporary files, child processes, threads, semaphores."""
    code = (
        "import multiprocessing, tempfile, numpy, onnxruntime\n"
        "multiprocessing.Lock()\n"
        "tempfile.NamedTemporaryFile().write(b'x')\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "print(sum(ThreadPoolExecutor(4).map(int, '1234')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    (context.workdir / "result").write_text(done.stdout)
    (context.workdir / "result").rename(context.workdir / "moved")
    return {"output": done.stdout + done.stderr}


def run_model(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    import numpy as np
    import onnxruntime

    path = Path(arguments["path"])
    try:
        session = onnxruntime.InferenceSession(path.read_bytes() if arguments["from_bytes"] else path)
        output = session.run(None, {"x": np.zeros(4, np.float32)})[0]
    except Exception as error:  # the runtime has no common error but Exception
        return {"refused": str(error), "output": None}
    return {"output": output.tobytes().hex()}


def link(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    try:
        os.link(arguments["source"], arguments["target"])
    except OSError as error:
        return _told(error)
    return {"linked": True}
