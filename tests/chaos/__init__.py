"""Random faults over running jobs: ``python -m tests.chaos --help``."""
