"""Bodies of the datasets resource."""

from datetime import datetime

from pydantic import BaseModel

from infra.database.models import Dataset


class DatasetView(BaseModel):
    """A dataset."""

    id: str
    name: str
    format: str
    """``jsonl``, ``csv`` or ``parquet``."""
    columns: list[str]
    """Columns that every row has."""
    rows: int
    sha256: str
    size: int
    """Bytes."""
    created_at: datetime


def dataset_view(dataset: Dataset) -> DatasetView:
    """Describe a dataset."""
    return DatasetView(
        id=dataset.id,
        name=dataset.name,
        format=dataset.format,
        columns=dataset.columns,
        rows=dataset.rows,
        sha256=dataset.sha256,
        size=dataset.size,
        created_at=dataset.created_at,
    )
