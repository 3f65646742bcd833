"""Brings a job's inputs onto this host: rows and blobs become paths and plain values."""

from collections.abc import Mapping
from pathlib import Path

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Dataset
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import ModelFile
from infra.database.models import Trial
from infra.errors import NotFoundError
from profilers.types import DeviceProfile
from search.candidates import recipe_of
from search.requests import JobRequest
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.stage import StageContext

TEACHER = "teacher"
"""Name of the blob with the dense model's outputs on the training texts."""


def get_job(session: Session, job_id: str) -> Job:
    """Return the job's row."""
    return session.exec(select(Job).where(Job.id == job_id)).one()


def get_trial(session: Session, trial_id: str | None) -> Trial:
    """Return the row of the trial that a step is about.

    Raises:
        NotFoundError: The step has no trial, or it was deleted.
    """
    trial = session.exec(select(Trial).where(Trial.id == trial_id)).one_or_none()
    if trial is None:
        raise NotFoundError("The trial of this step is gone.", hint="Submit the job again.")
    return trial


def job_inputs(context: StageContext) -> JobInputs:
    """Put the model and the data into the work directory, unless they are there, and describe them."""
    with context.read_session() as session:
        job = get_job(session, context.step.job_id)
        request = JobRequest.model_validate(job.request)
        rows = select(ModelFile).where(ModelFile.model_id == job.model_id).order_by(col(ModelFile.name))
        files = {file.name: file.sha256 for file in session.exec(rows)}
        dataset = session.exec(select(Dataset).where(Dataset.id == job.dataset_id)).one()
        calibration = session.exec(select(Dataset).where(Dataset.id == job.calibration_id)).one_or_none()
        device = session.exec(select(Device).where(Device.id == job.device_id)).one()
        profile = DeviceProfile(name=device.name, profiler=device.profiler, options=device.options)
        data = {name: (row.sha256, row.format) for name, row in _named(dataset=dataset, calibration=calibration)}
        statement = select(JobBlob).where(JobBlob.job_id == job.id, col(JobBlob.name).startswith("train."))
        train = session.exec(statement).one_or_none()
        if train is not None:
            data["train"] = (train.sha256, train.name.removeprefix("train."))
    model = context.workdir / "model"
    for name, sha256 in files.items():
        _fetch(context, sha256, model / name)
    paths = {
        name: DataFile(path=_fetch(context, sha256, context.workdir / f"{name}.{format_}"), format=format_)
        for name, (sha256, format_) in data.items()
    }
    return JobInputs(
        work=context.workdir,
        model=model,
        dataset=paths["dataset"],
        calibration=paths.get("calibration"),
        train=paths.get("train"),
        task=request.task,
        columns=request.columns,
        workload=request.workload,
        device=profile,
        objective=request.objective,
        seed=request.seed,
    )


def prepared_files(inputs: JobInputs) -> dict[str, Path]:
    """What ``prepare`` leaves for later steps, which may run on another host: blob names and places."""
    return {
        "calibration": inputs.calibration_file,
        "dense_outputs": inputs.dense_outputs_file,
        "reference": inputs.reference_file,
        "timing_feeds": inputs.timing_feeds_file,
    }


def prepared_inputs(context: StageContext) -> JobInputs:
    """Return the inputs together with everything that ``prepare`` left, fetched from the store if it is not here."""
    inputs = job_inputs(context)
    if all(path.exists() for path in prepared_files(inputs).values()):
        return inputs
    with context.read_session() as session:
        rows = session.exec(select(JobBlob).where(JobBlob.job_id == context.step.job_id)).all()
        digests = {row.name: row.sha256 for row in rows}
    fetch_blobs(context, inputs, {name: digests[name] for name in prepared_files(inputs)})
    return inputs


def fetch_blobs(context: StageContext, inputs: JobInputs, digests: Mapping[str, str]) -> None:
    """Put some of what a preparation has left, ``{name: sha256}``, in its place, unless it is there."""
    places = prepared_files(inputs)
    for name, sha256 in digests.items():
        _fetch(context, sha256, places[name])


def fetch_weights(context: StageContext, inputs: JobInputs, candidate: JsonObject) -> None:
    """Put the trained weights that a candidate names, if it does, where the runner looks for them."""
    recipe = recipe_of(candidate)
    if recipe is not None and recipe.weights is not None:
        _fetch(context, recipe.weights, inputs.weights_file(recipe.weights))


def fetch_teacher(context: StageContext, inputs: JobInputs) -> None:
    """Put the outputs of the dense model on the training texts into the work directory, if they were kept."""
    with context.read_session() as session:
        statement = select(JobBlob.sha256).where(JobBlob.job_id == context.step.job_id, JobBlob.name == TEACHER)
        sha256 = session.exec(statement).one_or_none()
    if sha256 is not None:
        _fetch(context, sha256, inputs.teacher_file)


def _named(**rows: Dataset | None) -> list[tuple[str, Dataset]]:
    return [(name, row) for name, row in rows.items() if row is not None]


def _fetch(context: StageContext, sha256: str, path: Path) -> Path:
    return path if path.exists() else context.materialise(sha256, path)
