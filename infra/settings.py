"""Every setting of the service, read once from ``PARETUNE_*`` variables and handed down from there."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from urllib.parse import quote

from pydantic import Field
from pydantic import field_validator
from pydantic_settings import BaseSettings
from pydantic_settings import SettingsConfigDict

from infra.cgroup import memory_limit

_MIB = 1024**2
_GIB = 1024**3
_LONGEST_SOCKET_PATH = 100
"""Unix socket addresses hold 107 bytes; some are left for the temporary names that servers append."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


def broker_socket(home: Path) -> Path:
    """Return where the embedded broker of ``home`` listens: in the home, or in a short path if that is too long."""
    inside = home / "run" / "valkey.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"paretune-{os.getuid()}-{digest}" / "valkey.sock"


def _default_database(values: dict[str, Any]) -> str:
    home: Path = values["home"]
    return f"sqlite:///{home / 'paretune.db'}"


def embedded_broker_url(home: Path) -> str:
    """Return the URL of the embedded broker of ``home``."""
    return f"redis+socket://{quote(str(broker_socket(home)))}?virtual_host=0"


def _default_broker(values: dict[str, Any]) -> str:
    return embedded_broker_url(values["home"])


def _default_store(values: dict[str, Any]) -> str:
    home: Path = values["home"]
    return (home / "blobs").as_uri()


