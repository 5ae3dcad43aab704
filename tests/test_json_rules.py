"""The rules for JSON hold for the command line and for an import."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tenantbase.main import main
from tests.app_server import clean_environment
from tests.json_cases import DEEP, REFUSED


def command(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    cleared = {name: None for name in os.environ.keys() - clean_environment().keys()}
    result = CliRunner().invoke(main, arguments, stdin, cleared)
    return result.exit_code, result.output.strip()


@pytest.mark.parametrize("name", REFUSED)
def test_by_the_command_line(tmp_path: Path, name: str) -> None:
    database = ("--database", str(tmp_path / "x.db"))
    value, detail = REFUSED[name]
    assert command("set", *database, "k", DEEP)[0] == 0
    status, said = command("set", *database, "k", "-", stdin=value)
    assert status == 1 and detail in said
    assert command("get", *database, "k") == (0, DEEP)
    assert command("set", *database, "k", "--text", "-", stdin=value)[0] == 0
    assert json.loads(command("get", *database, "k")[1]) == value


@pytest.mark.parametrize("name", REFUSED)
def test_by_an_import(tmp_path: Path, name: str) -> None:
    database = ("--database", str(tmp_path / "x.db"))
    value, detail = REFUSED[name]
    line = '{"key":"k","value":%s}\n'
    assert command("import", *database, "-", stdin=line % DEEP)[0] == 0
    status, said = command("import", *database, "-", stdin=line % value)
    assert status == 1 and detail in said
    assert command("get", *database, "k") == (0, DEEP)


def test_a_field_given_twice_in_a_line(tmp_path: Path) -> None:
    database = ("--database", str(tmp_path / "x.db"))
    status, said = command("import", *database, stdin='{"key":"k","value":1,"value":2}\n')
    assert status == 1 and said.startswith("Error: line 1: value: field 'value' is given more")
