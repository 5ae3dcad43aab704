"""The README does what it says: its commands run, its tables are complete."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantbase.main import main
from tenantbase.web.operations import OPERATIONS
from tests.app_server import AppServer

README = (Path(__file__).parent.parent / "README.md").read_text()


def _commands() -> Iterator[tuple[str, str | None]]:
    """Each curl line of the README's shell blocks, with the answer written below it."""
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        lines = block.splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if "curl" in line and not line.startswith("#"):
                yield line, after[2:] if after.startswith("# ") else None


def test_every_curl_line_answers_as_written(tmp_path: Path) -> None:
    commands = list(_commands())
    assert len(commands) > 15
    with AppServer(tmp_path / "x.db") as server:
        address = server.base_url.removeprefix("http://")
        for command, expected in commands:
            done = subprocess.run(
                ["sh", "-c", command.replace("localhost:8000", address)],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            parts = [re.escape(part) for part in (expected or "").split("...")]
            pattern = ".*".join(parts)
            assert re.fullmatch(pattern, done.stdout.strip()), (command, done.stdout)


def _table(heading: str) -> dict[str, list[str]]:
    """The first table under a heading: the first cell without backquotes, and the others."""
    section = README.split(f"# {heading}\n", 1)[1]
    rows = re.findall(r"^\|(.*)\|$", section.split("\n#", 1)[0], re.MULTILINE)[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_table_of_routes_is_that_of_the_application() -> None:
    described = re.findall(r"`(?:GET|POST|PUT|DELETE) (/[^`]*)`", README.split("## Routes\n", 1)[1])
    assert set(described) == {operation.path for operation in OPERATIONS}


def test_the_table_of_options_is_that_of_serve() -> None:
    serve = main.commands["serve"]
    options = {
        max(parameter.opts, key=len): parameter
        for parameter in serve.params
        if parameter.name != "help"
    }
    assert _table("Options").keys() == options.keys()


@pytest.mark.parametrize("command", main.commands)
def test_every_command_is_named(command: str) -> None:
    assert re.search(rf"`?tenantbase {command}\b", README)
