"""Which rivals of the never-slower guard are missing in a job's comparison, and why, in words."""

from collections.abc import Iterable
from collections.abc import Sequence

from infra.database.models import Trial
from profilers.types import Measurement
from search.candidates import baseline_of
from search.candidates import is_dense
from search.parity import exclusion
from search.standing import DENSE
from search.standing import is_confirmed

FAILED = "Nothing is held against {name}: it failed. {reason}"
GIVEN_UP = "Nothing is held against {name}: no time was left for it."
UNCONFIRMED = "Nothing is held against {name}: it has no final numbers. {reason}"
EXCLUDED = "Nothing is held against {name}: {reason}."
NONE_CONFIRMED = "No model has final numbers: all are those of the search. {reason}"


def rival_notes(trials: Sequence[Trial], *, over: bool) -> list[str]:
    """Return what is to be said of baselines, and of the dense model in its best graph, that nothing is held against.

    Args:
        trials: All trials of the job.
        over: The job has made its final measurements, or gone without; before, only failures are told.
    """
    rivals = [trial for trial in trials if trial.source == "baseline" or is_dense(trial.candidate)]
    notes = [note for trial in rivals if (note := _missing(trial)) is not None]
    if not over:
        return notes
    complete = [trial for trial in rivals if trial.state == "complete"]
    if any(is_confirmed(trial) for trial in trials):
        return notes + [note for trial in complete if (note := _left_out(trial)) is not None]
    reason = _confirm_reason(trials)
    return [*notes, NONE_CONFIRMED.format(reason=reason).strip()] if complete else notes


def _missing(trial: Trial) -> str | None:
    if trial.state == "failed":
        return FAILED.format(name=_name(trial), reason=_words(trial.error)).strip()
    return GIVEN_UP.format(name=_name(trial)) if trial.state == "cancelled" else None


def _left_out(trial: Trial) -> str | None:
    """Return why a measured rival is in no comparison of final numbers."""
    row = trial.final_measurement or trial.measurement
    excluded = exclusion(trial, Measurement.model_validate(row)) if row else None
    if excluded is not None:
        return EXCLUDED.format(name=_name(trial), reason=excluded.rstrip("."))
    if is_confirmed(trial):
        return None
    return UNCONFIRMED.format(name=_name(trial), reason=_confirm_reason([trial])).strip()


def _name(trial: Trial) -> str:
    baseline = baseline_of(trial.candidate)
    return f"the baseline {baseline}" if baseline else DENSE


def _confirm_reason(trials: Iterable[Trial]) -> str:
    errors = [trial.facts["confirm_error"] for trial in trials if trial.facts.get("confirm_error")]
    return _words(errors[0]) if errors else ""


def _words(error: dict[str, object] | None) -> str:
    """Return the message and the hint of a problem."""
    return " ".join(str(error[key]) for key in ("message", "hint") if error.get(key)) if error else ""
