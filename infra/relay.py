"""Sends the messages that the database says are due."""

from collections.abc import Collection

from infra import steps
from infra.database.engine import Database
from infra.errors import UnavailableError
from infra.queue import StepQueue

_LOST_AFTER_SECONDS = 10.0
"""A worker that has taken a message claims its step well within this time."""


def relay(database: Database, queue: StepQueue) -> int:
    """Send a message for every due step that has none; call it after a commit that created steps, and regularly.

    Sending comes before noting that it was sent: a crash in between sends twice, which is harmless.

    Returns:
        Number of messages sent. When the broker is away this is less than what is due, and the rest stays due.

    Raises:
        UnavailableError: The database does not answer.
    """
    with database.read_session() as session:
        due = [(step.id, step.queue, step.priority) for step in steps.undispatched(session)]
    sent = []
    for step_id, queue_name, priority in due:
        try:
            queue.dispatch(step_id, queue_name, priority)
        except UnavailableError:
            break
        sent.append(step_id)
    if sent:
        with database.write_session() as session:
            steps.mark_dispatched(session, sent)
    return len(sent)


def recover_lost_messages(database: Database, queue: StepQueue, queues: Collection[str]) -> int:
    """Find steps that wait although the broker has no message left in their queue, and let the relay send again.

    Args:
        database: The database.
        queue: The broker.
        queues: Names of the queues to look at.

    Returns:
        Number of steps found.

    Raises:
        UnavailableError: The database or the broker does not answer.
    """
    empty = [name for name in queues if queue.depth(name) == 0]
    with database.write_session() as session:
        return sum(steps.forget_dispatch(session, name, older_than_seconds=_LOST_AFTER_SECONDS) for name in empty)
