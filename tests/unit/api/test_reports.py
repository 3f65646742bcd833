"""Reports as pages and pictures, of real rows."""

import re
import struct
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.database.models import Job
from infra.database.models import Trial
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.conftest import upload_dataset
from tests.unit.api.conftest import upload_model
from tests.unit.api.outcome import EMBEDDING_QUALITY
from tests.unit.api.outcome import add_outcome
from tests.unit.api.outcome import add_trial

# An even number of dollars would be a formula to Matplotlib.
HOSTILE = (
    "\"><script>alert(1)</script>' onload=x <img src=//evil.example/x> $\\frac{$ {{7*7}} &amp; \u202e\n" + "ä" * 80
)
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """A page whose elements are all closed in order; its elements and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), attrs
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += " " + " ".join(data.split())

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.elements if name in attributes]


def assert_stands_alone(page: Page, text: str) -> None:
    """Nothing is loaded, nothing is executed, every reference leads into the page."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert not names & {"src", "srcset", "action", "data", "xlink:href"}
    assert not [name for name in names if name.startswith("on")]
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert all(target.startswith("#") and target[1:] in ids for target in page.attributes("href"))
    labels = [name for value in page.attributes("aria-labelledby") for name in value.split()]
    assert set(labels) <= set(ids)
    assert not re.search(r"@import|url\(|https?:", text)


def assert_accessible(page: Page) -> None:
    counts = {tag: sum(name == tag for name, _ in page.elements) for tag in ("table", "caption", "svg", "desc", "h1")}
    assert counts["table"] == counts["caption"] > 0
    assert counts["svg"] == counts["desc"]
    assert counts["h1"] == 1
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")
    assert ("html", {"lang": "en"}) in page.elements


@pytest.fixture
def job_id(world: World, client: TestClient) -> str:
    job = submit(client, goal={"max_drop": 0.01})
    with world.services.database.write_session() as session:
        add_outcome(session, session.get_one(Job, job["id"]))
    return str(job["id"])


def confirm(world: World, job_id: str) -> None:
    """Give every trial final numbers, and the job a summary, as its finish does."""
    with world.services.database.write_session() as session:
        job = session.get_one(Job, job_id)
        for trial in session.exec(select(Trial).where(Trial.job_id == job_id)):
            assert trial.quality is not None
            assert trial.measurement is not None
            drop = {name: value + 0.002 for name, value in trial.quality["drop"].items()}
            trial.holdout = trial.quality | {"split": "holdout", "drop": drop, "details": {"mcnemar_p": 0.125}}
            trial.final_measurement = trial.measurement | {"peak_memory_mb": 77.0, "processes": 3}
            trial.predicted = {"ratio": 1.1 * trial.measurement["ratio"]["value"], "low": 0.0, "high": 2.0}
            session.add(trial)
        job.state, job.stage = "succeeded", "done"
        wall = {"total": 100.0, "queued": 0.0, "prepare": 4.0, "learn": 0.0, "search": 90.0, "finalise": 6.0}
        prediction = {"median_relative_error": 0.1, "trials": 4}
        job.summary = {"hint": "Deploy it.", "wall_seconds": wall, "prediction": prediction, "notes": ["no sparsity"]}
        session.add(job)


def read(client: TestClient, path: str) -> tuple[Page, str]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert_stands_alone(page, answer.text)
    assert_accessible(page)
    return page, answer.text


