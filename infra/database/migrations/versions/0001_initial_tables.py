"""Initial tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_key"),
        sa.UniqueConstraint("prefix", name="uq_api_key_prefix"),
    )
    op.create_index("ix_api_key_created_at", "api_key", ["created_at"], unique=False)
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("details", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entry"),
    )
    op.create_index("ix_audit_entry_created_at", "audit_entry", ["created_at"], unique=False)
    op.create_table(
        "blob",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blob"),
    )
    op.create_index("ix_blob_created_at", "blob", ["created_at"], unique=False)
    op.create_table(
        "device",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("profiler", sa.String(), nullable=False),
        sa.Column("options", _JSON, nullable=False),
        sa.Column("capabilities", _JSON, nullable=False),
        sa.Column("facts", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_device"),
        sa.UniqueConstraint("name", name="uq_device_name"),
    )
    op.create_index("ix_device_created_at", "device", ["created_at"], unique=False)
    op.create_table(
        "idempotency_key",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("response", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "route", "key", name="pk_idempotency_key"),
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"], unique=False)
    op.create_table(
        "model",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("architecture", sa.String(), nullable=True),
        sa.Column("facts", _JSON, nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
    )
    op.create_index("ix_model_created_at", "model", ["created_at"], unique=False)
    op.create_index("ix_model_owner", "model", ["owner"], unique=False)
    op.create_table(
        "upload",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("parts", _JSON, nullable=False),
        sa.Column("sha256", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
    )
    op.create_index("ix_upload_created_at", "upload", ["created_at"], unique=False)
    op.create_table(
        "dataset",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("columns", _JSON, nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name="fk_dataset_sha256_blob"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
    )
    op.create_index("ix_dataset_created_at", "dataset", ["created_at"], unique=False)
    op.create_index("ix_dataset_owner", "dataset", ["owner"], unique=False)
    op.create_index("ix_dataset_sha256", "dataset", ["sha256"], unique=False)
    op.create_table(
        "device_lease",
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("step_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["device.id"], name="fk_device_lease_device_id_device", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("device_id", name="pk_device_lease"),
    )
    op.create_table(
        "latency_table",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("table", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"], ["device.id"], name="fk_latency_table_device_id_device", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_latency_table"),
        sa.UniqueConstraint("key", name="uq_latency_table_key"),
    )
    op.create_index("ix_latency_table_created_at", "latency_table", ["created_at"], unique=False)
    op.create_index("ix_latency_table_device_id", "latency_table", ["device_id"], unique=False)
    op.create_table(
        "model_file",
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_model_file_model_id_model", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name="fk_model_file_sha256_blob"),
        sa.PrimaryKeyConstraint("model_id", "name", name="pk_model_file"),
    )
    op.create_index("ix_model_file_sha256", "model_file", ["sha256"], unique=False)
    op.create_table(
        "job",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("request", _JSON, nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("dataset_id", sa.String(length=36), nullable=False),
        sa.Column("calibration_id", sa.String(length=36), nullable=True),
        sa.Column("device_id", sa.String(length=36), nullable=False),
        sa.Column("prepared", _JSON, nullable=True),
        sa.Column("summary", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["calibration_id"], ["dataset.id"], name="fk_job_calibration_id_dataset", ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name="fk_job_dataset_id_dataset", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name="fk_job_device_id_device", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_job_model_id_model", ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
    )
    op.create_index("ix_job_calibration_id", "job", ["calibration_id"], unique=False)
    op.create_index("ix_job_created_at", "job", ["created_at"], unique=False)
    op.create_index("ix_job_dataset_id", "job", ["dataset_id"], unique=False)
    op.create_index("ix_job_device_id", "job", ["device_id"], unique=False)
    op.create_index("ix_job_model_id", "job", ["model_id"], unique=False)
    op.create_index("ix_job_owner", "job", ["owner"], unique=False)
    op.create_index("ix_job_owner_created", "job", ["owner", "created_at", "id"], unique=False)
    op.create_index("ix_job_state", "job", ["state"], unique=False)
    op.create_table(
        "event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_event_job_id_job", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_created_at", "event", ["created_at"], unique=False)
    op.create_index("ix_event_job_id", "event", ["job_id"], unique=False)
    op.create_table(
        "job_blob",
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_blob_job_id_job", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sha256"], ["blob.sha256"], name="fk_job_blob_sha256_blob"),
        sa.PrimaryKeyConstraint("job_id", "name", name="pk_job_blob"),
    )
    op.create_index("ix_job_blob_sha256", "job_blob", ["sha256"], unique=False)
    op.create_table(
        "trial",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("candidate", _JSON, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("params", _JSON, nullable=True),
        sa.Column("sampler_state", _JSON, nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("quality", _JSON, nullable=True),
        sa.Column("holdout", _JSON, nullable=True),
        sa.Column("measurement", _JSON, nullable=True),
        sa.Column("final_measurement", _JSON, nullable=True),
        sa.Column("predicted", _JSON, nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("facts", _JSON, nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_trial_job_id_job", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_trial"),
        sa.UniqueConstraint("job_id", "digest", name="uq_trial_job_id_digest"),
        sa.UniqueConstraint("job_id", "number", name="uq_trial_job_id_number"),
    )
    op.create_index("ix_trial_created_at", "trial", ["created_at"], unique=False)
    op.create_index("ix_trial_job_id", "trial", ["job_id"], unique=False)
    op.create_index("ix_trial_state", "trial", ["state"], unique=False)
    op.create_table(
        "export",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("trial_id", sa.String(length=36), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("files", _JSON, nullable=False),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_export_job_id_job", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_export_trial_id_trial", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_export"),
        sa.UniqueConstraint("trial_id", "format", name="uq_export_trial_id_format"),
    )
    op.create_index("ix_export_created_at", "export", ["created_at"], unique=False)
    op.create_index("ix_export_job_id", "export", ["job_id"], unique=False)
    op.create_index("ix_export_trial_id", "export", ["trial_id"], unique=False)
    op.create_table(
        "step",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("trial_id", sa.String(length=36), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("payload", _JSON, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_token", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("output", _JSON, nullable=True),
        sa.Column("error", _JSON, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_step_job_id_job", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_step_trial_id_trial", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_step"),
        sa.UniqueConstraint("job_id", "key", name="uq_step_job_id_key"),
    )
    op.create_index("ix_step_created_at", "step", ["created_at"], unique=False)
    op.create_index("ix_step_job_id", "step", ["job_id"], unique=False)
    op.create_index("ix_step_queue", "step", ["queue"], unique=False)
    op.create_index("ix_step_state_dispatched", "step", ["state", "dispatched_at"], unique=False)
    op.create_index("ix_step_trial_id", "step", ["trial_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_step_trial_id", table_name="step")
    op.drop_index("ix_step_state_dispatched", table_name="step")
    op.drop_index("ix_step_queue", table_name="step")
    op.drop_index("ix_step_job_id", table_name="step")
    op.drop_index("ix_step_created_at", table_name="step")
    op.drop_table("step")
    op.drop_index("ix_export_trial_id", table_name="export")
    op.drop_index("ix_export_job_id", table_name="export")
    op.drop_index("ix_export_created_at", table_name="export")
    op.drop_table("export")
    op.drop_index("ix_trial_state", table_name="trial")
    op.drop_index("ix_trial_job_id", table_name="trial")
    op.drop_index("ix_trial_created_at", table_name="trial")
    op.drop_table("trial")
    op.drop_index("ix_job_blob_sha256", table_name="job_blob")
    op.drop_table("job_blob")
    op.drop_index("ix_event_job_id", table_name="event")
    op.drop_index("ix_event_created_at", table_name="event")
    op.drop_table("event")
    op.drop_index("ix_job_state", table_name="job")
    op.drop_index("ix_job_owner_created", table_name="job")
    op.drop_index("ix_job_owner", table_name="job")
    op.drop_index("ix_job_model_id", table_name="job")
    op.drop_index("ix_job_device_id", table_name="job")
    op.drop_index("ix_job_dataset_id", table_name="job")
    op.drop_index("ix_job_created_at", table_name="job")
    op.drop_index("ix_job_calibration_id", table_name="job")
    op.drop_table("job")
    op.drop_index("ix_model_file_sha256", table_name="model_file")
    op.drop_table("model_file")
    op.drop_index("ix_latency_table_device_id", table_name="latency_table")
    op.drop_index("ix_latency_table_created_at", table_name="latency_table")
    op.drop_table("latency_table")
    op.drop_table("device_lease")
    op.drop_index("ix_dataset_sha256", table_name="dataset")
    op.drop_index("ix_dataset_owner", table_name="dataset")
    op.drop_index("ix_dataset_created_at", table_name="dataset")
    op.drop_table("dataset")
    op.drop_index("ix_upload_created_at", table_name="upload")
    op.drop_table("upload")
    op.drop_index("ix_model_owner", table_name="model")
    op.drop_index("ix_model_created_at", table_name="model")
    op.drop_table("model")
    op.drop_index("ix_idempotency_key_created_at", table_name="idempotency_key")
    op.drop_table("idempotency_key")
    op.drop_index("ix_device_created_at", table_name="device")
    op.drop_table("device")
    op.drop_index("ix_blob_created_at", table_name="blob")
    op.drop_table("blob")
    op.drop_index("ix_audit_entry_created_at", table_name="audit_entry")
    op.drop_table("audit_entry")
    op.drop_index("ix_api_key_created_at", table_name="api_key")
    op.drop_table("api_key")
