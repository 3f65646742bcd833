"""What tests of the stage ``recover`` ask for, and its steps."""

from sqlmodel import select

from infra.database.models import Step

GOAL = {"max_drop": 0.01}
SEARCH = {"goal": GOAL, "budget": {"seconds": None, "trials": 16}}


def recoveries(bench, job_id):
    with bench.database.read_session() as session:
        statement = select(Step).where(Step.job_id == job_id, Step.kind == "recover")
        return list(session.exec(statement.order_by(Step.created_at)))
