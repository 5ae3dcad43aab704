"""Parsing a large body in a child process: descriptors, threads and limits."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from tenantbase.errors import Overloaded
from tenantbase.offload import runner
from tenantbase.offload.child import read_at, write_at
from tenantbase.offload.runner import ParserProcess

pytestmark = pytest.mark.integration  # the package starts processes


async def test_a_cancelled_copy_does_not_end_before_its_thread() -> None:
    """Otherwise the thread could write to another file that gets the closed file's number."""
    gate, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def copy() -> None:
        begun.set()
        gate.wait(20)
        ended.set()

    copying = asyncio.create_task(runner._in_thread(copy))
    try:
        await asyncio.to_thread(begun.wait, 20)
        for _ in range(3):  # however often it is cancelled
            copying.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not copying.done()
    finally:
        gate.set()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert ended.is_set()


async def test_the_child_does_not_get_the_terminals_signals(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "session"
    program = f"import os; open({str(told)!r}, 'w').write(f'{{os.getpid()}} {{os.getsid(0)}}')"
    program += "; raise SystemExit(3)"
    monkeypatch.setattr(runner, "_PROGRAM", program)
    with pytest.raises(Overloaded):
        await ParserProcess().checked(b"1")
    process, session = map(int, told.read_text().split())
    assert session == process != os.getsid(0)


def test_a_file_that_is_shorter_than_expected_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "body").open("w+b") as file:
        write_at(file.fileno(), b"abcdef", 0)
        write_at(file.fileno(), b"XY", 2)
        assert read_at(file.fileno(), 4, 1) == b"bXYe"
        with pytest.raises(OSError, match="7 bytes were expected and 6 read"):
            read_at(file.fileno(), 7, 0)