def test_the_page_shows_every_model_of_the_front_with_its_numbers(
    world: World, client: TestClient, job_id: str
) -> None:
    confirm(world, job_id)
    page, text = read(client, f"/v1/jobs/{job_id}/report.html")
    front = client.get(f"/v1/jobs/{job_id}/front").json()
    rows = set(page.attributes("data-trial"))
    assert rows == {str(view["number"]) for view in [*front["points"], *front["baselines"]]} == {"0", "1", "2", "3"}
    assert [value for value in page.attributes("id") if re.fullmatch(r"trial-\d+", value)] == ["trial-3", "trial-2"]
    assert front["message"] in page.words
    for words in (
        "3.33",  # x fp32 of trial 2
        "1.67",  # x int8_one_liner
        "3.30 +10.0%",  # predicted latency and its error
        "+1.00 +0.90…+1.10",  # loss of trial 2 in points
        "77",  # memory
        "+0.20",  # optimism
        "p = 0.125",
        "1 min 30 s",  # of the search
        "Deploy it.",
        "1 of 2",  # heads
        "8 of 16",  # FFN width
        "median error of 10.0%",
        "paretune best " + job_id + " --trial 2 --format onnx",
    ):
        assert words in page.words, words
    usage = client.get(f"/v1/jobs/{job_id}/report").json()["usage"]
    assert len(usage) == 3
    assert all(line.split("(")[0] in page.words for line in usage)
    assert text.count('class="heat"') == 2


def test_the_page_says_what_was_fused_and_what_flatters(world: World, client: TestClient, job_id: str) -> None:
    unknown = "attention is hidden in other layers"
    with world.services.database.write_session() as session:
        for trial in session.exec(select(Trial).where(Trial.job_id == job_id)):
            counted = {"expected": {"norms": 5}, "found": {"norms": 5 if trial.number != 3 else 4}}
            counted |= {"reference_expected": {"norms": 5}, "reference_found": {"norms": 0}}
            fusions: dict[str, Any] = {"fusions": counted, "fusion_parity": False}
            trial.measurement = trial.measurement | (fusions if trial.number else {"fusion_unknown": unknown})
            products = {"candidate": {"products": {"f32": 3, "int8": 12}}}
            trial.measurement = trial.measurement | ({"facts": {"models": products}} if trial.number == 2 else {})
            session.add(trial)
    front = client.get(f"/v1/jobs/{job_id}/front").json()
    assert [view["number"] for view in front["points"]] == [2], "trial 3 lacks a fused norm"
    page, _ = read(client, f"/v1/jobs/{job_id}/report.html")
    assert "5 of 5 norms ; reference: 0 of 5 norms" in page.words.replace(";", " ;").replace("  ", " ")
    assert front["reference_note"] in page.words
    assert "fuses only 4 of 5 norms of its graph" in page.words
    best = client.get(f"/v1/jobs/{job_id}/best").json()
    assert best["latency"]["fusion_parity"] is False
    assert best["latency"]["fusions"]["found"] == {"norms": 5}
    assert best["latency"]["products"] == {"f32": 3, "int8": 12}
    assert "3 of 15 in f32, 12 of 15 in int8" in page.words
    assert front["baselines"][0]["latency"]["products"] is None
    assert front["baselines"][0]["latency"]["fusion_unknown"] == unknown


def test_the_page_says_what_the_audit_found_and_which_baseline_is_missing(
    world: World, client: TestClient, job_id: str
) -> None:
    verdicts = {2: {"verdict": "slower", "ratio": {"value": 1.08, "low": 1.05, "high": 1.11}}}
    verdicts[3] = {"verdict": "noisy", "ratio": None}
    operators = {"written": {"MatMul": 13, "Gelu": 2}, "traced": {"MatMul": 13, "Gelu": 2, "Transpose": 8}}
    with world.services.database.write_session() as session:
        for trial in session.exec(select(Trial).where(Trial.job_id == job_id)):
            audit = {"ok": True, "relative_error": 2e-6, "runtime": "openvino", "operators": operators}
            audit |= {"differences": {"moved data": {"Transpose": [0, 8]}}, "precision": "bf16"}
            if trial.number in verdicts:
                trial.facts = trial.facts | {"audit": audit | {"latency": verdicts[trial.number]}}
            elif trial.candidate.get("name") != "fp32":
                trial.state, trial.error = "failed", {"message": "NNCF broke.", "hint": "Update it."}
            session.add(trial)
    front = client.get(f"/v1/jobs/{job_id}/front").json()
    (missing,) = front["notes"]
    assert missing.endswith("it failed. NNCF broke. Update it.")
    page, _ = read(client, f"/v1/jobs/{job_id}/report.html")
    assert missing in page.words
    slower = client.get(f"/v1/jobs/{job_id}/trials/2").json()
    (note,) = slower["notes"]
    assert "1.08 (1.05 to 1.11) times as long" in note
    assert slower["audit"]["operators"][-1] == {"kind": "moved data", "name": "Transpose", "written": 0, "traced": 8}
    for number, words in ((2, ("graph slower than torch’s export", note)), (3, ("noisy", "could not be told"))):
        page, _ = read(client, f"/v1/jobs/{job_id}/trials/{number}/report.html")
        for said in (*words, "OpenVINO executes 15 operators of this graph and 23", "moved data: Transpose 0 / 8"):
            assert said in page.words, (number, said)


