"""``python -m workers.checkup``: prints the findings about this host, with the settings of the environment, as JSON."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from pydantic import ValidationError

from infra.errors import ParetuneError
from infra.settings import Settings
from infra.settings import load_settings
from workers.checkup.findings import Check
from workers.checkup.findings import Finding
from workers.checkup.home import check_api_key
from workers.checkup.home import check_home
from workers.checkup.home import check_listening
from workers.checkup.host import check_clock
from workers.checkup.host import check_cores
from workers.checkup.host import check_memory
from workers.checkup.runner import check_backends
from workers.checkup.runner import check_sandbox
from workers.checkup.services import check_broker
from workers.checkup.services import check_database
from workers.checkup.services import check_store

CHECKS: dict[str, Check] = {
    "home": check_home,
    "api key file": check_api_key,
    "port": check_listening,
    "database": check_database,
    "broker": check_broker,
    "store": check_store,
    "cores": check_cores,
    "memory": check_memory,
    "clock": check_clock,
    "sandbox": check_sandbox,
    "profilers": check_backends,
}


def examine() -> Iterator[Finding]:
    """Run all checks; one that fails unexpectedly is itself a finding."""
    try:
        settings = load_settings()
    except ValidationError as error:
        for problem in error.errors():
            name = f"PARETUNE_{str(problem['loc'][0]).upper()}"
            yield Finding("settings", "problem", f"{name}: {problem['msg']}", "Correct or unset the variable.")
        return
    for name, check in CHECKS.items():
        yield from _run(name, check, settings)


def _run(name: str, check: Check, settings: Settings) -> Iterator[Finding]:
    try:
        yield from check(settings)
    except ParetuneError as error:
        yield Finding(name, "problem", error.explain(), error.hint)
    except Exception as error:  # the other checks are still worth something
        detail = f"cannot be checked: {type(error).__name__}: {str(error)[:200]}"
        yield Finding(name, "problem", detail, "This is a mistake in Paretune if the rest is fine: report it.")


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(finding) for finding in examine()]) + "\n")
