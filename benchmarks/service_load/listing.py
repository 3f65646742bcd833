"""Pages of a list of 100,000 jobs: the last one must cost what the first one costs."""

import statistics
import time
from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy import insert

from api.app import create_app
from benchmarks import paper_jobs
from infra.api_keys import new_key
from infra.clock import utcnow
from infra.clock import uuid7
from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import Job
from infra.settings import load_settings

_PAGE = 50
_ASKED = 20
_AT_ONCE = 5_000


def list_pages(folder: Path, jobs: int) -> list[dict[str, str]]:
    """Ask for pages at several depths of a list, with and without a filter; returns the table's rows."""
    settings = load_settings(home=folder, requests_per_minute=10_000_000)
    migrate.upgrade(settings)
    database = Database(settings.database_url)
    (template,) = paper_jobs.submit(database)
    row, key = new_key("list", ["read"])
    owner = row.id
    with database.write_session() as session:
        session.add(row)
        job = session.get_one(Job, template)
        job.prepared = None
        values = job.model_dump() | {"owner": owner}
    _add_jobs(database, values, jobs)
    app = create_app(settings)
    rows = []
    with TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {key}"}) as client:
        for name, state in (("all", None), ("state=failed (1 in 10)", "failed")):
            for depth in (0.0, 0.5, 0.95):
                rows.append(_page(client, name, state, depth, owner, jobs, values["created_at"]))
    database.dispose()
    return rows


def _add_jobs(database: Database, values: dict[str, object], jobs: int) -> None:
    newest = utcnow()
    values["created_at"] = newest
    for start in range(0, jobs, _AT_ONCE):
        rows = [
            values
            | {
                "id": uuid7(),
                "state": "failed" if number % 10 == 0 else "succeeded",
                "created_at": newest - timedelta(seconds=number),
            }
            for number in range(start, min(jobs, start + _AT_ONCE))
        ]
        with database.write_session() as session:
            session.execute(insert(Job), rows)


def _page(
    client: TestClient, name: str, state: str | None, depth: float, owner: str, jobs: int, newest
) -> dict[str, str]:
    from api.pagination import encode_cursor

    cursor = encode_cursor(newest - timedelta(seconds=int(depth * jobs) - 1), "") if depth else None
    given = {"limit": _PAGE, "state": state, "cursor": cursor}
    params = {key: value for key, value in given.items() if value is not None}
    spent = []
    for _ in range(_ASKED):
        started = time.perf_counter()
        answer = client.get("/v1/jobs", params=params)
        spent.append((time.perf_counter() - started) * 1e3)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) == _PAGE
    return {
        "list": name,
        "after": f"{depth:.0%} of {jobs}",
        "median": f"{statistics.median(spent):.1f} ms",
        "worst": f"{max(spent):.1f} ms",
    }
