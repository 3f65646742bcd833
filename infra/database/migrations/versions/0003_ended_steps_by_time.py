"""Index of ended steps by time, for metrics of the last minutes."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_step_finished_at", "step", ["finished_at"])


def downgrade() -> None:
    op.drop_index("ix_step_finished_at", table_name="step")