def test_of_embeddings_the_page_shows_what_is_left_of_the_similarities(
    world: World, client: TestClient, job_id: str
) -> None:
    confirm(world, job_id)
    with world.services.database.write_session() as session:
        for trial in session.exec(select(Trial).where(Trial.job_id == job_id)):
            trial.holdout = (trial.holdout or {}) | EMBEDDING_QUALITY
            session.add(trial)
    for path in (f"/v1/jobs/{job_id}/report.html", f"/v1/jobs/{job_id}/trials/2/report.html"):
        page, _ = read(client, path)
        for words in ("neighbours kept", "90.7%", "rank correlation", "0.9917", "mean cosine 0.9925", "0.9811"):
            assert words in page.words, (path, words)
        assert "McNemar" not in page.words


def test_what_was_asked_for_is_shown_in_full(client: TestClient) -> None:
    recover = {"seconds": 1200, "losses": {"hidden": 0.5, "task": 0.0}}
    page, _ = read(client, f"/v1/jobs/{submit(client, recover=recover)['id']}/report.html")
    assert "seconds 1200" in page.words
    assert re.search(r"losses \(task 0.0, .*hidden 0.5,.*\), temperature 1.0, .*use_labels True", page.words)
    assert "kinds heads, ffn, depth" in page.words


def test_models_beside_the_front_are_listed_with_the_loss_that_they_are_drawn_at(
    world: World, client: TestClient, job_id: str
) -> None:
    with world.services.database.write_session() as session:
        layer = LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=4))
        candidate = RecipeCandidate(recipe=Recipe(layers=(layer, layer)))
        lucky = add_trial(session, session.get_one(Job, job_id), 4, candidate, 0.9, 0.04)
        lucky.quality = (lucky.quality or {}) | {"fidelity": 0.9, "drop": {"value": -0.02, "low": -0.06, "high": 0.02}}
    (other,) = client.get(f"/v1/jobs/{job_id}/report").json()["others"]
    seen, expected = 100 * other["quality"]["drop"]["value"], 100 * other["quality"]["expected_drop"]
    assert abs(seen - expected) > 1
    page, _ = read(client, f"/v1/jobs/{job_id}/report.html")
    others = " ".join(page.words.partition("Measured, but not on the front")[2].split())
    assert "loss, points loss expected size" in others
    assert f"{seen:+.2f} {expected:+.2f}" in others


@pytest.mark.parametrize("stage", ["queued", "running", "confirmed"])
def test_reports_can_be_read_at_any_moment(world: World, client: TestClient, stage: str) -> None:
    job_id = submit(client)["id"]
    if stage != "queued":
        with world.services.database.write_session() as session:
            add_outcome(session, session.get_one(Job, job_id))
    if stage == "confirmed":
        confirm(world, job_id)
    page, _ = read(client, f"/v1/jobs/{job_id}/report.html")
    assert ("Provisional" in page.words) == (stage != "confirmed")
    assert ("Nothing has been measured yet" in page.words) == (stage == "queued")
    assert png_size(client, f"/v1/jobs/{job_id}/report.png") == (1350, 825)


def test_the_names_of_the_baselines_are_beside_their_marks(client: TestClient, job_id: str) -> None:
    page, _ = read(client, f"/v1/jobs/{job_id}/report.html")
    names = [attributes for tag, attributes in page.elements if (tag, attributes.get("class")) == ("text", "name")]
    places = {(float(name["x"] or 0) + float(name["dx"] or 0), name["y"], name["dy"]) for name in names}
    assert len(places) == len(names) == 2
    assert {name["text-anchor"] for name in names} <= {"start", "middle", "end"}


