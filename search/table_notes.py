"""Says in words what a device's latency table has found: rewarded widths, and how well it predicts whole models."""

from compressors.options.levels import USUAL_STEP
from search.options import BranchTable
from search.options import WidthStep


def describe_steps(table: BranchTable | None) -> str | None:
    """Return a sentence for notices and reports; ``None`` where no widths were compared."""
    if table is None or not table.width_steps:
        return None
    parts = [f"{_title(entry)} {_finding(entry)}" for entry in table.width_steps]
    return f"Feed-forward widths that this device rewards, by its latency table: {'; '.join(parts)}."


def describe_checks(table: BranchTable | None) -> str | None:
    """Return a sentence for reports; ``None`` where no whole models were timed."""
    if table is None or not table.checks:
        return None
    parts = [
        f"{entry.predicted:.3g} for the {entry.name} model {_format(entry.bits, entry.precision)}, which took "
        f"{entry.measured.value:.3g} ({entry.error:+.1%})"
        for entry in table.checks
    ]
    return (
        f"The latency table predicts, as fractions of the dense reference's time, {'; '.join(parts)}. "
        f"Before candidates are measured, predictions are held to be good to {table.prediction_error:.1%} at best."
    )


def _title(entry: WidthStep) -> str:
    return _format(entry.bits, entry.precision)


def _format(bits: int, precision: str) -> str:
    return f"with {bits} bits" if bits < 16 else f"in {precision}"


def _finding(entry: WidthStep) -> str:
    if entry.step is None:
        return f"times of near widths do not differ clearly, so multiples of {USUAL_STEP} are tried"
    return f"multiples of {entry.step}"
