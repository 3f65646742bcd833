import pytest

from infra.database.engine import Database
from tests.unit.search.synthetic import Bench


@pytest.fixture
def bench(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield Bench(database)
    database.dispose()
