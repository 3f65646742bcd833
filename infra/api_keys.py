"""API keys: ``prefix.secret``. The prefix finds the row, the secret is 256 random bits of which only a hash is kept."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from infra.clock import utcnow
from infra.database.models import ApiKey

ALL_SCOPES = ("read", "submit", "admin", "device")

_NO_HASH = hashlib.sha256(b"").hexdigest()


def hash_secret(secret: str) -> str:
    """Return the sha256 (hexadecimal) under which a secret is stored.

    A fast hash is right here: unlike a password, the secret cannot be guessed.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(name: str, scopes: Sequence[str], *, expires_at: datetime | None = None) -> tuple[ApiKey, str]:
    """Make a key.

    Returns:
        The row to store, and the text ``prefix.secret`` to show once.
    """
    row = ApiKey(name=name, prefix="", secret_hash="", scopes=list(scopes), expires_at=expires_at)
    return row, renew_secret(row)


def renew_secret(row: ApiKey) -> str:
    """Give a key a new prefix and secret; what it owns stays its own. Returns the text to show once."""
    prefix, secret = f"pt_{secrets.token_hex(6)}", secrets.token_urlsafe(32)
    row.prefix, row.secret_hash = prefix, hash_secret(secret)
    return f"{prefix}.{secret}"


def split_key(text: str) -> tuple[str, str]:
    """Return (prefix, secret) of the text that a client sends; the secret is empty if it is not a key."""
    prefix, _, secret = text.partition(".")
    return prefix, secret


def is_valid(row: ApiKey | None, secret: str) -> bool:
    """Whether ``secret`` is that of ``row`` and the key may be used now; takes the same time for every wrong secret."""
    matches = hmac.compare_digest(hash_secret(secret), row.secret_hash if row is not None else _NO_HASH)
    if row is None or not secret or not matches or row.revoked_at is not None:
        return False
    return row.expires_at is None or row.expires_at > utcnow()
