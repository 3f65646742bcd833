"""The fastest graphs as measured, shared between jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "best_graph",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("found", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["device.id"], name="fk_best_graph_device_id_device", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_best_graph"),
        sa.UniqueConstraint("key", name="uq_best_graph_key"),
    )
    op.create_index("ix_best_graph_created_at", "best_graph", ["created_at"], unique=False)
    op.create_index("ix_best_graph_device_id", "best_graph", ["device_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_best_graph_device_id", table_name="best_graph")
    op.drop_index("ix_best_graph_created_at", table_name="best_graph")
    op.drop_table("best_graph")
