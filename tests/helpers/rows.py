"""Rows that other rows need."""

import uuid

from sqlmodel import Session

from infra.database.models import Blob
from infra.database.models import Dataset
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import Model


def add_job(session: Session, *, owner: str = "owner", device: Device | None = None, state: str = "running") -> Job:
    """Add a job together with a model, a dataset and (unless given) a device of its own."""
    blob = Blob(sha256=(uuid.uuid4().hex * 2), size=1)
    model = Model(owner=owner, name="model", state="ready")
    session.add_all([blob, model])
    if device is None:
        device = Device(name=f"device-{uuid.uuid4().hex[:8]}", profiler="onnxruntime")
        session.add(device)
    session.flush()
    dataset = Dataset(owner=owner, name="data", format="jsonl", sha256=blob.sha256)
    session.add(dataset)
    session.flush()
    job = Job(owner=owner, model_id=model.id, dataset_id=dataset.id, device_id=device.id, state=state)
    session.add(job)
    session.flush()
    return job
