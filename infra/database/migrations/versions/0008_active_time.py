"""The clock of a job's budgets: time in which the service ran, in place of wall time."""

from datetime import UTC
from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SECONDS = ("active_seconds", "idle_seconds", "stage_seconds")


def upgrade() -> None:
    for name in _SECONDS:
        op.add_column("job", sa.Column(name, sa.Float(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("active_at", sa.DateTime(timezone=True), nullable=True))
    _take_over_wall_time()


def downgrade() -> None:
    # Not as a batch: on SQLite that would make the table anew, and the rows that refer to it would go with the old one.
    for name in ("active_at", *reversed(_SECONDS)):
        op.drop_column("job", name)


def _take_over_wall_time() -> None:
    """Jobs that have begun keep the time that they had by the clock of before."""
    job = sa.table(
        "job",
        sa.column("id", sa.String()),
        sa.column("started_at", sa.DateTime(timezone=True)),
        sa.column("finished_at", sa.DateTime(timezone=True)),
        sa.column("active_seconds", sa.Float()),
        sa.column("active_at", sa.DateTime(timezone=True)),
    )
    connection = op.get_bind()
    begun = sa.select(job.c.id, job.c.started_at, job.c.finished_at).where(job.c.started_at.is_not(None))
    for row in connection.execute(begun).all():
        end = row.finished_at or datetime.now(UTC).replace(tzinfo=row.started_at.tzinfo)
        seconds = max(0.0, (end - row.started_at).total_seconds())
        connection.execute(job.update().where(job.c.id == row.id).values(active_seconds=seconds, active_at=end))
