"""What the API calls: create and cancel jobs, read fronts. Light: loads neither Optuna nor torch."""

from sqlmodel import Session
from sqlmodel import select

from compressors.usage import Runtime
from compressors.usage import onnx_inputs
from compressors.usage import onnx_usage
from compressors.usage import torch_usage
from infra.database.models import Dataset
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import Model
from infra.database.models import Trial
from infra.errors import ConflictError
from infra.errors import InvalidDatasetError
from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from infra.events import append_event
from infra.steps import create_step
from profilers.types import Capabilities
from search.agreement import agreement
from search.goals import check_sane
from search.lifecycle import ENDED
from search.lifecycle import cancel_job
from search.lifecycle import job_trials
from search.prepared import Prepared
from search.presenter import Presenter
from search.requests import Columns
from search.requests import Goal
from search.requests import JobRequest
from search.views import FrontView
from search.views import ReportView
from search.views import TrialView

__all__ = ["best", "cancel_job", "create_job", "front", "report", "trial"]


def create_job(session: Session, owner: str, request: JobRequest) -> Job:
    """Check a request against what there is, and queue the job.

    Args:
        session: A write session; the caller commits.
        owner: Who asks. Models and datasets of others do not exist for them.
        request: The request.

    Raises:
        NotFoundError: The model or a dataset does not exist.
        ConflictError: The model is not ready.
        InvalidDatasetError: A dataset lacks a column.
        InvalidInputError: The device is unknown or not available, or a setting does not fit the others.
        InfeasibleGoalError: No model on any device meets the goal.
    """
    model = _owned_model(session, owner, request.model_id)
    dataset = _owned_dataset(session, owner, request.dataset_id, "dataset_id")
    request = request.model_copy(update={"columns": _resolve_columns(dataset, request.columns)})
    if request.calibration_id is not None:
        calibration = _owned_dataset(session, owner, request.calibration_id, "calibration_id")
        _check_column(calibration, request.columns.text_column, "text_column")
    train = _training_data(session, owner, request)
    device = _device(session, request)
    check_sane(request.goal)
    longest = model.facts.get("max_sequence_length")
    if isinstance(longest, int) and request.workload.sequence_length > longest:
        raise _invalid(
            "workload.sequence_length",
            f"The model reads at most {longest} tokens, not {request.workload.sequence_length}.",
            f"Use a sequence length of {longest} or less.",
        )
    job = Job(
        owner=owner,
        name=request.name,
        stage="inspect",
        request=request.model_dump(mode="json"),
        model_id=model.id,
        dataset_id=dataset.id,
        calibration_id=request.calibration_id,
        device_id=device.id,
        priority=request.priority,
    )
    session.add(job)
    session.flush()
    if train is not None:  # keeps the bytes, whatever becomes of the dataset
        session.add(JobBlob(job_id=job.id, name=f"train.{train.format}", sha256=train.sha256))
    create_step(session, job_id=job.id, kind="inspect", key="inspect", queue="compute")
    append_event(session, job.id, "state", {"state": job.state})
    return job


def front(session: Session, job: Job) -> FrontView:
    """Return the front of a job at this moment, in any state of the job."""
    return Presenter(job, job_trials(session, job.id)).front()


def best(session: Session, job: Job, goal: Goal | None = None) -> TrialView:
    """Return the best model for ``goal``, by default the job's own, among what is measured so far.

    Raises:
        ConflictError: Nothing has been measured yet.
    """
    view = Presenter(job, job_trials(session, job.id)).best(goal)
    if view is None:
        if job.state in ENDED:
            hint = "Start another one; `paretune again` asks for the same."
            raise ConflictError(f"Job {job.id} is {job.state}, and had measured nothing before.", hint=hint)
        raise ConflictError(
            f"Job {job.id} has measured nothing yet (state {job.state}, stage {job.stage}).",
            hint="Wait for the first trial; the job's events say when it is there.",
        )
    return view


def trial(session: Session, job: Job, trial_id: str) -> TrialView:
    """Return one trial of a job.

    Raises:
        NotFoundError: The job has no such trial.
    """
    trials = job_trials(session, job.id)
    row: Trial | None = next((entry for entry in trials if entry.id == trial_id), None)
    if row is None:
        raise NotFoundError(f"Job {job.id} has no trial {trial_id}.", hint="List the job's trials.")
    return Presenter(job, trials).trial(row)


