"""Why a runner has to end, or has ended, in words."""

import signal
import time

import psutil

from infra.errors import RunnerError

_CHILDREN_SECONDS = 2.0
_GIB = 1024**3
_SMALLER = "Use a smaller model or a smaller batch, or a machine with more memory."

_CAUSES: dict[int, tuple[str, str]] = {
    signal.SIGKILL: ("was killed, probably by the kernel because the machine ran out of memory", _SMALLER),
    signal.SIGTERM: ("was told to stop by somebody else", ""),
    signal.SIGSEGV: ("crashed in a library (segmentation fault)", "The worker's log has the details."),
    signal.SIGBUS: ("crashed (bus error): a mapped file was cut short or the disk is full", "Look at the disk."),
    signal.SIGABRT: ("was aborted by a library", "The worker's log has the details."),
    signal.SIGILL: ("met an instruction that this CPU does not have", "A library was built for another CPU."),
    signal.SIGFPE: ("crashed in a library (arithmetic error)", "The worker's log has the details."),
    signal.SIGXCPU: ("used up its CPU time", "Use a smaller model, or raise PARETUNE_RUNNER_CPU_SECONDS."),
    signal.SIGSYS: ("made a system call that is not allowed", ""),
}


class Watchdog:
    """Watches a process and its children: their resident memory and their number.

    Limits on address space would not do: CUDA and memory-mapped weights reserve far more of it than they use. The
    kernel's limit on processes would not do alone: it does not hold for root.

    Args:
        pid: The process.
        memory: Bytes that all of them may use together.
        processes: How many of them there may be, their threads counted.
    """

    def __init__(self, pid: int, memory: int, processes: int) -> None:
        self._process = psutil.Process(pid)
        self._memory = memory
        self._processes = processes
        self._children: list[psutil.Process] = []
        self._looked_at = 0.0

    def check(self) -> None:
        """Return if all is well.

        Raises:
            RunnerError: Too much memory is in use, or there are too many processes and threads.
        """
        now = time.monotonic()
        if now - self._looked_at > _CHILDREN_SECONDS:
            self._looked_at = now
            self._children = _children(self._process)
            if sum(_threads(process) for process in [self._process, *self._children]) > self._processes:
                raise RunnerError(
                    f"The work started more than the {self._processes} processes and threads that it may have.",
                    hint="The limit is PARETUNE_RUNNER_PROCESSES.",
                )
        used = sum(_resident(process) for process in [self._process, *self._children])
        if used > self._memory:
            raise RunnerError(
                f"The work needed more than the {self._memory / _GIB:.1f} GiB of memory that it may use.",
                hint=f"{_SMALLER} The limit is PARETUNE_RUNNER_MEMORY_BYTES.",
            )


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _threads(process: psutil.Process) -> int:
    try:
        return int(process.num_threads())
    except psutil.NoSuchProcess:
        return 0


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def describe_exit(operation: str, code: int) -> RunnerError:
    """Say why a runner ended in the middle of an operation.

    Args:
        operation: What it was doing.
        code: Exit status as ``subprocess`` gives it: negative for a signal.
    """
    if code >= 0:
        return RunnerError(
            f"The runner ended with exit status {code} during {operation!r}.",
            hint="The worker's log has the details.",
        )
    cause, hint = _CAUSES.get(-code, ("was ended by a signal", "The worker's log has the details."))
    return RunnerError(f"The runner {cause} during {operation!r} ({_name(-code)}).", hint=hint)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
