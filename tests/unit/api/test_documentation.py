"""``/docs`` works without a network, under a policy that lets no other script run."""

import re

from fastapi.testclient import TestClient

from tests.unit.api.conftest import World


def test_everything_that_the_page_needs_comes_from_the_service(world: World) -> None:
    client = world.client_with(None)
    page = client.get("/docs")
    assert page.status_code == 200
    assert "//" not in page.text
    needed = re.findall(r'(?:src|href|data-openapi)="([^"]+)"', page.text)
    assert len(needed) == 5
    kinds = {}
    for path in needed:
        answer = client.get(path)
        assert answer.status_code == 200, path
        kinds[path.rpartition(".")[2]] = answer.headers["content-type"].partition(";")[0]
    assert kinds == {"png": "image/png", "css": "text/css", "js": "text/javascript", "json": "application/json"}
    assert "SwaggerUIBundle(" in client.get("/docs/assets/start.js").text


def test_the_page_lets_no_script_run_but_its_own_files(world: World) -> None:
    client = world.client_with(None)
    page = client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert re.findall(r"<script(?! src=)", page.text) == []
    assert re.findall(r"\son\w+=", page.text) == []


def test_only_the_files_of_swagger_ui_are_served(world: World) -> None:
    client = world.client_with(None)
    for name in ("__init__.py", "..%2fmain.py", "%2e%2e/main.py", "/etc/passwd"):
        assert client.get(f"/docs/assets/{name}").status_code == 404


def test_behind_a_proxy_with_a_prefix_the_page_finds_its_files(world: World) -> None:
    world.app.root_path = "/paretune"
    page = world.client_with(None).get("/docs").text
    assert 'src="/paretune/docs/assets/start.js"' in page
    assert 'data-openapi="/paretune/openapi.json"' in page


def test_answers_for_programs_allow_a_browser_nothing(client: TestClient) -> None:
    assert client.get("/v1/jobs").headers["content-security-policy"].startswith("default-src 'none'")