def test_names_of_users_are_text(world: World, client: TestClient) -> None:
    model = upload_model(client, name=HOSTILE[:100].replace("\n", " "))
    body = {"model_id": model["id"], "dataset_id": upload_dataset(client)["id"], "name": HOSTILE}
    created = client.post("/v1/jobs", json=body)
    assert created.status_code == 202, created.text
    job_id = created.json()["id"]
    with world.services.database.write_session() as session:
        job = session.get_one(Job, job_id)
        for trial in add_outcome(session, job):
            trial.facts = {"name": HOSTILE, "rejected": HOSTILE}
        job.error = {"title": HOSTILE, "message": HOSTILE, "hint": HOSTILE}
        session.add(job)
    for path in (f"/v1/jobs/{job_id}/report.html", f"/v1/jobs/{job_id}/trials/2/report.html"):
        page, _ = read(client, path)
        assert "<script>alert(1)</script>" in page.words
        assert "{{7*7}}" in page.words
    for path in (f"/v1/jobs/{job_id}/report.png", f"/v1/jobs/{job_id}/trials/2/report.png"):
        assert png_size(client, path)[0] == 1350


def png_size(client: TestClient, path: str) -> tuple[int, int]:
    """Check the signature of a picture and return its width and height in pixels."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    assert answer.content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", answer.content[16:24])
    return width, height


def test_the_heat_map_says_what_was_removed(world: World, client: TestClient, job_id: str) -> None:
    layers = (
        LayerRecipe(
            attention=AttentionRecipe(heads=1, rank=2, bits=8),
            feed_forward=FeedForwardRecipe(intermediate_size=0),
        ),
        LayerRecipe(removed=True),
    )
    with world.services.database.write_session() as session:
        job = session.get_one(Job, job_id)
        add_trial(session, job, 4, RecipeCandidate(recipe=Recipe(layers=layers)), 0.1, 0.3)
    page, text = read(client, f"/v1/jobs/{job_id}/trials/4/report.html")
    cells = re.findall(r'--removed: ([\d.]+)">([^<]*)<', text)
    assert cells == [
        ("0.500", "1 of 2"),
        ("0.500", "2 of 4"),
        ("0.000", "0%"),
        ("0.750", "8"),
        ("1.000", "0 of 16"),
        *[("1.000", "gone")] * 3,
        ("1.000", "0 of 2"),
        *[("1.000", "gone")] * 3,
        ("1.000", "0 of 16"),
        *[("1.000", "gone")] * 3,
    ]
    assert "trial-4" in page.words
    assert png_size(client, f"/v1/jobs/{job_id}/trials/4/report.png")[0] == 1350


def test_a_merged_layer_is_not_shown_as_one_that_was_removed(world: World, client: TestClient, job_id: str) -> None:
    with world.services.database.write_session() as session:
        job = session.get_one(Job, job_id)
        for number, merged in ((4, 1), (5, 0)):
            layers = (LayerRecipe(merged=merged), LayerRecipe(removed=True))
            add_trial(session, job, number, RecipeCandidate(recipe=Recipe(layers=layers)), 0.1, 0.3)
    found = {}
    for number in (4, 5):
        text = read(client, f"/v1/jobs/{job_id}/trials/{number}/report.html")[1]
        rows = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', text.split('class="heat"')[1], re.DOTALL)
        found[number] = {name: re.findall(r">([^<]+)</td>", cells) for name, cells in rows}
        assert png_size(client, f"/v1/jobs/{job_id}/trials/{number}/report.png")[0] == 1350
    assert list(found[4]) == ["0, merged with 1", "1, merged into 0"]
    assert found[4]["1, merged into 0"] == ["merged"] * 8
    assert list(found[5]) == ["0", "1"]
    assert "gone" in found[5]["1"]
    structure = client.get(f"/v1/jobs/{job_id}/trials/4").json()["layers"]
    assert [(layer["merged"], layer["merged_into"]) for layer in structure] == [(1, None), (0, 0)]


def test_a_baseline_has_a_page_but_no_heat_map(client: TestClient, job_id: str) -> None:
    page, text = read(client, f"/v1/jobs/{job_id}/trials/1/report.html")
    assert "int8_one_liner" in page.words
    assert 'class="heat"' not in text
    refused = client.get(f"/v1/jobs/{job_id}/trials/1/report.png")
    assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")
    assert refused.json()["hint"]
    assert client.get(f"/v1/jobs/{job_id}/trials/77/report.html").status_code == 404


@pytest.mark.parametrize("path", ["report.html", "report.png", "trials/2/report.html", "trials/2/report.png"])
def test_conditions_owners_and_headers(client: TestClient, stranger: TestClient, job_id: str, path: str) -> None:
    answer = client.get(f"/v1/jobs/{job_id}/{path}")
    tag = answer.headers["etag"]
    same = client.get(f"/v1/jobs/{job_id}/{path}", headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert client.get(f"/v1/jobs/{job_id}/{path}", headers={"If-None-Match": '"old"'}).status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'none'")
    assert policy.get("style-src", "'unsafe-inline'") == "'unsafe-inline'"
    assert not policy.keys() & {"script-src", "img-src", "font-src", "connect-src"}
    refused = stranger.get(f"/v1/jobs/{job_id}/{path}")
    assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json")


def test_json_tells_how_well_the_stages_rank_the_models(world: World, client: TestClient, job_id: str) -> None:
    def rows() -> dict[tuple[str, str], Any]:
        report = client.get(f"/v1/jobs/{job_id}/report").json()
        return {(row["early"], row["late"]): (row["rank_correlation"], row["models"]) for row in report["agreement"]}

    assert rows()["divergence", "drop"] == (None, 2)  # two models have no order worth a number
    with world.services.database.write_session() as session:
        job = session.get_one(Job, job_id)
        for number, (divergence, drop) in enumerate([(0.2, 0.1), (0.3, 0.4), (0.4, 0.3)], start=4):
            layer = LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=number))
            trial = add_trial(session, job, number, RecipeCandidate(recipe=Recipe(layers=(layer, layer))), 0.4, drop)
            assert trial.quality is not None
            trial.quality = trial.quality | {"divergence": divergence}
    # Orders 1 2 3 4 5 and 1 2 3 5 4: Spearman's 1 - 6 * 2 / (5 * 24).
    assert rows()["divergence", "drop"] == (pytest.approx(0.9), 5)
    confirm(world, job_id)
    assert rows()["drop", "holdout_drop"] == (pytest.approx(1.0), 5)
    assert rows()["predicted_latency", "latency"] == (pytest.approx(1.0), 5)
    report = client.get(f"/v1/jobs/{job_id}/report").json()
    best = report["front"]["best"]["latency"]
    assert best["speedup_vs"] == {"int8_one_liner": best["speedup_vs_int8"]}
    assert (report["model"], report["dataset"]) == ("tiny", "dev.jsonl")


def test_a_lucky_model_is_drawn_at_the_loss_to_be_expected(world: World, client: TestClient, job_id: str) -> None:
    with world.services.database.write_session() as session:
        trials = session.exec(select(Trial).where(Trial.job_id == job_id, Trial.source != "baseline")).all()
        lucky = min(trials, key=lambda trial: trial.measurement["ratio"]["value"] if trial.measurement else 1.0)
        assert lucky.quality is not None
        lucky.quality = lucky.quality | {"fidelity": 0.9, "drop": {"value": -0.02, "low": -0.06, "high": 0.02}}
        session.add(lucky)
        number = lucky.number
    views = client.get(f"/v1/jobs/{job_id}/trials").json()["items"]
    quality = next(view["quality"] for view in views if view["number"] == number)
    assert quality["drop"]["value"] == -0.02
    assert 0.01 < quality["expected_drop"] < 0.03
    _, text = read(client, f"/v1/jobs/{job_id}/report.html")
    assert f"{100 * quality['expected_drop']:+.2f} points of loss to be expected, -2.00 seen" in text
