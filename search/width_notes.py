"""Says in words in which steps of the width a device's kernels were found to reward narrower branches."""

from compressors.options.levels import USUAL_STEP
from search.options import BranchTable
from search.options import WidthStep


def describe_steps(table: BranchTable | None) -> str | None:
    """Return a sentence for notices and reports; ``None`` where no widths were compared."""
    if table is None or not table.width_steps:
        return None
    parts = [f"{_title(entry)} {_finding(entry)}" for entry in table.width_steps]
    return f"Feed-forward widths that this device rewards, by its latency table: {'; '.join(parts)}."


def _title(entry: WidthStep) -> str:
    return f"with {entry.bits} bits" if entry.bits < 16 else f"in {entry.precision}"


def _finding(entry: WidthStep) -> str:
    if entry.step is None:
        return f"times of near widths do not differ clearly, so multiples of {USUAL_STEP} are tried"
    return f"multiples of {entry.step}"
