"""Calibrations and option databases, shared between jobs on the same model and data."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "shared_result",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("found", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_shared_result"),
    )
    op.create_index("ix_shared_result_created_at", "shared_result", ["created_at"], unique=False)
    op.create_index("ix_shared_result_used_at", "shared_result", ["used_at"], unique=False)
    op.create_table(
        "shared_blob",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key"], ["shared_result.key"], name="fk_shared_blob_key_shared_result", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name="fk_shared_blob_sha256_blob"),
        sa.PrimaryKeyConstraint("key", "name", name="pk_shared_blob"),
    )
    op.create_index("ix_shared_blob_sha256", "shared_blob", ["sha256"], unique=False)
    op.create_table(
        "shared_source",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key"], ["shared_result.key"], name="fk_shared_source_key_shared_result", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", "sha256", name="pk_shared_source"),
    )


def downgrade() -> None:
    op.drop_table("shared_source")
    op.drop_index("ix_shared_blob_sha256", table_name="shared_blob")
    op.drop_table("shared_blob")
    op.drop_index("ix_shared_result_used_at", table_name="shared_result")
    op.drop_index("ix_shared_result_created_at", table_name="shared_result")
    op.drop_table("shared_result")
