"""Quotas of API keys; indices for fair claims and for lists of jobs in one state."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_QUOTAS = ("max_active_jobs", "max_workers", "max_priority")


def upgrade() -> None:
    for name in _QUOTAS:
        op.add_column("api_key", sa.Column(name, sa.Integer(), nullable=True))
    op.create_index("ix_job_owner_state_created", "job", ["owner", "state", "created_at", "id"])
    op.create_index("ix_step_job_queue_started", "step", ["job_id", "queue", "started_at"])
    op.create_index("ix_step_queue_state", "step", ["queue", "state"])
    op.drop_index("ix_step_queue", table_name="step")


def downgrade() -> None:
    op.create_index("ix_step_queue", "step", ["queue"])
    op.drop_index("ix_step_queue_state", table_name="step")
    op.drop_index("ix_step_job_queue_started", table_name="step")
    op.drop_index("ix_job_owner_state_created", table_name="job")
    with op.batch_alter_table("api_key") as table:
        for name in reversed(_QUOTAS):
            table.drop_column(name)
