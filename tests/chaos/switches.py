"""How the faults reach the inside of a worker: names that :mod:`tests.chaos.worker_app` looks at."""

SKEW = "CHAOS_SKEW_SECONDS"
"""Environment variable: by how many seconds the worker's clock is wrong."""
DISK_FULL = "disk-full"
"""File in the home: while it exists the store's disk is full."""
SLOW_STORE = "slow-store"
"""File in the home: while it exists every upload takes a second longer."""
