"""Names of content."""

import hashlib
import json


def json_digest(content: object) -> str:
    """Return the SHA-256 of plain JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
