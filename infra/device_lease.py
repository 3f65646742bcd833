"""A device measures one thing at a time, wherever the workers are that want it to."""

from sqlalchemy import exists
from sqlalchemy import update
from sqlmodel import Session
from sqlmodel import col

from infra.database.clock import database_time
from infra.database.models import DeviceLease
from infra.database.models import Step
from infra.database.upsert import insert_into
from infra.steps import ClaimedStep


def acquire_device(session: Session, device_id: str, claimed: ClaimedStep, lease_seconds: float) -> bool:
    """Reserve a device for a claimed step.

    The reservation ends with the step: when the step is over, handed back or taken over, the device is free.

    Returns:
        Whether the step has the device now.
    """
    holder_works = exists().where(
        col(Step.id) == DeviceLease.step_id,
        col(Step.state) == "running",
        col(Step.lease_token) == DeviceLease.token,
    )
    statement = insert_into(session, DeviceLease).values(
        device_id=device_id,
        token=claimed.lease_token,
        step_id=claimed.id,
        expires_at=database_time(lease_seconds),
    )
    taken = session.execute(
        statement.on_conflict_do_update(
            index_elements=["device_id"],
            set_={
                "token": statement.excluded.token,
                "step_id": statement.excluded.step_id,
                "expires_at": statement.excluded.expires_at,
            },
            where=~holder_works,
        ).returning(col(DeviceLease.token))
    ).one_or_none()
    return taken is not None


def renew_device(session: Session, claimed: ClaimedStep, lease_seconds: float) -> None:
    """Prolong the reservation together with the lease of its step."""
    session.execute(
        update(DeviceLease)
        .where(col(DeviceLease.token) == claimed.lease_token)
        .values(expires_at=database_time(lease_seconds))
        .execution_options(synchronize_session=False)
    )
