import pytest
from hypothesis import settings

from infra.database.engine import Database
from tests.unit.search.synthetic import Bench


@pytest.fixture
def bench(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    yield Bench(database)
    database.dispose()


settings.register_profile("search", deadline=None)  # other work may share the machine
settings.load_profile("search")
