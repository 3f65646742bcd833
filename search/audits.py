"""What the audit of a model against torch's own export has found, in words."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from compressors.export.fusion import fusions
from compressors.export.histograms import ORDER
from compressors.export.histograms import kind_of
from infra.database.models import JsonObject
from infra.database.models import Trial
from profilers.types import Estimate
from search.views import GraphAuditView
from search.views import OperatorView

ARITHMETIC = {"f32": "float32", "bf16": "bfloat16"}
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
SLOWER = (
    "Its graph takes {times} times as long as torch's own export of the same network, both in {arithmetic}. The "
    "measured time of the model is true, but its graph wastes some of what compression has won: in this arithmetic, "
    "torch.onnx.export of its torch download runs faster here."
)
NOISY = (
    "Whether its graph is as fast as torch's own export of the same network could not be told: the machine was busy "
    "(noisy)."
)


def outcome(audit: JsonObject) -> str | None:
    """Return what was found, in a sentence or two; ``None`` where the model's file failed (it has a verdict then).

    Args:
        audit: ``facts["audit"]`` of a trial.
    """
    if not audit.get("ok") or "relative_error" not in audit:
        return None
    same = f"Its file computes what torch's own export computes (relative error {audit['relative_error']:.1e})."
    latency = audit.get("latency") or {}
    verdict, times = latency.get("verdict"), _interval(latency.get("ratio"))
    if verdict in ("slower", "noisy"):
        return f"{same} {remark(audit)}"
    if verdict in ("faster", "equal"):
        told = "faster than" if verdict == "faster" else "as fast as"
        return f"{same} Its graph is {told} that export, both in {_arithmetic(audit)}: {times} of its time."
    return same


def remark(audit: JsonObject) -> str | None:
    """Return what users should know before they take the model: its graph is slow, or nobody knows."""
    latency = audit.get("latency") or {}
    if latency.get("verdict") == "slower":
        return SLOWER.format(times=_interval(latency["ratio"]), arithmetic=_arithmetic(audit))
    return NOISY if latency.get("verdict") == "noisy" else None


def remarks(trial: Trial) -> list[str]:
    """Return the notes that a model has from its audit, if there was one."""
    note = remark(trial.facts.get("audit") or {})
    return [] if note is None else [note]


def audit_view(audit: JsonObject | None) -> GraphAuditView | None:
    """Return what users see of ``facts["audit"]``; ``None``: there is none."""
    if audit is None:
        return None
    latency, operators = audit.get("latency") or {}, audit.get("operators") or {}
    written, traced = operators.get("written") or {}, operators.get("traced") or {}
    rows = [
        OperatorView(kind=kind_of(name), name=name, written=written.get(name, 0), traced=traced.get(name, 0))
        for name in sorted(written.keys() | traced.keys(), key=lambda name: (ORDER.index(kind_of(name)), name))
    ]
    return GraphAuditView(
        ok=audit["ok"],
        outcome=outcome(audit),
        latency=latency.get("verdict"),
        ratio=latency.get("ratio"),
        runtime=audit.get("runtime"),
        comparison=comparison(audit),
        operators=rows,
    )


def audit_notes(trials: Iterable[Trial]) -> list[str]:
    """Return the remarks on the audited models of a job, for the job's notes."""
    return [f"Trial {trial.number}: {said}" for trial in trials for said in remarks(trial)]


def comparison(audit: JsonObject) -> str | None:
    """Return how the executed operators of both graphs differ, by kind; ``None`` where they were not counted."""
    operators, differing = audit.get("operators") or {}, audit.get("differences")
    if differing is None or not operators.get("written") or not operators.get("traced"):
        return None
    runtime = RUNTIMES.get(audit["runtime"], audit["runtime"])
    counts = f"{sum(operators['written'].values())} operators of this graph and {sum(operators['traced'].values())} of"
    parts = [f"{runtime} executes {counts} torch's export."]
    ours, theirs = fusions(operators["written"]), fusions(operators["traced"])
    equal = [kind for kind, count in ours.items() if count and count == theirs[kind]]
    if equal:
        parts.append(f"In both it recognises as many {_listed(equal)}.")
    missing = [f"{kind} ({count} / {theirs[kind]})" for kind, count in ours.items() if count != theirs[kind]]
    if missing:
        parts.append(f"It does not recognise as many {_listed(missing)}.")
    changes = [_changes(kind, changed) for kind, changed in differing.items()]
    if changes:
        parts.append(f"Written in other ways (this graph / torch's export): {'; '.join(changes)}.")
    return " ".join(parts)


def _changes(kind: str, changed: Mapping[str, Sequence[int]]) -> str:
    """For example ``moved data: Reshape 8 / 26, Transpose 0 / 24``."""
    return f"{kind}: " + ", ".join(f"{name} {ours} / {theirs}" for name, (ours, theirs) in changed.items())


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _interval(ratio: JsonObject | None) -> str:
    if ratio is None:
        return "an unknown part"
    estimate = Estimate.model_validate(ratio)
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _arithmetic(audit: JsonObject) -> str:
    return ARITHMETIC[audit.get("precision", "f32")]
