"""From a received file to a dataset."""

from pathlib import Path

from api.services import Services
from infra.blobs import put_file
from infra.database.models import Dataset
from infra.uploads.dataset_file import DatasetFormat
from infra.uploads.dataset_file import read_facts


def store_dataset(
    services: Services, *, owner: str, name: str, data_format: DatasetFormat, path: Path, sha256: str
) -> Dataset:
    """Check a file, put it into the artifact store, and return its row (not yet written).

    Raises:
        InvalidDatasetError: The file is refused.
    """
    facts = read_facts(path, data_format)
    ref = put_file(services.database, services.store, path, expected_sha256=sha256)
    return Dataset(
        owner=owner,
        name=name,
        format=data_format,
        columns=list(facts.columns),
        rows=facts.rows,
        sha256=ref.sha256,
        size=ref.size,
    )
