"""The Kubernetes manifests name what exists: files, settings, queues, commands, tables."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.bin.celery import celery as celery_command
from sqlalchemy import text

from infra import steps
from infra.database.engine import Database
from infra.queue import _checked
from infra.settings import Settings
from tests.helpers.rows import add_job

FOLDER = Path(__file__).parents[3] / "infra/deploy/kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    part for name in KUSTOMIZATION["resources"] for part in yaml.safe_load_all((FOLDER / name).read_text())
]
SETTINGS = dict(literal.split("=", 1) for literal in KUSTOMIZATION["configMapGenerator"][0]["literals"])


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    return {part["metadata"]["name"]: part for part in OBJECTS if part["kind"] in kinds}


PODS = {name: part["spec"]["template"] for name, part in of_kind("Deployment", "Job").items()}


def test_every_file_is_listed_and_every_object_is_named_once() -> None:
    assert {*KUSTOMIZATION["resources"], "kustomization.yaml"} == {path.name for path in FOLDER.glob("*")}
    names = [(part["kind"], part["metadata"]["name"]) for part in OBJECTS]
    assert len(set(names)) == len(names)
    assert all("apiVersion" in part for part in OBJECTS)


def test_settings_exist_and_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"PARETUNE_{name.upper()}" for name in Settings.model_fields}
    assert set(SETTINGS) <= known
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.log_format == "json"
    assert "localhost" in settings.allowed_hosts  # the probes send it


@pytest.mark.parametrize("name", PODS)
def test_pods_are_confined_and_get_settings_and_secrets(name: str) -> None:
    pod = PODS[name]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == KUSTOMIZATION["images"][0]["name"] == "paretune"
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    security = container["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
    assert {*map(str, container["resources"]["limits"])} >= {"memory"}
    sources = {kind: source["name"] for entry in container["envFrom"] for kind, source in entry.items()}
    assert sources == {"configMapRef": KUSTOMIZATION["configMapGenerator"][0]["name"], "secretRef": "paretune"}
    mounts, volumes = container["volumeMounts"], {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in mounts} == volumes
    assert {mount["mountPath"] for mount in mounts} == {"/var/lib/paretune", "/tmp"}


def test_workers_serve_every_kind_of_queue_with_commands_that_celery_knows() -> None:
    served = set()
    for pod in PODS.values():
        program, *arguments = pod["spec"]["containers"][0]["command"]
        if program != "celery":
            continue
        worker = celery_command.commands["worker"]
        parsed = worker.make_context("worker", arguments[arguments.index("worker") + 1 :], resilient_parsing=True)
        assert parsed.params["concurrency"] == 1
        served |= {_checked(queue) for queue in parsed.params["queues"]}
    assert {"search", "compute", "device.local-cpu"} <= served


def test_selectors_find_their_pods() -> None:
    for name, part in of_kind("Deployment").items():
        assert part["spec"]["selector"]["matchLabels"] == PODS[name]["metadata"]["labels"]
    service = of_kind("Service")["api"]["spec"]
    assert service["selector"] == PODS["api"]["metadata"]["labels"]
    ports = {port["name"] for port in PODS["api"]["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["ports"]} <= ports


def test_autoscaling_does_not_fight_with_the_manifests() -> None:
    scaled = of_kind("ScaledObject")
    assert set(scaled) == {"compute-worker", "search-worker"}
    for part in scaled.values():
        assert "replicas" not in of_kind("Deployment")[part["spec"]["scaleTargetRef"]["name"]]["spec"]
        assert part["spec"]["triggers"][0]["authenticationRef"]["name"] in of_kind("TriggerAuthentication")


def test_autoscaling_counts_the_steps_of_the_real_table(database: Database) -> None:
    with database.write_session() as session:
        job = add_job(session)
        for key, queue in (("a", "compute"), ("b", "compute"), ("c", "search")):
            steps.create_step(session, job_id=job.id, kind="test", key=key, queue=queue)
    for name, expected in (("compute-worker", 2), ("search-worker", 1)):
        query = of_kind("ScaledObject")[name]["spec"]["triggers"][0]["metadata"]["query"]
        with database.read_session() as session:
            assert session.execute(text(query)).scalar_one() == expected
