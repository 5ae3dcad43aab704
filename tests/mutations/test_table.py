"""The table of mistakes matches the source. ``scripts/mutate`` checks that tests find them."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.mutations import run
from tests.mutations.forks import Forks
from tests.mutations.mutation import ROOT, Drifted, Mutation
from tests.mutations.run import Verdict
from tests.mutations.table import MUTATIONS, TABLES
from tests.servers import poll


@cache
def dumped(path: Path) -> str:
    """The syntax tree of a source file, which has many mutations, as text."""
    return ast.dump(ast.parse(path.read_bytes()))


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_mistake_can_be_made(name: str) -> None:
    mutation = MUTATIONS[name]
    mutated = mutation.applied(ROOT)  # raises Drifted, which says what to do
    assert ast.dump(ast.parse(mutated)) != dumped(ROOT / mutation.file)


def test_names_are_unique() -> None:
    assert len(MUTATIONS) == sum(map(len, TABLES))


def test_the_tests_that_must_find_each_mistake_exist() -> None:
    for mutation in MUTATIONS.values():
        assert mutation.tests, mutation.name
        for test in mutation.tests:
            path, _, name = test.partition("::")
            name = name.partition("[")[0]
            assert (ROOT / path).is_file(), mutation.name
            assert not name or f"def {name}(" in (ROOT / path).read_text(), mutation.name


def test_a_rewritten_source_is_reported(tmp_path: Path) -> None:
    mutation = Mutation("it-adds", "sum.py", "a + b", "a - b", ("tests",))
    with pytest.raises(Drifted, match="it-adds: there is no file sum.py"):
        mutation.applied(tmp_path)
    (tmp_path / "sum.py").write_text("c = a\n")
    with pytest.raises(Drifted, match="it-adds: 'a \\+ b' occurs 0 times in sum.py"):
        mutation.applied(tmp_path)
    (tmp_path / "sum.py").write_text("c = a + b\nd = a + b\n")
    with pytest.raises(Drifted, match="occurs 2 times"):
        mutation.applied(tmp_path)


def test_the_run_reports_what_is_found_and_what_survives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tests = ("tests/interfaces/memcached/test_address.py",)
    file = "tenantbase/interfaces/memcached/address.py"
    found = Mutation("any-port", file, "0 < int(port) < 65536", "True", tests)
    survives = Mutation("a-comment", file, '"""The longest path', '"""Longest path', tests)
    broken = Mutation("no-test", file, "0 < int", "0 <= int", (f"{tests[0]}::test_none",))
    again = replace(survives, name="once-more")  # the mistakes before it are gone
    assert run.tried([found, survives, broken, again], 1, 60.0) == {
        "any-port": Verdict.FOUND,
        "a-comment": Verdict.SURVIVED,
        "once-more": Verdict.SURVIVED,
        "no-test": Verdict.NOT_TRIED,
    }
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r" +\d+\.\d s +", ": ", line) for line in lines] == [
        "found: any-port",
        "SURVIVED: a-comment",
        "SURVIVED: once-more",
        "NOT TRIED: no-test",
    ]


def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    file = "tenantbase/web/semantics/conditions.py"
    command = [sys.executable, "-m", "tests.mutations.run", "--only", file]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith(b"found ")
        running.terminate()
        more, _ = running.communicate()
    assert running.returncode == 128 + signal.SIGTERM
    several = sum(each.file == file for each in MUTATIONS.values())
    assert 1 + len(more.splitlines()) < several, "the rest is not tried"
    assert list(tmp_path.iterdir()) == []


def test_tests_that_hang_are_killed_with_what_they_started(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    hanging = tmp_path / "test_hanging.py"
    hanging.write_text(
        "import pathlib, subprocess\n"
        "def test_hanging():\n"
        "    process = subprocess.Popen(['sleep', '1000'])\n"
        f"    pathlib.Path({str(started)!r}).write_text(str(process.pid))\n"
        "    process.wait()\n"
    )
    forks = Forks(ROOT, os.environ)
    try:
        seconds = 2.0
        while not (
            started.exists() and started.read_text()
        ):  # on a busy machine, it may take longer until it hangs
            assert forks.run(["-p", "no:cacheprovider", str(hanging)], seconds) is None
            seconds *= 2
        pid = int(started.read_text())
        poll(lambda: not _runs(pid), "what it started is gone")
    finally:
        forks.close()


def _runs(pid: int) -> bool:
    """Whether a process runs. A zombie, which only its new parent can remove, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
