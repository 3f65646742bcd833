"""The type of JSON objects, for modules that should not load the database."""

from typing import Any

JsonObject = dict[str, Any]
