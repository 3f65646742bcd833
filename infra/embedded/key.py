"""The API key of the embedded service: in a file that only its user can read."""

from sqlmodel import select

from infra.api_keys import ALL_SCOPES
from infra.api_keys import is_valid
from infra.api_keys import new_key
from infra.api_keys import split_key
from infra.database.engine import Database
from infra.database.models import ApiKey
from infra.embedded.home import write_private
from infra.settings import Settings


def ensure_api_key(settings: Settings, database: Database) -> None:
    """Write a new key with all scopes into the home, unless the key that is there still works."""
    with database.write_session() as session:
        if settings.api_key_file.exists():
            prefix, secret = split_key(settings.api_key_file.read_text(encoding="utf-8").strip())
            if is_valid(session.exec(select(ApiKey).where(ApiKey.prefix == prefix)).one_or_none(), secret):
                settings.api_key_file.chmod(0o600)
                return
        row, text = new_key("embedded", ALL_SCOPES)
        session.add(row)
        session.flush()
        write_private(settings.api_key_file, text + "\n")
