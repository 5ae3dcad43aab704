"""README and docs are correct: commands run, tables are complete, links work."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantbase.main import main
from tenantbase.web.openapi.operations import OPERATIONS
from tests.app_server import READY_SECONDS, AppServer, clean_environment
from tests.servers import free_port

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
LINKED = [
    *PAGES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "tenantbase" / "DESIGN.md",
    ROOT / "benchmarks" / "README.md",
]


def commands(page: Path) -> Iterator[tuple[str, str | None]]:
    """Each curl line of a page's ``sh`` blocks, with the answer written below it."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        lines = block.splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if "curl" in line and not line.startswith("#"):
                yield line, after[2:] if after.startswith("# ") else None


@pytest.mark.parametrize(
    "page", [page for page in PAGES if list(commands(page))], ids=lambda page: page.name
)
def test_curl_lines_answer_as_written(page: Path, tmp_path: Path) -> None:
    with AppServer(tmp_path / "x.db") as server:
        address = server.base_url.removeprefix("http://")
        for command, expected in commands(page):
            done = subprocess.run(
                ["sh", "-c", command.replace("localhost:8000", address)],
                capture_output=True,
                text=True,
                timeout=READY_SECONDS,
                check=True,
            )
            parts = [re.escape(part) for part in (expected or "").split("...")]
            pattern = ".*".join(parts)
            assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), (command, done.stdout)


def test_the_way_onto_the_network_works_as_written(tmp_path: Path) -> None:
    (script,) = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    script = script.replace("8443", str(free_port()))
    asked = r"""
        server=$!
        trap 'kill "$server"; wait "$server"' EXIT
        set_value() {
            ask "$1" /set-value --data-binary "{\"key\": \"code\", \"value\": \"$2\"}" >/dev/null
        }
        set_value blog.token globex
        ask shop.token '/get-value?key=code'
        set_value shop.token acme
        ask shop.token '/get-value?key=code'
        ask blog.token '/get-value?key=code'
        echo tb_unknown >unknown.token
        ask unknown.token /v1/tenants
    """
    # The README's function takes a path alone; these requests have a body.
    script = script.replace("ask() { curl", 'ask() { curl "${@:3}"') + asked
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=2 * READY_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    answers = re.findall(r'"status":404|"status":401|"value":"\w+"', done.stdout)
    absent, unauthenticated = '"status":404', '"status":401'
    assert answers == [absent, absent, '"value":"acme"', '"value":"globex"', unauthenticated]
    assert oct((tmp_path / "operator.token").stat().st_mode & 0o777) == "0o600"


PROGRAMS = re.findall(r"^```python\n(.*?)^```", (DOCS / "clients.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_python_examples_run(program: str, tmp_path: Path) -> None:
    """Each on a server of its own."""
    with AppServer(tmp_path / "x.db", "--memcached", "off") as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c"]
            + [program.replace("http://localhost:8000", server.base_url)],
            capture_output=True,
            text=True,
            timeout=2 * READY_SECONDS,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_examples_to_run() -> None:
    assert len(PROGRAMS) == 2


def test_there_are_curl_lines_to_run() -> None:
    assert len(list(commands(README))) > 12
    assert len(list(commands(DOCS / "api.md"))) > 4


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def _table(page: Path, heading: str) -> dict[str, list[str]]:
    """The first table under a heading: the first cell without backquotes, and the others."""
    section = page.read_text().split(f"# {heading}\n", 1)[1]
    rows = re.findall(r"^\|(.*)\|$", section.split("\n#", 1)[0], re.MULTILINE)[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]
    return {first.strip("`"): rest for first, *rest in cells}


def test_routes_are_those_of_the_application() -> None:
    described = {route.partition(" ")[2] for route in _table(DOCS / "api.md", "Routes")}
    assert described == {operation.path for operation in OPERATIONS}


def test_options_are_those_of_serve() -> None:
    serve = main.commands["serve"]
    options = {
        max(parameter.opts, key=len): parameter
        for parameter in serve.params
        if parameter.name != "help"
    }
    assert _table(DOCS / "configuration.md", "Options").keys() == options.keys()


@pytest.mark.parametrize("command", main.commands)
def test_every_command_is_named(command: str) -> None:
    assert re.search(rf"`tenantbase {command}\b", (DOCS / "configuration.md").read_text())


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link
