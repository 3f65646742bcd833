"""None of the hostile uploads is accepted; each is refused with a problem that says why."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx2
from fastapi.testclient import TestClient
from sqlmodel import select

from infra.database.models import Blob
from tests.security.corpus import Hostile
from tests.security.corpus import all_cases
from tests.security.model_bytes import model_files
from tests.unit.api.conftest import World


def attempt(client: TestClient, case: Hostile) -> tuple[str, httpx2.Response | None]:
    """Upload a case as far as the service lets it; return the model's id and the refusal, or ``None``."""
    model_id = client.post("/v1/models", json={"name": "hostile"}).json()["id"]
    valid = model_files()
    for name, content in sorted(case.files.items(), key=lambda file: valid.get(file[0]) == file[1]):
        answer = client.put(f"/v1/models/{model_id}/files/{name}", content=content)
        if answer.status_code != 200:
            return model_id, answer
    answer = client.post(f"/v1/models/{model_id}/complete")
    return model_id, None if answer.status_code == 200 else answer


def test_no_hostile_upload_is_accepted(client: TestClient) -> None:
    cases = list(all_cases())
    assert len(cases) >= 80
    repeated = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    assert repeated == []
    wrong = []
    for case in cases:
        model_id, refusal = attempt(client, case)
        if refusal is None:
            wrong.append(f"{case.name}: accepted")
            continue
        problem = refusal.json()
        explained = f"{problem['detail']} {problem['errors']}"
        if refusal.status_code not in (413, 422) or case.reason not in explained or not problem["hint"]:
            wrong.append(f"{case.name}: {refusal.status_code} {explained} / {problem['hint']}")
        assert client.get(f"/v1/models/{model_id}").json()["state"] == "uploading"
    assert wrong == []
    assert not Path("/tmp/paretune-was-here").exists()
    assert client.get("/health/ready").status_code == 200


def test_the_model_that_the_cases_change_is_accepted(client: TestClient) -> None:
    _, refusal = attempt(client, Hostile("valid", "", model_files()))
    assert refusal is None


def test_refused_bytes_are_not_kept(world: World, client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    content = b"\x80\x04evil" * 100
    client.put(f"/v1/models/{model_id}/files/model.safetensors", content=content)
    with world.services.database.read_session() as session:
        assert session.exec(select(Blob)).all() == []
    assert list(world.services.staging.iterdir()) == []


def test_verifying_loads_no_library_that_opens_models() -> None:
    code = (
        "import sys\n"
        "from infra.uploads.model_folder import FileSource, verify_folder\n"
        "from tests.security.model_bytes import model_files\n"
        "import io\n"
        "files = {n: FileSource(len(c), lambda c=c: io.BytesIO(c)) for n, c in model_files().items()}\n"
        "verify_folder(files, 1 << 30)\n"
        "heavy = {'torch', 'transformers', 'safetensors', 'tokenizers', 'onnx', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
