"""The deployments of a cluster are valid, and say the same about replication."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.cluster.engine import role_settings
from tests.cluster.patroni import DEPLOY, DEPLOYED

COMPOSE: Final = DEPLOY / "docker" / "cluster.yaml"
DOCKERFILE: Final = DEPLOY / "docker" / "patroni.Dockerfile"
MANIFESTS: Final = DEPLOY / "kubernetes" / "cluster.yaml"
# Debian's packages use Debian's Python.
_READ_PATRONI: Final = """
import json, sys
from patroni.config import Config
print(json.dumps(Config(sys.argv[1]).copy(), default=dict))
"""


def composed() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFESTS.read_text()))


def postgres_manifest() -> dict[str, Any]:
    (spec,) = (each["spec"] for each in manifests() if each["kind"] == "Cluster")
    return dict(spec)


def dynamic() -> dict[str, Any]:
    """What Patroni is to apply to all members."""
    return dict(yaml.safe_load(DEPLOYED.read_text())["bootstrap"]["dcs"])


def test_compose_accepts_the_file() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            COMPOSE,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_token_is_made_before_nodes_are_awaited() -> None:
    """They end while there is none, and what awaits them fails."""
    commands = re.findall(r"^#   docker compose -f cluster.yaml (.+)$", COMPOSE.read_text(), re.M)
    postgres = [name for name in composed()["services"] if name.startswith("postgres-")]
    assert commands == [
        f"up --detach --wait {' '.join(postgres)}",
        "run --rm node-one token create operator --scope admin",
        "up --detach --wait",
    ]


def test_pods_wait_for_the_first_token(tmp_path: Path) -> None:
    (pod,) = (
        each["spec"]["template"]["spec"] for each in manifests() if each["kind"] == "Deployment"
    )
    (waiting,) = pod["initContainers"]
    (node,) = pod["containers"]
    assert (
        waiting["env"] == node["env"] and f"--container {waiting['name']}" in MANIFESTS.read_text()
    )
    path = f"{Path(sys.executable).parent}:{os.defpath}"
    environment = {"PATH": path, "TENANTBASE_DATABASE": str(tmp_path / "x.db")}
    command = [
        *waiting["command"],
        *(each.replace("sleep 2", "sleep .1") for each in waiting["args"]),
    ]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None and "there is no database" in process.stderr.readline()
        assert process.poll() is None
        create = ["tenantbase", "token", "create", "operator", "--scope", "admin"]
        subprocess.run(create, env=environment, check=True, stdout=subprocess.DEVNULL)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()


def test_the_composed_services() -> None:
    services = composed()["services"]
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for needed in service.get("depends_on", ()):
            assert needed in services
    (ring,) = {
        argument.removeprefix("--memcached=")
        for service in services.values()
        for argument in service.get("command", ())
        if argument.startswith("--memcached=")
    }
    assert {address.partition(":")[0] for address in ring.split(",")} <= services.keys()
    (url,) = {
        service["environment"]["TENANTBASE_DATABASE"]
        for name, service in services.items()
        if name.startswith("node-")
    }
    hosts = url.partition("@")[2].partition("/")[0].split(",")
    assert hosts == [name for name in services if name.startswith("postgres-")]


def test_haproxy_accepts_the_composed_configuration(tmp_path: Path) -> None:
    text = composed()["configs"]["haproxy"]["content"]
    # Names of containers do not resolve here.
    config = tmp_path / "haproxy.cfg"
    config.write_text(re.sub(r" node-\w+:", " 127.0.0.1:", text))
    done = subprocess.run(
        ["/usr/sbin/haproxy", "-c", "-q", "-f", config], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_patroni_reads_the_composed_configuration(tmp_path: Path) -> None:
    document = composed()
    (tmp_path / "1-tenantbase.yml").write_text(DEPLOYED.read_text())
    (tmp_path / "2-inside.yml").write_text(document["configs"]["inside"]["content"])
    environment = document["services"]["postgres-two"]["environment"]
    done = subprocess.run(
        ["/usr/bin/python3", "-c", _READ_PATRONI, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    config = json.loads(done.stdout)
    assert config["name"] == "two"
    assert config["bootstrap"]["dcs"] == dynamic()
    postgresql = config["postgresql"]
    assert postgresql["connect_address"] == "postgres-two:5432"
    assert postgresql["listen"] == "0.0.0.0:5432"
    assert not any("hostssl" in line for line in postgresql["pg_hba"])


def test_patroni_promotes_only_the_synchronous_standby() -> None:
    config = dynamic()
    assert config["synchronous_mode"] is config["synchronous_mode_strict"] is True
    assert config["synchronous_node_count"] == 1
    assert config["loop_wait"] + 2 * config["retry_timeout"] <= config["ttl"]


@pytest.mark.parametrize(
    "manifest",
    [each for each in manifests() if each["kind"] != "Cluster"],
    ids=lambda manifest: f"{manifest['kind']}-{manifest['metadata']['name']}",
)
def test_a_manifest_fits_its_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_has_one_candidate_and_never_goes_on_alone() -> None:
    spec = postgres_manifest()
    assert spec["instances"] == 2  # with one standby, it is the only candidate
    synchronous = spec["postgresql"]["synchronous"]
    assert synchronous == {"method": "first", "number": 1, "dataDurability": "required"}


def test_the_deployments_have_the_same_settings() -> None:
    spec = postgres_manifest()
    assert spec["postgresql"]["parameters"] == dynamic()["postgresql"]["parameters"]
    assert "\n".join(spec["bootstrap"]["initdb"]["postInitApplicationSQL"]) == re.sub(
        r";.*", ";", role_settings()
    )


def test_the_pods_are_restricted() -> None:
    workloads = [each for each in manifests() if each["kind"] in ("StatefulSet", "Deployment")]
    assert len(workloads) == 2
    for workload in workloads:
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and not pod["enableServiceLinks"]
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
