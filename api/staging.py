"""Bodies that are being received lie in the staging directory; a crash leaves them there."""

import time
from pathlib import Path

ABANDONED_SECONDS = 86_400.0


def remove_abandoned(directory: Path) -> int:
    """Remove files that nobody has written to for a day; return their number.

    Other processes of the service may be receiving into the same directory: young files are theirs.
    """
    oldest = time.time() - ABANDONED_SECONDS
    removed = 0
    for path in directory.iterdir():
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
                removed += 1
        except FileNotFoundError:
            continue
    return removed
