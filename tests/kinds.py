"""The kinds of tests. What a test starts decides its kind.

unit            nothing: functions, files, and sockets that are connected to themselves
integration     processes, or servers on a socket: memcached, nginx, `tenantbase` itself; and a
    database on the disk, which has threads of its own and waits for the disk
torture         tests that break these on purpose: all that start something in tests/faults; and the
    model of the protocol, which visits every state

What a test starts is read from its code: the names used by the test, its fixtures, and their
helpers in tests/. If a test starts something only through the package, the rules cannot see it: it
fails as a unit test (see `Watch`), and its module must set its kind with ``pytestmark``. A module
that does so is not even imported when another kind is asked for.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Final

import pytest

KINDS: Final = ("unit", "integration", "torture")
_STARTING_NAMES: Final = {
    *("subprocess", "multiprocessing", "fork", "bind"),
    *("create_server", "start_server", "start_unix_server", "serving"),
    *("SqliteStore", "open_cache", "open_database"),
}
_SET_BY_MODULE: Final = re.compile(
    rf"^pytestmark = \[?pytest\.mark\.({'|'.join(KINDS)})\b", re.MULTILINE
)
_STARTING_EVENTS: Final = {
    *("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.bind"),
}


def kinds_of(item: pytest.Item) -> list[str]:
    """The kinds that a test is marked with."""
    return [mark.name for mark in item.iter_markers() if mark.name in KINDS]


@cache
def set_by(module: Path) -> str | None:
    """The kind that a module sets for all of its tests, read from its text: it is not imported."""
    found = _SET_BY_MODULE.search(module.read_text())
    return found[1] if found else None


class Rule:
    """Determines the kind of a test that is not marked with one."""

    def __init__(self) -> None:
        self._starts: dict[object, bool] = {}

    def kind(self, item: pytest.Item) -> str:
        if not any(self._reaches_start(function) for function in _functions(item)):
            return "unit"
        return "torture" if item.nodeid.startswith("tests/faults/") else "integration"

    def _reaches_start(self, function: FunctionType | type) -> bool:
        if function not in self._starts:
            self._starts[function] = False  # before it is examined: helpers may be recursive
            names = set(_names(function))
            self._starts[function] = not names.isdisjoint(_STARTING_NAMES) or any(
                self._reaches_start(helper) for helper in _helpers(function, names)
            )
        return self._starts[function]


def _functions(item: pytest.Item) -> Iterator[FunctionType]:
    """A test's function, then those of its fixtures."""
    if isinstance(item, pytest.Function):
        yield _unwrapped(item.function)
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                yield _unwrapped(definition.func)


def _unwrapped(function: Callable[..., object]) -> FunctionType:
    inner = inspect.unwrap(function)
    return getattr(inner, "__func__", inner)  # type: ignore[no-any-return]


def _helpers(user: FunctionType | type, names: set[str]) -> Iterator[FunctionType | type]:
    """The functions and classes in tests/ that these names refer to."""
    spaces = [vars(sys.modules[user.__module__])]
    if isinstance(user, type):
        yield from (base for base in user.__bases__ if _ours(base))
    for name in names:
        found = spaces[0].get(name)
        if isinstance(found, ModuleType) and found.__name__.startswith("tests."):
            spaces.append(vars(found))
    for space in spaces:
        for name in names & space.keys():
            if isinstance(space[name], FunctionType | type) and _ours(space[name]):
                yield inspect.unwrap(space[name])


def _ours(value: FunctionType | type) -> bool:
    return value.__module__.startswith("tests.")


def _names(user: object) -> Iterator[str]:
    """All names that a function, or a class's methods, refer to."""
    if isinstance(user, type):
        for value in vars(user).values():
            yield from _names(getattr(value, "fget", None) or getattr(value, "__func__", value))
    elif isinstance(user, FunctionType):
        yield from _names_in(inspect.unwrap(user).__code__)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


class Watch:
    """Records what this process starts, and where it listens (Python's audit events)."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self._hear)  # audit hooks cannot be removed

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if event in _STARTING_EVENTS:
            self.started.append(f"{event}{args[:1]}")
