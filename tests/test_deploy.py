"""What is in deploy/ is valid, and starts the service: units, images, manifests; and the workflows.

The proxies' configurations have tests of their own: `test_proxies.py`, `test_rolling.py`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tenantbase.main import main
from tenantbase.process.config import OPTIONS, Config
from tests.app_server import READY_SECONDS, AppServer, clean_environment
from tests.command import command
from tests.servers import free_port, poll

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
SERVICE = UNITS / "tenantbase.service"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
MANIFESTS = DEPLOY / "kubernetes" / "tenantbase.yaml"
INSTALLED = "/opt/tenantbase/bin/tenantbase"
# systemd-analyze multiplies it by ten: 15 is an exposure level of 1.5.
EXPOSURE = "15"
PROGRAM = [sys.executable, "-W", "error", "-m", "tenantbase"]


def config_of(arguments: Sequence[str]) -> Config:
    """The configuration of a command line of ``tenantbase``. Raises if it is not valid."""
    name, *rest = arguments
    context = main.commands[name].make_context(name, list(rest))
    given = {name: context.params[name] for name in context.params if name != "help"}
    known = {option.name for option in OPTIONS}
    return Config.load({name: given[name] for name in given if name in known}, {})


def seconds_to_stop(config: Config) -> float:
    return config.drain_delay + config.drain_timeout + config.write_timeout


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that exists."""
    shutil.copytree(UNITS, tmp_path / "units")
    for unit in (tmp_path / "units").glob("*.service"):
        text = unit.read_text()
        assert INSTALLED in text
        unit.write_text(text.replace(INSTALLED, "/bin/true"))
    return tmp_path / "units"


def test_systemd_accepts_the_units(units: Path) -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "verify",
            "--man=no",
            *units.glob("*.service"),
            *units.glob("*.socket"),
        ],
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_a_service_is_hardly_exposed(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit],
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
    )
    assert done.returncode == 0, done.stdout


def test_the_backup_unit_makes_a_copy_for_the_day(tmp_path: Path) -> None:
    """Its shell command, as systemd would pass it on."""
    text = (UNITS / "tenantbase-backup.service").read_text()
    (line,) = re.findall(r"^ExecStart=/bin/sh -euc '(.+)'$", text, re.M)
    script = line.replace("$$", "$").replace("%%", "%").replace(INSTALLED, shlex.join(PROGRAM))
    data, copies = (tmp_path / "data", tmp_path / "copies")
    data.mkdir()
    copies.mkdir()
    assert command("set", "--database", str(data / "tenantbase.db"), "k", "1").returncode == 0
    for _ in range(2):  # the second time, it replaces the copy of a week ago
        subprocess.run(
            ["sh", "-euc", script],
            check=True,
            env=clean_environment(STATE_DIRECTORY=f"{data}:{copies}"),
            cwd=ROOT,
        )
    (copy,) = copies.iterdir()
    assert re.fullmatch(r"[1-7]\.db", copy.name)
    assert command("get", "--database", str(copy), "k").stdout == b"1\n"


def test_the_unit_waits_as_long_as_the_service_needs() -> None:
    text = SERVICE.read_text()
    (line,) = re.findall(rf"^ExecStart={INSTALLED} (.+)$", text, re.M)
    config = config_of(line.replace("${STATE_DIRECTORY}", "/var/lib/tenantbase").split())
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.M)
    assert int(stop) > seconds_to_stop(config)
    (watchdog,) = re.findall(r"^WatchdogSec=(\d+)$", text, re.M)
    assert int(watchdog) > 2 * config.watchdog_seconds


def test_tls_uses_the_credentials_that_are_loaded() -> None:
    text = (UNITS / "tenantbase.service.d" / "tls.conf").read_text()
    loaded = re.findall(r"^LoadCredential=([\w.]+):/", text, re.M)
    variables = dict(re.findall(r"^Environment=TENANTBASE_(\w+)=%d/(.+)$", text, re.M))
    assert list(variables.values()) == loaded
    config = Config.load(
        {name.lower(): None for name in variables},
        {f"TENANTBASE_{name}": f"/x/{file}" for name, file in variables.items()},
    )
    assert config.tls_cert == Path("/x/cert.pem") and config.tls_key == Path("/x/key.pem")


