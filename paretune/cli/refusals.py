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
_WITH_PATH = {field: option for field, option in OPTIONS.items() if "." in field}
"""Names that mean a field wherever they stand in a text; ``text_column`` may be what a user calls a column."""
_OF_REQUEST = _WITH_PATH | _BY_LAST_PART
"""Names that mean a field where the request itself was refused; ``device`` or ``name`` do not even there."""
_REFUSALS = frozenset({"invalid-request", "invalid-input", "invalid-dataset", "infeasible-goal"})


def as_typed(error: ApiError) -> ApiError:
    """Return what the service refused with options in place of the fields of its API; other errors as they are."""
    if error.code not in _REFUSALS:
        return error
    names = _OF_REQUEST if error.code == "invalid-request" else _WITH_PATH
    fields = _WITH_PATH if error.code == "invalid-dataset" else OPTIONS | _BY_LAST_PART
    errors = [_problem(problem, fields, names) for problem in error.errors]
    detail, hint = _named(error.detail, names), _named(error.hint, names)
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


def _problem(problem: dict[str, Any], fields: dict[str, str], names: dict[str, str]) -> dict[str, str]:
    parts = [part for part in str(problem.get("field", "")).split(".") if not part.isdigit()]
    field = ".".join(parts[1:] if parts[:1] in (["body"], ["query"]) else parts)
    return {"field": fields.get(field, field), "message": _named(str(problem.get("message", "")), names)}


def _named(text: str, names: dict[str, str]) -> str:
    longest_first = sorted(names, key=len, reverse=True)
    return re.sub(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", lambda found: names[found[0]], text)
