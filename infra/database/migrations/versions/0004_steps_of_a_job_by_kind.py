"""Index of a job's steps by kind: the coordinator of a large job looks for its tick with every trial that ends."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_step_job_kind_state", "step", ["job_id", "kind", "state", "id"])


def downgrade() -> None:
    op.drop_index("ix_step_job_kind_state", table_name="step")
