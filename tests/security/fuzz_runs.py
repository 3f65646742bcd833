"""Requests made from the OpenAPI document: one operation at a time, and chains in which answers feed later requests."""

import random
from contextlib import suppress

import schemathesis
from hypothesis import HealthCheck
from hypothesis import Phase
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from tests.security.fuzz_target import CHECKS
from tests.security.fuzz_target import Target

_STREAM = "/events$"
_REQUEST_SECONDS = 30


def single_requests(target: Target, examples: int, *, derandomize: bool) -> list[str]:
    """Send valid and invalid requests to every operation, mostly about things that exist; return what is wrong."""
    wrong = []
    operations = [result.ok() for result in target.schema().get_all_operations()]
    assert len(operations) > 30
    for operation in operations:
        try:
            _exercise(operation, target, examples, derandomize=derandomize)
        except Exception as error:  # all operations are tried before failing
            wrong.append(f"{operation.label}: {error}")
    return wrong


def _exercise(operation: schemathesis.APIOperation, target: Target, examples: int, *, derandomize: bool) -> None:
    deletes = operation.method == "delete" or operation.path.endswith("/rotate")
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=derandomize,
        database=None,
    )
    @given(st.data())
    def send(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(modes))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if not deletes and data.draw(st.integers(0, 3)):
            target.point_at_what_exists(case)
        target.spare_what_is_needed(case)
        response = case.call(headers=target.headers, timeout=_REQUEST_SECONDS)
        target.note(case, response)
        case.validate_response(response, checks=CHECKS)

    send()


def chains(target: Target, examples: int, steps: int, seed: int) -> list[str]:
    """Send chains of requests: create, then read, change, cancel and delete what was created; return what is wrong.

    Event streams are left out: those of jobs that nobody works on do not end.
    """
    wrong: list[str] = []

    class Chain(target.schema().exclude(path_regex=_STREAM).as_state_machine()):  # type: ignore[misc]
        _hypothesis_internal_use_seed = seed

        def before_call(self, case: schemathesis.Case) -> None:
            if random.random() < 0.8:
                target.give_what_fits(case)
            if "job_id" in case.path_parameters and case.operation.method != "delete" and random.random() < 0.8:
                case.path_parameters["job_id"] = target.ids["job_id"]
            target.spare_what_is_needed(case)

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, object]:
            return {"headers": target.headers, "timeout": _REQUEST_SECONDS}

        def after_call(self, response: schemathesis.Response, case: schemathesis.Case) -> None:
            super().after_call(response, case)
            target.note(case, response)

        def validate_response(
            self, response: schemathesis.Response, case: schemathesis.Case, **_options: object
        ) -> None:
            try:
                case.validate_response(response, checks=CHECKS)
            except Exception as error:  # not raised: the same chain would not meet the same state again
                wrong.append(f"{case.operation.label}: {error}")

    # What is drawn depends on what was answered, which Hypothesis takes for a flaky strategy sooner or later.
    with suppress(Flaky):
        Chain.run(
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
                phases=[Phase.generate],
            )
        )
    return wrong
