"""Database, broker and artifact store."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import redis
from sqlalchemy import func
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from infra.broker import broker_client
from infra.database.engine import Database
from infra.database.engine import database_url
from infra.database.migrate import current_revision
from infra.database.migrate import is_known
from infra.database.migrate import newest_revision
from infra.embedded.valkey import server_program
from infra.errors import ParetuneError
from infra.settings import Settings
from infra.settings import embedded_broker_url
from infra.store.open import open_store
from workers.checkup.findings import Finding
from workers.checkup.findings import judged
from workers.checkup.home import is_running

_LEAST_VALKEY = (8, 1)
_LEAST_REDIS = (7, 4)
_LARGEST_SKEW_SECONDS = 5.0
_BROKER_SECONDS = 3.0


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, has the tables of this version, and agrees about the time."""
    url = database_url(settings.database_url)
    shown = url.render_as_string()
    if url.get_backend_name() == "postgresql" and find_spec("psycopg") is None:
        yield Finding("database", "problem", f"no driver for {shown}", "pip install 'paretune[postgres]'")
        return
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield Finding("database", "ok", f"{shown} is made at the first start")
        return
    try:
        revision, newest = current_revision(settings), newest_revision()
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        yield Finding(
            "database", "problem", f"{shown} does not answer: {reason}", "Start it, or correct PARETUNE_DATABASE_URL."
        )
        return
    if revision == newest:
        yield Finding("database", "ok", f"{shown}, revision {revision}")
        yield from _clock(settings)
    elif not revision or is_known(revision):
        yield Finding(
            "database",
            "problem",
            f"{shown} has revision {revision or 'none'}, this version needs {newest}",
            "Make a backup, then run: python -m infra.setup (paretune up does it by itself)",
        )
    else:
        yield Finding(
            "database",
            "problem",
            f"{shown} was made by a later version (revision {revision})",
            "Install that version again.",
        )


def _clock(settings: Settings) -> Iterator[Finding]:
    """Leases go by the database's clock; logs and API keys by this one."""
    if database_url(settings.database_url).get_backend_name() != "postgresql":
        return
    database = Database(settings.database_url)
    with database.read_session() as session:
        theirs = session.execute(select(func.clock_timestamp())).scalar_one()
    database.dispose()
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    yield judged(
        "clock",
        good=skew < _LARGEST_SKEW_SECONDS,
        detail=f"{skew:.1f} s from the database's",
        hint="Synchronise the clocks of all hosts (chrony, systemd-timesyncd).",
        otherwise="warning",
    )


def check_broker(settings: Settings) -> Iterator[Finding]:
    """Whether it can be reached or started, is young enough and keeps what it is given."""
    embedded = settings.broker_url == embedded_broker_url(settings.home)
    if embedded and not is_running(settings):
        try:
            yield Finding("broker", "ok", f"is started with the service: {server_program()}")
        except ParetuneError as error:
            yield Finding("broker", "problem", error.message, error.hint)
        return
    try:
        with closing(broker_client(settings, _BROKER_SECONDS)) as client:
            facts = client.info("server")
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
    except (redis.RedisError, OSError, ValueError) as error:
        yield Finding(
            "broker",
            "problem",
            f"does not answer: {type(error).__name__}",
            "Start it, or correct PARETUNE_BROKER_URL. Jobs wait meanwhile, nothing is lost.",
        )
        return
    name, version, recent = version_of(facts)
    yield judged(
        "broker",
        good=recent,
        detail=f"{name} {version} answers",
        hint="This version has known holes: upgrade.",
        otherwise="warning",
    )
    if policy != "noeviction":
        yield Finding(
            "broker memory",
            "problem",
            f"throws away keys when it is full ({policy}), which breaks Celery's queues",
            "Set maxmemory-policy noeviction.",
        )


def version_of(facts: dict[str, str]) -> tuple[str, str, bool]:
    """Return name and version of a server, and whether it is recent; Valkey also says which Redis it is like."""
    name, version, least = (
        ("Valkey", facts["valkey_version"], _LEAST_VALKEY)
        if "valkey_version" in facts
        else ("Redis", facts["redis_version"], _LEAST_REDIS)
    )
    return name, version, tuple(int(part) for part in version.split(".")[:2]) >= least


def check_store(settings: Settings) -> Iterator[Finding]:
    """Whether the artifact store answers."""
    if not settings.store_url.startswith("file:") and find_spec("obstore") is None:
        yield Finding("store", "problem", "the object store's library is missing", "pip install 'paretune[s3]'")
        return
    if settings.store_url.startswith("file:") and not settings.home.exists():
        return  # made at the first start; that it can be made is said of the home
    try:
        open_store(settings.store_url).exists("0" * 64)
    except (ParetuneError, OSError, ValueError) as error:
        reason = error.explain() if isinstance(error, ParetuneError) else str(error)
        hint = "Correct PARETUNE_STORE_URL or its credentials."
        yield Finding("store", "problem", f"does not answer: {reason[:200]}", hint)
    else:
        yield Finding("store", "ok", settings.store_url.partition("?")[0])