def test_a_socket_of_systemd_starts_the_service(tmp_path: Path) -> None:
    """systemd's own program listens, and starts the service when the first client connects."""
    port = free_port()
    command = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--fdname=http"]
    command += [f"--setenv={name}" for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ]
    command += [*PROGRAM, "serve", "--listen", "systemd:http", "--memcached", "off"]
    command += ["--database", str(tmp_path / "x.db")]
    with subprocess.Popen(
        command,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as process:
        try:

            def answers() -> bool:
                with closing(
                    http.client.HTTPConnection("127.0.0.1", port, timeout=READY_SECONDS)
                ) as connection:
                    try:
                        connection.request("GET", "/health-check")
                    except ConnectionRefusedError:  # systemd's program is not listening yet
                        return False
                    return connection.getresponse().status == 200

            poll(answers, "it answers", 2 * READY_SECONDS)
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening on http://127.0.0.1:{port}\n"
            process.terminate()
            assert process.wait(READY_SECONDS) == 0
        finally:
            process.kill()


def test_hadolint_finds_nothing() -> None:
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", COMPOSE),
        *(("vendor.github-workflows", path) for path in WORKFLOWS),
        ("vendor.dependabot", ROOT / ".github" / "dependabot.yml"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_file_fits_its_schema(schema: str, file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, file],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "dockerfile", sorted(DEPLOY.glob("docker/*Dockerfile")), ids=lambda path: path.name
)
def test_what_an_image_copies_is_sent_to_the_builder(dockerfile: Path) -> None:
    sent = re.findall("^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M)
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile.read_text(), re.M):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert any(Path(source).is_relative_to(each) for each in sent), source


def test_the_image_runs_as_a_user_and_keeps_its_data() -> None:
    text = DOCKERFILE.read_text()
    final = text[text.rindex("\nFROM ") :]
    instructions = dict(re.findall(r"^(USER|VOLUME|STOPSIGNAL|ENTRYPOINT|CMD) (.+)$", final, re.M))
    assert instructions["USER"] == "10001:10001"
    assert instructions["STOPSIGNAL"] == "SIGTERM"
    assert instructions["VOLUME"] == "/data" and "TENANTBASE_DATABASE=/data/" in final
    assert json.loads(instructions["ENTRYPOINT"]) == ["tenantbase"]  # no shell: it is process 1
    assert config_of(json.loads(instructions["CMD"])).host == "0.0.0.0"


def test_the_images_health_check(tmp_path: Path) -> None:
    (text,) = re.findall(r"^ +CMD (\[.+\])$", DOCKERFILE.read_text(), re.M)
    check = json.loads(text)
    assert check[0] == "python"

    def status(port: int) -> int:
        command = [sys.executable, *check[1:-1], check[-1].replace("8000", str(port))]
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=READY_SECONDS).returncode

    with AppServer(
        tmp_path / "x.db", "--memcached", "off", "--drain-delay", "3600", "--drain-timeout", "1"
    ) as server:
        assert status(server.port) == 0
        server.signal()
        poll(lambda: server.ask("GET", "/health-check").status == 503, "it drains")
        assert status(server.port) == 1


def test_the_composed_service() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    service = services["tenantbase"]
    config = config_of(service["command"])
    assert list(map(str, config.memcached)) == ["memcached:11211"]
    assert float(service["stop_grace_period"].removesuffix("s")) > seconds_to_stop(config)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFESTS.read_text()))


@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: manifest["kind"])
def test_a_manifest_fits_its_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_pod() -> None:
    (stateful,) = (each for each in manifests() if each["kind"] == "StatefulSet")
    pod = stateful["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["enableServiceLinks"]
    for container in (*pod["containers"], *pod["initContainers"]):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
    (service,) = (each for each in pod["containers"] if each["name"] == "tenantbase")
    config = config_of(service["args"])
    wait = float(service["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > wait + seconds_to_stop(config)
    assert service["readinessProbe"]["httpGet"]["path"] == "/health-check"
    assert service["livenessProbe"]["httpGet"]["path"] == "/livez"
    # The delay outlasts the probes that make the pod unready.
    probe = service["readinessProbe"]
    assert config.drain_delay > probe["periodSeconds"] * probe["failureThreshold"]
    assert {each["name"] for each in pod["volumes"]} | {
        claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]
    } == {mount["name"] for mount in service["volumeMounts"]}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_of_others_are_pinned_to_a_commit(workflow: Path) -> None:
    """Their owners may move a tag. The comment names the version, for readers and Dependabot."""
    used = re.findall(r"uses: (.*)", workflow.read_text())
    assert used
    for action in used:
        ours = action.startswith("./")
        assert ours or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


ON_RUNNERS = {"systemd", "chromium"}  # the runner has both, or a browser that takes its place


@pytest.mark.parametrize("name", ["ci.yml", "nightly.yml"])
def test_workflows_install_what_the_tests_need(name: str) -> None:
    """``scripts/test`` installs packages as root only, and a runner is another user."""
    script = (ROOT / "scripts" / "test").read_text().replace("\\\n", " ")
    (needed,) = re.findall(r"^need_programs (.+)$", script, re.MULTILINE)
    packages = {word.rpartition(":")[2] for word in needed.split()} - ON_RUNNERS
    workflow = (ROOT / ".github" / "workflows" / name).read_text()
    installs = [set(line.split()) for line in re.findall(r"apt-get install --yes (.+)", workflow)]
    assert any(packages <= installed for installed in installs)
