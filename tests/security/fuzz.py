"""``python -m tests.security.fuzz``: a long run of generated requests against a service that really runs.

Single requests to every operation and chains of requests, other ones in every round, until the time is over or an
answer is wrong. Prints how often each operation was answered with which status; exits with 1 if anything was wrong.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from infra.database.migrate import upgrade
from infra.settings import load_settings
from tests.security.fuzz_runs import chains
from tests.security.fuzz_runs import single_requests
from tests.security.fuzz_target import Target
from tests.security.fuzz_target import running_target


def main() -> int:
    """Run until the time is over; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long")
    parser.add_argument("--examples", type=int, default=50, help="requests for each operation, and chains, in a round")
    parser.add_argument("--steps", type=int, default=25, help="longest chain")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        template, home = Path(directory) / "template", Path(directory) / "home"
        home.mkdir()
        upgrade(load_settings(home=template))
        with running_target(home, template / "paretune.db") as target:
            while not wrong and time.monotonic() < deadline:
                wrong = single_requests(target, arguments.examples, derandomize=False)
                wrong += chains(target, arguments.examples, arguments.steps, seed=random.getrandbits(32))
            print_answers(target)
        log = target.log.read_text(errors="replace")
        if "Traceback" in log:
            wrong.append(f"The service's log has a traceback:\n{log[log.index('Traceback') :][:5000]}")
    sys.stdout.write("\n\n".join(wrong) + "\n" if wrong else "Nothing was wrong.\n")
    return 1 if wrong else 0


def print_answers(target: Target) -> None:
    """Print a line for each operation."""
    for label in sorted({label for label, _ in target.answers}):
        counts = sorted((status, count) for (name, status), count in target.answers.items() if name == label)
        sys.stdout.write(f"{label}: {', '.join(f'{count} x {status}' for status, count in counts)}\n")
    sys.stdout.write(f"{target.answers.total()} requests\n")


if __name__ == "__main__":
    sys.exit(main())
