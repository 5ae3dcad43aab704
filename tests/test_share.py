"""The manual pages and completions that the wheel installs are those of the command line."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tenantbase.main import main
from tests.app_server import READY_SECONDS

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


SHELLS = ("bash", "zsh", "fish")


def completed(shell: str, *words: str) -> set[str]:
    """What is offered for the last word, with its kind, as the shell's script asks for it."""
    asked = {
        "_TENANTBASE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(["tenantbase", *words]),
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        check=True,
    )
    if shell == "zsh":  # kind, value and help, a line each
        lines = done.stdout.splitlines()
        return {f"{kind},{value}" for kind, value in zip(lines[::3], lines[1::3], strict=True)}
    return {line.partition("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_options(shell: str) -> None:
    """Options of a command."""
    assert completed(shell, "serve", "--lis") == {"plain,--listen"}
    (script,) = (
        path for path in SHARE.rglob("*tenantbase*") if shell in str(path) and path.is_file()
    )
    assert f"{shell}_complete" in script.read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_values(shell: str) -> None:
    assert completed(shell, "serve", "--access-log", "s") == {"plain,slow"}
    assert completed(shell, "serve", "--log-level", "e") == {"plain,error"}
    assert completed(shell, "token", "create", "--scope", "r") == {"plain,read"}
    for words in (
        ["serve", "--database"],
        ["serve", "--tls-cert"],
        ["migrate", "--from"],
        ["restore"],
        ["import"],
        ["get", "--token-file"],
    ):
        assert completed(shell, *words, "x") == {"file,x"}, words


def test_bash_completes_as_one_types(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "tenantbase"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c \"{PROGRAM}\" \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "backup-of-today.db").touch()
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "PS1": "> ", "TERM": "dumb", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(ROOT)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(tmp_path)
        os.execvpe("bash", ["bash", "--noprofile", "--norc", "-i"], environment)
    try:
        script = SHARE / "bash-completion" / "completions" / "tenantbase"
        os.write(terminal, f". '{script}'; echo rea''dy\n".encode())
        typed_until(terminal, b"ready")
        os.write(terminal, b"tenantbase serve --access-log sl\t")
        typed_until(terminal, b"--access-log slow ")
        os.write(terminal, b"\x15tenantbase restore backup-\t")
        typed_until(terminal, b"restore backup-of-today.db ")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def typed_until(terminal: int, expected: bytes) -> None:
    """Read until the terminal has shown this."""
    shown = b""
    while expected not in shown:
        ready, _, _ = select.select([terminal], [], [], READY_SECONDS)
        assert ready, f"not shown: {expected!r}, but {shown!r}"
        shown += os.read(terminal, 4096)
