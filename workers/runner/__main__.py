"""``python -m workers.runner OPTIONS``: started by :class:`workers.runner.process.RunnerProcess`."""

import sys

from workers.runner.main import main

main(sys.argv[1])
