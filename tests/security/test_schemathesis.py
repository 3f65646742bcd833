"""A bounded run of what ``python -m tests.security.fuzz`` does for longer, on a service that really runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.fuzz_runs import chains
from tests.security.fuzz_runs import single_requests
from tests.security.fuzz_target import Target
from tests.security.fuzz_target import running_target

CREATED_BY_CHAINS = {"POST /v1/models", "POST /v1/datasets", "POST /v1/keys"}


@pytest.fixture
def target(tmp_path: Path, empty_database: Path) -> Iterator[Target]:
    with running_target(tmp_path, empty_database) as target:
        yield target
    log = target.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert target.key.partition(".")[2] not in log


def test_every_operation(target: Target) -> None:
    wrong = single_requests(target, examples=12, derandomize=True)
    assert wrong == [], "\n\n".join(wrong)
    assert len(target.succeeded()) > 25


def test_chains_of_operations(target: Target) -> None:
    wrong = [problem for seed in range(4) for problem in chains(target, examples=10, steps=15, seed=seed)]
    assert wrong == [], "\n\n".join(wrong)
    assert target.succeeded() >= CREATED_BY_CHAINS
    assert len([label for label in target.succeeded() if "{" in label]) >= 5  # answers do feed later requests
