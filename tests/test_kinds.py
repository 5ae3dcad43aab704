"""Each test has one kind, and a unit test starts nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kinds
from tests.inner import run_tests
from tests.servers import MemcachedProcess


def run_program() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.fixture
def memcached() -> type[MemcachedProcess]:
    return MemcachedProcess


def test_every_test_has_one_kind(request: pytest.FixtureRequest) -> None:
    wrong = {
        item.nodeid: found
        for item in request.session.items
        if len(found := kinds.kinds_of(item)) != 1
    }
    assert not wrong


def test_a_test_that_starts_nothing_is_unit(request: pytest.FixtureRequest) -> None:
    assert kinds.kinds_of(request.node) == ["unit"]


def test_what_a_helper_starts_counts(request: pytest.FixtureRequest) -> None:
    assert kinds.kinds_of(request.node) == ["integration"]
    run_program()


def test_what_a_fixture_names_counts(
    request: pytest.FixtureRequest, memcached: type[MemcachedProcess]
) -> None:
    assert kinds.kinds_of(request.node) == ["integration"]


def test_the_watch_sees_processes_and_listeners() -> None:
    watch = kinds.Watch()
    run_program()
    with socket.create_server(("127.0.0.1", 0)):
        pass
    started = " ".join(watch.started)
    assert "subprocess.Popen" in started and "socket.bind" in started


def test_a_unit_test_that_starts_something_fails(tmp_path: Path) -> None:
    # The module's name is put together, so that the rules cannot see it in the code.
    code = "def test_it():\n    __import__('sub' + 'process').run(['true'])\n"
    run = run_tests(tmp_path, code, str(tmp_path))
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert b"a unit test starts something" in run.stdout


@pytest.mark.parametrize(
    ("options", "imported"),
    [
        ((), True),
        (("-m", "integration"), True),
        (("-m", "unit"), False),
        (("-m", "torture"), False),
        (("-m", "not unit"), True),
    ],
)
def test_a_module_of_another_kind_is_not_imported(
    tmp_path: Path, options: tuple[str, ...], imported: bool
) -> None:
    code = "import pytest\npytestmark = pytest.mark.integration\nraise ZeroDivisionError\n"
    run = run_tests(tmp_path, code, str(tmp_path), *options)
    assert (b"ZeroDivisionError" in run.stdout) == imported, run.stdout
    if not imported:
        assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_modules_set_is_the_kind_of_their_tests(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        assert kinds.set_by(item.path) in (None, *kinds.kinds_of(item)), item.nodeid
