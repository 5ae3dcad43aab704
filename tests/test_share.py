"""The manual pages and completions that the wheel installs are those of the command line."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
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


def test_pages_break_no_names() -> None:
    page = SHARE / "man" / "man1" / "tenantbase.1"
    for width in range(60, 80):  # at some of these, man would break the name
        shown = subprocess.run(
            ["man", "--local-file", page],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MANWIDTH": str(width), "LC_ALL": "C.UTF-8"},
        )
        assert "TENANTBASE_CACHE_TIMEOUT" in shown.stdout


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


PROMPT = "ready:"
SHELLS = {
    "bash": ("bash", "--noprofile", "--rcfile", "bash.rc", "-i"),
    "zsh": ("zsh", "-i"),
    "fish": ("fish", "--init-command", f"function fish_prompt; echo {PROMPT}; end"),
}
PROGRAM_FOR_SHELLS = """\
import os, sys
if "_TENANTBASE_COMPLETE" in os.environ:
    {program}
with open("words.new", "w") as file:
    file.write("|".join(sys.argv[1:]))
os.rename("words.new", "words")
"""


class Shell:
    """An interactive shell that has the completions, at a terminal."""

    def __init__(self, name: str, directory: Path) -> None:
        self._words = directory / "words"
        self._shown = b""
        program = directory / "bin" / "tenantbase"
        program.parent.mkdir()
        code = directory / "program.py"
        code.write_text(PROGRAM_FOR_SHELLS.format(program=PROGRAM.replace("; ", "\n    ")))
        command = shlex.join([sys.executable, str(code)])
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        bash = shlex.quote(f"{SHARE}/bash-completion/completions/tenantbase")
        zsh = shlex.quote(f"{SHARE}/zsh/site-functions")
        (directory / "bash.rc").write_text(f"PS1={PROMPT}; . {bash}")
        (directory / ".zshrc").write_text(
            f"PS1={PROMPT}; fpath=({zsh} $fpath); autoload -Uz compinit; compinit -D -u"
        )
        self._terminal, other_end = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *SHELLS[name]],  # fish needs a controlling terminal
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            cwd=directory,
            env={
                "PATH": f"{program.parent}:{os.defpath}",
                "HOME": str(directory),
                "TERM": "xterm",
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(ROOT),
                "XDG_DATA_DIRS": f"{SHARE}:/usr/share",
            },
        )
        os.close(other_end)

    def typed(self, line: str) -> list[str]:
        """The words that the program gets if this is typed, with tabs, and a return."""
        self._wait(lambda: PROMPT.encode() in self._shown)
        self._shown = b""
        os.write(self._terminal, f"tenantbase {line}\n".encode())
        self._wait(self._words.exists)
        words = self._words.read_text().split("|")
        self._words.unlink()
        return words

    def _wait(self, over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not over():
            assert time.monotonic() < deadline, self._shown
            if select.select([self._terminal], [], [], 0.05)[0]:
                self._shown += os.read(self._terminal, 1 << 16)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    started = Shell(request.param, tmp_path)
    yield started
    started.end()


def test_shells_complete_words_and_files(shell: Shell, tmp_path: Path) -> None:
    """In a row, because a shell may load the script anew or keep it."""
    (tmp_path / "old copy.db").touch()
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "cert.pem").touch()
    assert shell.typed("serve --access-l\tsl\t") == ["serve", "--access-log", "slow"]
    assert shell.typed("serve --log-level cr\t") == ["serve", "--log-level", "critical"]
    assert shell.typed("serve --workers a\t") == ["serve", "--workers", "auto"]
    assert shell.typed("serve --tls-cert tls/c\t") == ["serve", "--tls-cert", "tls/cert.pem"]
    assert shell.typed("token create --scope me\t") == ["token", "create", "--scope", "metrics"]
    assert shell.typed("check --database o\t") == ["check", "--database", "old copy.db"]
    assert shell.typed("migrate --from o\t") == ["migrate", "--from", "old copy.db"]
    for name in ("backup", "restore", "import", "export"):
        assert shell.typed(f"{name} o\t") == [name, "old copy.db"]
    url = "postgresql://u@db:5432/x"
    assert shell.typed(f"import --database {url} o\t")[2:] == [url, "old copy.db"]


@pytest.mark.parametrize("shell", ["bash", "zsh"], indirect=True)
def test_shells_complete_values_after_an_equals_sign(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    assert shell.typed("serve --access-log=sl\t") == ["serve", "--access-log=slow"]
    assert shell.typed("check --database=x\t") == ["check", "--database=x.db"]
    assert shell.typed("restore --database=new.db x\t")[1:] == ["--database=new.db", "x.db"]
