"""The Python SDK: everything that the service can do, over HTTP."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from pathlib import PurePosixPath
from typing import Any
from typing import Literal

import httpx

from paretune import config
from paretune import sse
from paretune.downloading import fetch
from paretune.errors import ApiError
from paretune.errors import JobFailedError
from paretune.outage import Outage
from paretune.outage import poll
from paretune.transport import JsonObject
from paretune.transport import Transport
from paretune.types import Dataset
from paretune.types import Device
from paretune.types import Event
from paretune.types import Export
from paretune.types import Job
from paretune.types import Key
from paretune.types import Model
from paretune.uploading import LARGE_BYTES
from paretune.uploading import Progress
from paretune.uploading import Sender
from paretune.uploading import complete
from paretune.uploading import model_files

Format = Literal["onnx", "torch"]

_STREAM_SILENCE_SECONDS = 45.0
"""The service sends something at least every 15 seconds; after this much silence the connection is dead."""
_RECONNECT_SECONDS = 1.0


class Client:
    """A connection to a Paretune service.

    Example::

        with paretune.Client() as client:
            model = client.upload_model("./my-model")
            data = client.upload_dataset("dev.jsonl")
            job = client.submit(model, data, max_drop=0.01, budget_seconds=600)
            client.wait(job)
            client.download(job, "onnx", "./best")

    Args:
        url: Where the service is; default: ``PARETUNE_URL``, the running embedded service, or ``http://127.0.0.1:8765``.
        api_key: ``prefix.secret``; default: ``PARETUNE_API_KEY``, or the key of the embedded service.
        home: Directory of the embedded service; default: ``PARETUNE_HOME`` or ``~/.paretune``.
        transport: Replaces the network, for tests.

    All methods raise :class:`paretune.ApiError` when the service refuses, fails, or cannot be reached.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        home: str | Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.config = config.resolve(url, api_key, Path(home) if home is not None else None)
        self._transport = Transport(self.config.url, self.config.api_key, transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def request(self, method: str, path: str, **options: Any) -> JsonObject:
        """Send any request, such as ``client.request("GET", "/health/ready")``, and return the object it answers."""
        return self._transport.json(method, path, **options)

    # -- models and datasets

    def upload_model(self, folder: str | Path, *, name: str | None = None, progress: Progress | None = None) -> Model:
        """Upload a Hugging Face folder (safetensors, config, tokenizer) and wait until it is verified.

        Args:
            folder: The folder.
            name: What to call it; default: the folder's name.
            progress: Called with (bytes sent, bytes in total).
        """
        directory = Path(folder)
        names = model_files(directory)
        total = sum((directory / file).stat().st_size for file in names)
        model = self._transport.json("POST", "/v1/models", json={"name": name or directory.resolve().name}, create=True)
        sender = Sender(self._transport, total, progress)
        for file in names:
            path = directory / file
            if path.stat().st_size > LARGE_BYTES:
                sender.resumable(path, kind="model-file", name=file, model_id=model["id"])
            else:
                sender.put("PUT", f"/v1/models/{model['id']}/files/{file}", path)
        return Model.model_validate(complete(self._transport, f"/v1/models/{model['id']}"))

    def register_model(self, server_path: str, *, name: str | None = None) -> Model:
        """Use a folder on the server's disk, where the operator allows it."""
        body = {"name": name or PurePosixPath(server_path).name, "server_path": server_path}
        return Model.model_validate(self._transport.json("POST", "/v1/models", json=body, create=True, patient=True))

    def upload_dataset(
        self, file: str | Path, *, name: str | None = None, format: str | None = None, progress: Progress | None = None
    ) -> Dataset:
        """Upload a JSONL, CSV or Parquet file.

        Args:
            file: The file.
            name: What to call it; default: the file's name.
            format: ``jsonl``, ``csv`` or ``parquet``; default: by the suffix of the name.
            progress: Called with (bytes sent, bytes in total).
        """
        path = Path(file)
        if not path.is_file():
            raise ApiError(f"{path} is not a file.", hint="Give a JSONL, CSV or Parquet file.", code="invalid-dataset")
        name = name or path.name
        sender = Sender(self._transport, path.stat().st_size, progress)
        if path.stat().st_size > LARGE_BYTES and format is None:
            return Dataset.model_validate(sender.resumable(path, kind="dataset", name=name)["dataset"])
        params = {"name": name, "format": format}
        return Dataset.model_validate(sender.put("POST", "/v1/datasets", path, params).json())

    def models(self) -> Iterator[Model]:
        """List the models of this key, newest first."""
        return map(Model.model_validate, self._transport.pages("/v1/models"))

    def datasets(self) -> Iterator[Dataset]:
        """List the datasets of this key, newest first."""
        return map(Dataset.model_validate, self._transport.pages("/v1/datasets"))

    # -- devices and keys

    def devices(self) -> list[Device]:
        """List the registered devices by name."""
        return sorted(map(Device.model_validate, self._transport.pages("/v1/devices")), key=lambda device: device.name)

    def add_device(self, name: str, profiler: str, options: JsonObject | None = None) -> Device:
        """Register a device profile (scope ``admin``)."""
        body = {"name": name, "profiler": profiler, "options": options or {}}
        return Device.model_validate(self._transport.json("POST", "/v1/devices", json=body, create=True))

    def keys(self) -> list[Key]:
        """List all API keys (scope ``admin``)."""
        return [Key.model_validate(key) for key in self._transport.pages("/v1/keys")]

    def add_key(
        self,
        name: str,
        scopes: list[str] | None = None,
        *,
        expires_at: str | None = None,
        quotas: dict[str, int | None] | None = None,
    ) -> Key:
        """Make an API key (scope ``admin``); its secret is in ``key`` of the answer and nowhere else.

        Args:
            name: Who or what uses it.
            scopes: ``read``, ``submit``, ``admin``, ``device``; the first two by default.
            expires_at: Moment, ISO 8601.
            quotas: See :meth:`set_quotas`.
        """
        body = {"name": name, "scopes": scopes or ["read", "submit"], "expires_at": expires_at, **(quotas or {})}
        return Key.model_validate(self._transport.json("POST", "/v1/keys", json=body))

    def set_quotas(self, key_id: str, quotas: dict[str, int | None]) -> Key:
        """Change some of ``max_active_jobs``, ``max_workers`` and ``max_priority`` of a key (scope ``admin``).

        ``None`` removes a quota.
        """
        return Key.model_validate(self._transport.json("PATCH", f"/v1/keys/{key_id}", json=quotas))

    def rotate_key(self, key_id: str) -> Key:
        """Replace the secret of a key (scope ``admin``)."""
        return Key.model_validate(self._transport.json("POST", f"/v1/keys/{key_id}/rotate"))

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key (scope ``admin``)."""
        self._transport.request("DELETE", f"/v1/keys/{key_id}")

    # -- jobs

    def submit(
        self,
        model: Model | str,
        dataset: Dataset | str,
        *,
        calibration: Dataset | str | None = None,
        train: Dataset | str | None = None,
        task: str = "sequence-classification",
        device: str = "local-cpu",
        max_drop: float | None = None,
        max_latency_ms: float | None = None,
        max_size_mb: float | None = None,
        objective: str = "p50",
        budget_seconds: float | None = None,
        budget_trials: int | None = None,
        recover: JsonObject | None = None,
        **fields: Any,
    ) -> Job:
        """Start a compression job.

        Args:
            model: What to compress.
            dataset: Examples to judge it by.
            calibration: Unlabelled text; default: a part of ``dataset``.
            train: Text for recovery training, with or without labels; default: the text for calibration.
            task: ``sequence-classification`` or ``embedding``.
            device: Name of a registered device.
            max_drop: Largest allowed loss of quality: 0.01 is one point.
            max_latency_ms: Latency ceiling; give one of the two, or neither for the whole front.
            max_size_mb: Largest stored size in millions of bytes, beside either of the two or alone.
            objective: What is made small: ``p50``, ``p90`` or ``p99`` latency, the mean time (``throughput``), or
                ``peak_memory``.
            budget_seconds: Time limit of the whole job; default: the service's (ten minutes).
            budget_trials: Limit of tried candidates.
            recover: Recovery training after the search, such as ``{"seconds": 1200}``, on top of the budget.
            fields: Any other field of the request as in the API: ``workload``, ``columns``, ``space``, ``strategy``,
                ``sampler``, ``seed``, ``name``, ``priority``, ``repair_share``.
        """
        body: JsonObject = {
            "model_id": model if isinstance(model, str) else model.id,
            "dataset_id": dataset if isinstance(dataset, str) else dataset.id,
            "calibration_id": calibration.id if isinstance(calibration, Dataset) else calibration,
            "train_id": train.id if isinstance(train, Dataset) else train,
            "task": task,
            "device": device,
            "objective": objective,
            "recover": recover,
            "goal": goal_of(max_drop, max_latency_ms, max_size_mb),
            **fields,
        }
        if budget_seconds is not None or budget_trials is not None:
            body["budget"] = {"seconds": budget_seconds, "trials": budget_trials}
        return Job.model_validate(self._transport.json("POST", "/v1/jobs", json=body, create=True))

    def submit_like(self, job: Job | str, **changes: Any) -> Job:
        """Start a job that asks for the same as an earlier one, but for some fields.

        What the earlier one has computed from model and data alone, calibration and option database, is used again;
        the device is measured anew.

        Args:
            job: The earlier job, in whatever state.
            changes: Fields of the request as in the API, such as ``device="local-openvino"`` or
                ``goal={"max_drop": 0.02}``; each replaces the whole field.
        """
        body = self.job(job).request | changes
        return Job.model_validate(self._transport.json("POST", "/v1/jobs", json=body, create=True))

    def job(self, job: Job | str) -> Job:
        """Read a job with its progress and the best model so far."""
        return Job.model_validate(self._transport.json("GET", f"/v1/jobs/{_id(job)}"))

    def jobs(self, *, state: str | None = None) -> Iterator[Job]:
        """List the jobs of this key, newest first."""
        return map(Job.model_validate, self._transport.pages("/v1/jobs", state=state))

    def cancel(self, job: Job | str) -> Job:
        """Ask a job to stop; what it found so far stays readable."""
        return Job.model_validate(self._transport.json("POST", f"/v1/jobs/{_id(job)}/cancel"))

    def set_priority(self, job: Job | str, priority: int) -> Job:
        """Change the priority of a job that is not over: 0 to 9, 9 is served first."""
        return Job.model_validate(self._transport.json("PATCH", f"/v1/jobs/{_id(job)}", json={"priority": priority}))

    def trials(self, job: Job | str, *, state: str | None = None) -> Iterator[JsonObject]:
        """Go through the candidates of a job by number."""
        return self._transport.pages(f"/v1/jobs/{_id(job)}/trials", state=state)

    def front(self, job: Job | str) -> JsonObject:
        """The Pareto front so far, with the baselines beside it; at any moment, also after cancel and failure."""
        return self._transport.json("GET", f"/v1/jobs/{_id(job)}/front")

    def best(
        self,
        job: Job | str,
        *,
        max_drop: float | None = None,
        max_latency_ms: float | None = None,
        max_size_mb: float | None = None,
    ) -> JsonObject:
        """The best model so far by the job's goal, or by the one given here."""
        params = goal_of(max_drop, max_latency_ms, max_size_mb)
        return self._transport.json("GET", f"/v1/jobs/{_id(job)}/best", params=params)

    def report(self, job: Job | str) -> JsonObject:
        """Everything about a job in one object."""
        return self._transport.json("GET", f"/v1/jobs/{_id(job)}/report")

    def report_html(self, job: Job | str, *, trial: int | None = None) -> str:
        """The report as a page that needs nothing else; of the job, or of one model by the number of its trial."""
        return self._transport.request("GET", _report_path(job, trial, "html")).text

    def report_png(self, job: Job | str, *, trial: int | None = None) -> bytes:
        """A picture of the front with the baselines in it, or of what was removed from one model."""
        return self._transport.request("GET", _report_path(job, trial, "png")).content

    def watch(self, job: Job | str, *, after: int = 0) -> Iterator[Event]:
        """Go through the events of a job as they happen, from the first one, until the job is over.

        A lost connection is taken up again where it was; only two minutes without the service end it.

        Args:
            job: The job.
            after: Id of the last event that is known already.
        """
        path = f"/v1/jobs/{_id(job)}/events"
        outage = Outage(self.config.url)
        while True:
            try:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
                with self._transport.stream(
                    "GET", path, headers=headers, read_seconds=_STREAM_SILENCE_SECONDS
                ) as reply:
                    outage.over()
                    for message in sse.parse(reply.iter_lines()):
                        if message.event == "end":
                            return
                        event = Event.model_validate(json.loads(message.data))
                        after = event.id
                        yield event
            except (httpx.TransportError, ApiError) as error:
                outage.endure(error)
            else:
                time.sleep(_RECONNECT_SECONDS)

    def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:
        """Wait until a job is over and return it; as for :meth:`watch`, only two minutes without the service end it.

        Raises:
            JobFailedError: The job failed or was cancelled.
            TimeoutError: It is not over after ``timeout`` seconds; it goes on.
        """
        current = poll(
            lambda: self.job(job),
            lambda current: current.is_over,
            what=f"job {_id(job)}",
            url=self.config.url,
            pause=1.0,
            timeout=timeout,
        )
        if current.state != "succeeded":
            raise job_failure(current)
        return current

    # -- downloads

    def export(
        self,
        job: Job | str,
        format: Format = "onnx",
        *,
        trial: int | None = None,
        max_drop: float | None = None,
        max_latency_ms: float | None = None,
        max_size_mb: float | None = None,
        timeout: float = 600.0,
    ) -> Export:
        """Make a model downloadable and wait until it is: the best one, or a trial by number.

        Raises:
            JobFailedError: The export failed.
            TimeoutError: It is not ready after ``timeout`` seconds.
        """
        goal = goal_of(max_drop, max_latency_ms, max_size_mb)
        body = {"format": format, "trial": trial, "goal": goal or None}
        path = f"/v1/jobs/{_id(job)}/exports"
        export = Export.model_validate(self._transport.json("POST", path, json=body, create=True))
        if export.state == "queued":
            where = f"/v1/exports/{export.id}"
            export = poll(
                lambda: Export.model_validate(self._transport.json("GET", where)),
                lambda current: current.state != "queued",
                what=f"export {export.id}",
                url=self.config.url,
                pause=0.5,
                timeout=timeout,
            )
        if export.state != "ready":
            error = export.error or {}
            raise JobFailedError(
                str(error.get("message", "The export failed.")), hint=str(error.get("hint", "")), code="export-failed"
            )
        return export

    def download(
        self, job: Job | str, format: Format, directory: str | Path, *, progress: Progress | None = None, **choice: Any
    ) -> list[Path]:
        """Export a model and download all its files; each is checked against its sha256.

        Args:
            job: The job.
            format: ``onnx`` or ``torch``.
            directory: Where to put the files; made if it is not there.
            progress: Called with (bytes received, bytes in total).
            choice: ``trial``, ``max_drop``, ``max_latency_ms``, ``max_size_mb``, ``timeout`` as for :meth:`export`.

        Returns:
            The paths of the files.
        """
        export = self.export(job, format, **choice)
        total, done = sum(file.size for file in export.files), 0
        paths = []
        for file in export.files:
            paths.append(fetch(self._transport, file, Path(directory)))
            done += file.size
            if progress is not None:
                progress(done, total)
        return paths


def goal_of(max_drop: float | None, max_latency_ms: float | None, max_size_mb: float | None) -> dict[str, float]:
    """Return a goal as the API takes it: what was given of it."""
    given = {"max_drop": max_drop, "max_latency_ms": max_latency_ms, "max_size_mb": max_size_mb}
    return {name: value for name, value in given.items() if value is not None}


def _id(job: Job | str) -> str:
    return job if isinstance(job, str) else job.id


def _report_path(job: Job | str, trial: int | None, form: str) -> str:
    about = f"/v1/jobs/{_id(job)}" if trial is None else f"/v1/jobs/{_id(job)}/trials/{trial}"
    return f"{about}/report.{form}"


def job_failure(job: Job) -> JobFailedError:
    """Return the error that a job ended with, in the same form as a refused request."""
    error = job.error or {}
    if job.state == "cancelled":
        return JobFailedError(
            f"Job {job.id} was cancelled.", hint="What it found so far: `paretune best JOB`.", code="cancelled"
        )
    return JobFailedError(
        str(error.get("message", f"Job {job.id} failed.")),
        hint=str(error.get("hint", "")),
        code=str(error.get("code", "job-failed")),
        title=str(error.get("title", "The job failed")),
        errors=error.get("errors"),
    )
