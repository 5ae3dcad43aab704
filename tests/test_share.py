"""The manual pages and completions that the wheel installs are those of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tenantbase.main import main

ROOT = Path(__file__).parent.parent
SHARE = ROOT / "share"
PROGRAM = "from tenantbase.__main__ import run; run('tenantbase')"


def files(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }


def test_they_are_as_the_command_line_is_now(tmp_path: Path) -> None:
    """If this fails, run share/make.py and commit what it writes."""
    command = [sys.executable, str(SHARE / "make.py"), str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert files(tmp_path) == files(SHARE)


def test_every_command_has_a_page() -> None:
    for name in main.commands:
        page = (SHARE / "man" / "man1" / f"tenantbase-{name}.1").read_text()
        assert page.startswith(f'.TH "TENANTBASE-{name.upper()}" 1 ')
        assert r"\-\-help" in page


def test_the_wheel_installs_all_of_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for path in files(SHARE):
        first = f"share/{Path(path).parts[0]}"
        assert installed[first] == first


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_options(shell: str) -> None:
    """Options of a command, as the shell's script asks for them."""
    asked = {
        "_TENANTBASE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "tenantbase serve --lis",
        "COMP_CWORD": "--lis" if shell == "fish" else "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        check=True,
    )
    assert "--listen" in done.stdout and "--workers" not in done.stdout
    (script,) = (
        path for path in SHARE.rglob("*tenantbase*") if shell in str(path) and path.is_file()
    )
    assert asked["_TENANTBASE_COMPLETE"] in script.read_text()
