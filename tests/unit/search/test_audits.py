"""What an audit has found, in the words that users read."""

from typing import Any

import pytest

from compressors.export.histograms import differences
from infra.database.models import Trial
from search.audits import audit_notes
from search.audits import audit_view
from search.audits import comparison
from search.audits import outcome
from search.audits import remark

WRITTEN = {"MatMul": 13, "LayerNormalization": 5, "Softmax": 2, "Gelu": 2, "Add": 9}
TRACED = {"MatMul": 13, "LayerNormalization": 5, "Softmax": 2, "Gelu": 1, "Add": 9, "Transpose": 8, "Erf": 1}


def audited(verdict: str | None = None, **more: Any) -> dict[str, Any]:
    """Facts of an audit, as the stage writes them."""
    ratio = None if verdict == "noisy" else {"value": 1.08, "low": 1.05, "high": 1.11}
    latency = {} if verdict is None else {"latency": {"verdict": verdict, "ratio": ratio}}
    counted = {"runtime": "onnxruntime", "operators": {"written": WRITTEN, "traced": TRACED}}
    found = {"ok": True, "relative_error": 2e-6, "tolerance": 1e-3, "differences": differences(WRITTEN, TRACED)}
    return found | counted | latency | more


def test_a_slower_graph_is_told_with_its_meaning() -> None:
    said = remark(audited("slower", precision="bf16"))
    assert said is not None
    assert "1.08 (1.05 to 1.11) times as long as torch's own export" in said
    assert "both in bfloat16" in said
    assert "The measured time of the model is true" in said
    assert said in (outcome(audited("slower", precision="bf16")) or "")


def test_noise_is_told_as_noise() -> None:
    said = remark(audited("noisy"))
    assert said is not None
    assert "noisy" in said
    view = audit_view(audited("noisy"))
    assert view is not None
    assert (view.latency, view.ratio) == ("noisy", None)


@pytest.mark.parametrize(("verdict", "words"), [("faster", "faster than that export"), ("equal", "as fast as")])
def test_what_is_as_it_should_be_is_no_remark(verdict: str, words: str) -> None:
    assert remark(audited(verdict)) is None
    assert words in (outcome(audited(verdict)) or "")


def test_a_failed_audit_has_a_verdict_in_place_of_an_outcome() -> None:
    failed = {"ok": False, "message": "The emitted graph is another function.", "seconds": 3.0}
    assert outcome(failed) is None
    view = audit_view(failed)
    assert view is not None
    assert (view.ok, view.operators, view.comparison) == (False, [], None)
    assert audit_view(None) is None


def test_an_audit_of_an_earlier_version_can_be_read() -> None:
    old = audited("faster")
    del old["differences"], old["runtime"]
    view = audit_view(old)
    assert view is not None
    assert view.comparison is None
    assert view.latency == "faster"


def test_operators_are_compared_by_kind() -> None:
    words = comparison(audited())
    assert words is not None
    assert words.startswith("ONNX Runtime executes 31 operators of this graph and 39 of torch's export.")
    assert "In both it recognises as many norms and attentions." in words
    assert "It does not recognise as many activations (2 / 1)." in words
    assert "activations: Erf 0 / 1, Gelu 2 / 1" in words
    assert "moved data: Transpose 0 / 8" in words
    fused = {"written": WRITTEN | {"Softmax": 0, "Subgraph[MatMul, Softmax]": 2}, "traced": WRITTEN}
    words = comparison(audited(operators=fused, differences=differences(fused["written"], WRITTEN)))
    assert words is not None
    assert "as many norms, attentions and activations" in words
    assert "attentions: Softmax 0 / 2, Subgraph[MatMul, Softmax] 2 / 0" in words, (
        "one layer, alone or with its products"
    )
    view = audit_view(audited())
    assert view is not None
    rows = {(row.kind, row.name): (row.written, row.traced) for row in view.operators}
    assert rows["moved data", "Transpose"] == (0, 8)
    assert len(rows) == len(WRITTEN | TRACED), "all of them, not only those that differ"


def test_notes_of_a_job_name_the_trial() -> None:
    trials = [
        Trial(number=number, facts=facts)
        for number, facts in enumerate([{}, {"audit": audited("slower")}, {"audit": audited("faster")}])
    ]
    (note,) = audit_notes(trials)
    assert note.startswith("Trial 1: Its graph takes 1.08")