def report(session: Session, job: Job) -> ReportView:
    """Return everything about a job's outcome so far."""
    trials = job_trials(session, job.id)
    presenter = Presenter(job, trials)
    dense = (job.prepared or {}).get("anatomy") or {}
    return ReportView(
        job_id=job.id,
        name=job.name,
        model=session.get_one(Model, job.model_id).name,
        dataset=session.get_one(Dataset, job.dataset_id).name,
        request=job.request,
        dense=dense,
        front=presenter.front(),
        summary=job.summary,
        others=presenter.others(),
        agreement=agreement(trials),
        form=_runtime(job).form if dense else "onnx",
        usage=_usage(_runtime(job), token_types=dense["has_token_types"]) if dense else [],
        error=job.error,
    )


def _runtime(job: Job) -> Runtime:
    """What the job's device measures its candidates in."""
    prepared = Prepared.load(job.prepared)
    capabilities, precision = prepared.capabilities, prepared.graph_defaults.precision
    return Runtime(profiler=capabilities.profiler, precision=precision, form=capabilities.form)


def _usage(runtime: Runtime, *, token_types: bool) -> list[str]:
    inputs = onnx_inputs(token_types=token_types)
    return list(torch_usage(inputs, runtime) if runtime.form == "torch" else onnx_usage(inputs, runtime))


def _owned_model(session: Session, owner: str, model_id: str) -> Model:
    model = session.exec(select(Model).where(Model.id == model_id, Model.owner == owner)).one_or_none()
    if model is None:
        raise NotFoundError(f"There is no model {model_id}.", hint="Upload the model first, or list your models.")
    if model.state != "ready":
        raise ConflictError(
            f"Model {model_id} is not ready: its state is {model.state}.",
            hint="Complete the upload first." if model.state == "uploading" else "Upload a corrected model.",
        )
    return model


def _owned_dataset(session: Session, owner: str, dataset_id: str, field: str) -> Dataset:
    dataset = session.exec(select(Dataset).where(Dataset.id == dataset_id, Dataset.owner == owner)).one_or_none()
    if dataset is None:
        message = f"There is no dataset {dataset_id}."
        hint = "Upload the dataset first, or list your datasets."
        raise NotFoundError(message, hint=hint, errors=[{"field": field, "message": message}])
    return dataset


def _training_data(session: Session, owner: str, request: JobRequest) -> Dataset | None:
    if request.train_id is None:
        return None
    train = _owned_dataset(session, owner, request.train_id, "train_id")
    _check_column(train, request.columns.text_column, "text_column")
    if request.columns.second_text_column is not None:
        _check_column(train, request.columns.second_text_column, "second_text_column")
    return train


def _resolve_columns(dataset: Dataset, columns: Columns) -> Columns:
    _check_column(dataset, columns.text_column, "text_column")
    if columns.second_text_column is not None:
        _check_column(dataset, columns.second_text_column, "second_text_column")
    if columns.label_column is None or columns.label_column in dataset.columns:
        return columns
    # The default label column may be missing: then the data are unlabelled. One that was asked for must be there.
    if "label_column" in columns.model_fields_set:
        _check_column(dataset, columns.label_column, "label_column")
    return columns.model_copy(update={"label_column": None})


def _check_column(dataset: Dataset, column: str, field: str) -> None:
    if column not in dataset.columns:
        message = f"Dataset {dataset.id} has no column {column!r}."
        hint = f"It has: {', '.join(dataset.columns) or 'none'}. Name the right one in columns.{field}."
        raise InvalidDatasetError(message, hint=hint, errors=[{"field": f"columns.{field}", "message": message}])


def _device(session: Session, request: JobRequest) -> Device:
    name = request.device
    device = session.exec(select(Device).where(Device.name == name)).one_or_none()
    if device is None:
        known = ", ".join(sorted(session.exec(select(Device.name)))) or "none"
        raise _invalid("device", f"There is no device {name!r}.", f"Registered devices: {known}.")
    if device.capabilities:
        capabilities = Capabilities.model_validate(device.capabilities)
        if not capabilities.available:
            message = f"Device {name!r} is not available: {capabilities.reason}"
            raise _invalid("device", message, "Choose another device.")
        if request.objective not in capabilities.objectives:
            message = f"Device {name!r} does not measure {request.objective}."
            raise _invalid("objective", message, f"Use one of: {', '.join(capabilities.objectives)}.")
    return device


def _invalid(field: str, message: str, hint: str) -> InvalidInputError:
    return InvalidInputError(message, hint=hint, errors=[{"field": field, "message": message}])
