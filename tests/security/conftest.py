"""The app of the API tests."""

from tests.unit.api.conftest import client
from tests.unit.api.conftest import empty_database
from tests.unit.api.conftest import settings
from tests.unit.api.conftest import stranger
from tests.unit.api.conftest import world

__all__ = ["client", "empty_database", "settings", "stranger", "world"]