def _most_of_memory() -> int:
    """Three quarters of what this machine has, or of what its container may use: the rest is for the worker itself."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, memory_limit() or machine) * 3 // 4


class Settings(BaseSettings):
    """Settings of one installation; immutable.

    A field ``name`` is set by the variable ``PARETUNE_NAME``. The defaults describe the embedded service; the scaled
    out service sets ``database_url``, ``broker_url`` and ``store_url``.
    """

    model_config = SettingsConfigDict(env_prefix="PARETUNE_", frozen=True, extra="ignore")

    home: Path = Path("~/.paretune")
    """Everything that this machine keeps: database, blobs, logs, work directories, API key."""
    embedded: bool = False
    """Set by ``paretune up``: all processes of the service run on this host under one supervisor."""

    database_url: str = Field(default_factory=_default_database, repr=False)
    """SQLAlchemy URL: ``sqlite:///...`` or ``postgresql://...``."""
    broker_url: str = Field(default_factory=_default_broker, repr=False)
    """``redis://``, ``rediss://`` or ``redis+socket://`` URL of a Redis or Valkey server."""
    store_url: str = Field(default_factory=_default_store, repr=False)
    """``file://`` directory, or ``s3://bucket/prefix``, ``gs://...``, ``az://...`` (credentials: environment)."""

    log_format: Literal["text", "json"] = "text"
    """Form of the log: lines to read, or one JSON object a line with the ids of job, trial, step and request."""

    tracing: bool = False
    """Whether requests and steps are traced with OpenTelemetry (extra ``otel``; collector: ``OTEL_*`` variables)."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8765
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Values of the ``Host`` header that the API answers to; ``*`` answers to all."""
    allow_server_paths: bool = False
    """Whether a model may be registered by a path on the server's disk."""
    max_json_bytes: Count = 1 * _MIB
    max_upload_bytes: Count = 20 * _GIB
    """Largest single uploaded file."""

    requests_per_minute: Count = 6000
    """Requests that one API key may send to all API processes together; more are answered with 429. While the broker is
    away, each process counts for itself."""
    max_active_jobs: Count = 100
    """Queued and running jobs of one API key."""

    lease_seconds: Seconds = 60.0
    """How long a worker owns a step without a heartbeat; it renews three times as often."""
    retry_seconds: Seconds = 2.0
    """Delay before the second attempt of a step; it doubles with every further attempt."""
    step_timeout_seconds: Seconds = 3600.0
    """Longest time that one call of a runner may take, unless the stage says otherwise."""
    shutdown_seconds: Seconds = 5.0
    """How long a worker that is told to stop waits for its step before it hands the step back."""
    trials_in_flight: Annotated[int, Field(ge=1)] = 2
    """Trials of one job that are worked on at a time; as many workers a job can use."""
    turn_seconds: Annotated[float, Field(ge=0)] = 20.0
    """How long a worker stays with a job, whose model it has loaded, before other jobs of the same priority get their
    turn."""

    graph_seconds: Annotated[float, Field(ge=0)] = 20.0
    """Longest time that equivalent graphs race for the device's best one, once for each kind of model, device and
    workload; 0: never, the graphs that are usually best are used."""
    measure_seconds: Seconds = 20.0
    """Longest time to measure one candidate during the search; narrow intervals usually take a fraction of it."""
    confirm_seconds: Seconds = 60.0
    """Longest time that the finalists race in each of the fresh processes."""

    runner_memory_bytes: Count = Field(default_factory=_most_of_memory)
    """Resident memory of a runner and its children; above it the runner is killed."""
    runner_cpu_seconds: Count = 24 * 3600
    runner_file_bytes: Count = 20 * _GIB
    """Largest file that a runner may write."""
    runner_processes: Count = 4096
    """Processes and threads of a runner; where it does not run as root, of its user."""
    runner_threads: Annotated[int, Field(ge=0)] = 0
    """Threads for numerics in a ``compute`` runner; 0 means one for every core that it may use. Give each of several
    compute workers of a host its share of them."""
    runner_idle_seconds: Seconds = 120.0
    """A runner that nobody called for this long is closed."""
    runner_isolate_network: bool = True
    """Start runners without network where the kernel allows it."""
    runner_isolate_files: bool = True
    """Let runners see only libraries and their own work directory, where the kernel has Landlock."""
    runner_filter_system_calls: bool = True
    """Keep system calls from runners that computing does not need (seccomp)."""
    runner_readable: tuple[Path, ...] = ()
    """More files and directories that runners may read, such as the libraries of a profiler plugin."""

    host_lock_directory: Path = Path(tempfile.gettempdir())
    """Where the lock lies that keeps computing away from measuring; the same for all services of a host."""
    blob_grace_seconds: Seconds = 24 * 3600.0
    """Blobs younger than this are never collected."""
    retain_jobs_seconds: Seconds | None = None
    """Jobs that ended longer ago than this are deleted, with their trials, events and exports; by default none is."""
    retain_events_seconds: Seconds | None = None
    """Progress and notices of jobs that ended longer ago than this are deleted; by default none are."""
    retain_shared_seconds: Seconds = 30 * 24 * 3600.0
    """Calibrations and option databases that no job has used for this long are deleted; they go at once when nobody has
    their model or data any more."""
    retain_uploads_seconds: Seconds = 24 * 3600.0
    """Uploads that were begun longer ago than this and never completed are deleted."""
    retain_audit_seconds: Seconds | None = None
    """Entries of the audit log that are older than this are deleted; by default none is."""
    maintenance_seconds: Seconds = 1.0
    """Interval of the maintenance loop."""
    devices: tuple[str, ...] = ("local-cpu", "local-openvino", "local-cuda")
    """Names of the devices whose queue the device worker of this host serves."""

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def api_key_file(self) -> Path:
        """The key that the embedded service generated, readable by its user only."""
        return self.home / "api-key"

    @property
    def url_file(self) -> Path:
        """One line: the URL at which the embedded service of this home answers; absent when it is down."""
        return self.home / "url"

    @property
    def logs(self) -> Path:
        """Directory of the log files of the embedded service."""
        return self.home / "logs"

    @property
    def work(self) -> Path:
        """Directory of the work directories, one for each job."""
        return self.home / "work"

    def environment(self) -> dict[str, str]:
        """Return the ``PARETUNE_*`` variables that give a child process these settings."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {
            f"PARETUNE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
        }


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; keyword arguments win over it.

    Raises:
        pydantic.ValidationError: A variable has a value that is not allowed.
    """
    return Settings(**overrides)
