"""Refused requests in the words of the command line: the API names fields, who typed a command knows options."""

import re
from typing import Any

from paretune.errors import ApiError

OPTIONS = {
    "budget.seconds": "--budget",
    "budget.trials": "--trials",
    "calibration_id": "--calibration",
    "columns.label_column": "--label-column",
    "columns.second_text_column": "--second-text-column",
    "columns.text_column": "--text-column",
    "dataset_id": "--data",
    "device": "--device",
    "expires_at": "--expires",
    "format": "--format",
    "goal.max_drop": "--max-drop",
    "goal.max_latency_ms": "--max-latency",
    "goal.max_size_mb": "--max-size",
    "max_active_jobs": "--max-active-jobs",
    "max_priority": "--max-priority",
    "max_workers": "--max-workers",
    "model_id": "MODEL",
    "objective": "--objective",
    "options": "--option",
    "priority": "--priority",
    "profiler": "--profiler",
    "recover.mode": "--recover-mode",
    "recover.seconds": "--recover",
    "recover.use_labels": "--ignore-labels",
    "sampler": "--sampler",
    "scopes": "--scope",
    "seed": "--seed",
    "space.formats": "--formats",
    "space.kinds": "--kinds",
    "strategy": "--strategy",
    "task": "--task",
    "train_id": "--train",
    "trial": "--trial",
    "workload.batch": "--batch",
    "workload.sequence_length": "--sequence-length",
    "workload.threads": "--threads",
}
"""What is typed for a field of a request."""

_BY_LAST_PART = {field.rpartition(".")[2]: option for field, option in OPTIONS.items() if "_" in field}
_UNMISTAKABLE = {field: option for field, option in OPTIONS.items() if "." in field} | _BY_LAST_PART
"""Names that mean a field wherever they stand in a text; ``device`` or ``name`` do not."""
_NAMES = re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(_UNMISTAKABLE, key=len, reverse=True))) + r")\b")
_REFUSALS = frozenset({"invalid-request", "invalid-input", "invalid-dataset", "infeasible-goal"})


def as_typed(error: ApiError) -> ApiError:
    """Return what the service refused with options in place of the fields of its API; other errors as they are."""
    if error.code not in _REFUSALS:
        return error
    errors = [_problem(problem) for problem in error.errors]
    detail, hint = _named(error.detail), _named(error.hint)
    if error.code == "invalid-request" and errors:
        detail = ": ".join(filter(None, errors[0].values())) + "."
        hint = "The command with --help says what each option takes."
    return ApiError(
        detail,
        hint=hint,
        status=error.status,
        code=error.code,
        title=error.title,
        errors=errors,
        request_id=error.request_id,
    )


def _problem(problem: dict[str, Any]) -> dict[str, str]:
    parts = [part for part in str(problem.get("field", "")).split(".") if not part.isdigit()]
    field = ".".join(parts[1:] if parts[0] in {"body", "query"} else parts)
    option = OPTIONS.get(field) or _BY_LAST_PART.get(field, field)
    return {"field": option, "message": _named(str(problem.get("message", "")))}


def _named(text: str) -> str:
    return _NAMES.sub(lambda found: _UNMISTAKABLE[found[0]], text)
