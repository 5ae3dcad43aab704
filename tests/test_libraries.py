"""Every use of undocumented parts of libraries is listed here, and the parts still exist.

If a test fails after an upgrade, the list shows which module to adapt.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import sqlite3
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any

import aiosqlite
import pytest
from aiohttp import abc, web
from aiomcache.pool import Connection, MemcachePool
from packaging.requirements import Requirement

from tests.test_project import PACKAGE, PROJECT, TREES

# For classes derived from a library's: its private names that they use or define, and its methods
# that they override. Protocols, structures and exceptions are meant to be derived from.
DERIVED = {
    "interfaces.memcached.client._Pool": {"_pool", "_in_use", "acquire", "release"},
    "interfaces.memcached.reader.PieceReader": {"feed_data", "feed_eof", "set_exception", "read"},
    "interfaces.sqlite.connection.Connection": {
        *("_execute", "_conn", "_connection", "_thread", "_tx"),
    },
    "web.server.Connection": {
        *("finish_response", "handle_error", "_current_request", "_request_count"),
        *("_messages", "_buffer_paused"),
        *(
            "connection_made",
            "connection_lost",
            "data_received",
            "eof_received",
            "pause_writing",
            "resume_writing",
        ),  # asyncio.Protocol
    },
}
MADE_FOR_THAT = {
    "tenantbase",
    *("builtins", "typing", "typing_extensions", "enum", "abc", "collections", "contextlib"),
    *("msgspec", "click", "socket", "_socket", "asyncio.protocols", "asyncio.transports"),
    *("logging", "prometheus_client.registry"),
}
# For everything else. os._exit is documented.
OTHERS = {"os._exit"}


def classes() -> Iterator[tuple[str, type, ast.ClassDef]]:
    """Every class at the top of a module of the package, with its source."""
    for name, tree in TREES.items():
        if name.endswith("__main__"):
            continue
        module = importlib.import_module(f"tenantbase.{name}".rstrip("."))
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                yield f"{name}.{node.name}", getattr(module, node.name), node


def own_attributes(node: ast.AST) -> set[str]:
    """The names used on ``self``, and the methods defined."""
    used = {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }
    return used | {
        each.name
        for each in ast.walk(node)
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def methods(node: ast.ClassDef) -> set[str]:
    return {
        each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def test_private_names_of_libraries_are_listed() -> None:
    found: dict[str, set[str]] = {}
    for name, cls, node in classes():
        for base in cls.__mro__[1:]:
            root = base.__module__.partition(".")[0]
            if root in MADE_FOR_THAT or base.__module__ in MADE_FOR_THAT:
                continue
            theirs = set(vars(base))
            with suppress(OSError, TypeError):  # it is written in C
                theirs |= own_attributes(ast.parse(textwrap.dedent(inspect.getsource(base))))
            private = {each for each in own_attributes(node) & theirs if each.startswith("_")}
            overridden = methods(node) & theirs
            if names := {each for each in private | overridden if not is_dunder(each)}:
                found.setdefault(name, set()).update(names)
    assert found == DERIVED, "list what is needed, with a comment there and a test below"


def test_private_attributes_of_other_objects_are_listed() -> None:
    own = {
        name
        for tree in TREES.values()
        for node in ast.walk(tree)
        for name in (
            {node.name}
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            else {node.attr} if isinstance(node, ast.Attribute) and is_self(node.value) else set()
        )
    }
    used = {
        ast.unparse(node)
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_(?!_)", node.attr)
        and not is_self(node.value)
        and node.attr not in own
    }
    assert used <= OTHERS


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def changed(library: str, what: str, module: str) -> str:
    assert (PACKAGE / module).is_file()
    return f"{library} {version(library)} has changed {what}, which tenantbase/{module} relies on"


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_aiohttp_still_calls_what_is_overridden() -> None:
    handler, module = web.RequestHandler, "web/server.py"
    what = changed("aiohttp", "RequestHandler.finish_response", module)
    assert parameters(handler.finish_response) == ["self", "request", "resp", "start_time"], what
    assert inspect.getsource(handler).count("self.finish_response(") >= 1, what
    what = changed("aiohttp", "RequestHandler.handle_error", module)
    assert parameters(handler.handle_error) == ["self", "request", "status", "exc", "message"], what
    assert inspect.getsource(handler).count("self.handle_error(") >= 1, what


def test_aiohttp_still_knows_its_requests() -> None:
    what = changed("aiohttp", "_request_count or _current_request", "web/server.py")
    source = inspect.getsource(web.RequestHandler)
    assert "self._request_count += 1" in source, what
    assert "self._current_request = request" in source, what
    assert "self._current_request = None" in source, what
    what = changed("aiohttp", "_messages or _buffer_paused", "web/server.py")
    assert "self._messages.append((msg, payload))" in source, what
    assert "if (\n                not self._buffer_paused\n" in source, what


def test_aiohttp_still_counts_what_it_has_sent() -> None:
    what = changed("aiohttp", "StreamWriter.output_size", "web/server.py")
    assert abc.AbstractStreamWriter.output_size == 0, what
    assert isinstance(inspect.getattr_static(web.BaseRequest, "writer"), property), what


def test_aiohttp_has_an_upper_bound() -> None:
    (aiohttp,) = [
        requirement
        for requirement in map(Requirement, PROJECT["project"]["dependencies"])
        if requirement.name == "aiohttp"
    ]
    assert aiohttp.specifier.contains(version("aiohttp"))
    assert not aiohttp.specifier.contains("3.99")


async def test_aiosqlite_still_runs_functions_in_its_thread(tmp_path: Path) -> None:
    what = changed("aiosqlite", "Connection._execute", "interfaces/sqlite/connection.py")
    async with aiosqlite.connect(tmp_path / "x.db") as connection:
        assert hasattr(connection, "_execute") and hasattr(connection, "_thread"), what
        called = connection._execute(lambda *args: args, 1, 2)  # type: ignore[no-untyped-call]
        assert await called == (1, 2), what
        assert isinstance(connection._thread, Thread), what
        assert isinstance(connection._conn, sqlite3.Connection), what
        assert connection._connection is connection._conn, what
        # Functions that are queued without a future run in the thread, and report no result.
        ran = Event()
        connection._tx.put_nowait((None, ran.set))
        assert await asyncio.to_thread(ran.wait, 10), what


def test_aiomcache_still_counts_its_connections() -> None:
    what = changed("aiomcache", "MemcachePool's accounts", "interfaces/memcached/client.py")
    pool = MemcachePool("127.0.0.1", 1, minsize=0, maxsize=0)
    assert isinstance(pool._pool, asyncio.Queue) and isinstance(pool._in_use, set), what
    assert Connection._fields == ("reader", "writer"), what


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (asyncio.StreamReader.__init__, ["self", "limit", "loop"]),
        (asyncio.StreamReader.feed_data, ["self", "data"]),
        (asyncio.StreamReader.feed_eof, ["self"]),
        (asyncio.StreamReader.set_exception, ["self", "exc"]),
        (asyncio.StreamWriter.__init__, ["self", "transport", "protocol", "reader", "loop"]),
        (
            asyncio.StreamReaderProtocol.__init__,
            ["self", "stream_reader", "client_connected_cb", "loop"],
        ),
    ],
    ids=lambda each: getattr(each, "__qualname__", None),
)
def test_asyncios_streams_are_made_as_before(
    function: Callable[..., Any], expected: list[str]
) -> None:
    module = "interfaces/memcached/reader.py and client.py"
    assert parameters(function) == expected, f"asyncio's streams have changed; see {module}"
