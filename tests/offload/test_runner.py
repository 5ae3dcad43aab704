"""Large bodies are parsed in a child process: same verdicts, one at a time, and it always ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tenantbase.errors import InvalidRequest, Overloaded
from tenantbase.json_requests import SET_VALUE, Read, SetValue, content, read_many, split_many
from tenantbase.json_text import check_json, parse
from tenantbase.offload import runner
from tenantbase.offload.child import Job
from tenantbase.offload.runner import OFFLOAD_BYTES, ParserProcess, is_large
from tests.json_cases import REFUSED
from tests.servers import poll

pytestmark = pytest.mark.integration  # the package starts processes


Said = list[object]


def b64(text: bytes, **more: object) -> str:
    return json.dumps({"key": "b", "value": b64encode(text).decode(), "encoding": "base64"} | more)


ENTRIES = {
    "plain": '{"key": "k", "value": {"a": [1, 2.50]}}',
    "all fields": '{"key":"k","value":1,"content_type":"a/b+json","ttl":1,"if_absent":true}',
    "bytes": b64(bytes(range(256)) * 300),
    "JSON in base64": b64(b'{"a": 1}', content_type="application/json"),
    "empty": b64(b""),
    "no JSON in base64": b64(b'{"a": ', content_type="application/json"),
    "no base64": '{"key": "k", "value": "a", "encoding": "base64"}',
    "text of another type": '{"key": "k", "value": "a", "content_type": "text/plain"}',
    "twice": '{"key": "k", "value": 1, "value": 2}',
    "unknown": '{"key": "k", "value": 1, "x": 2}',
    "no JSON": '{"key": "k", "value": 1',
    "too deep": '{"key": "k", "value": %s}' % REFUSED["deep"][0],
    "lone surrogate": '{"key": "k", "value": %s}' % REFUSED["lone surrogate"][0],
    "no value": '{"key": "k"}',
}
MANY = {name: f'{{"values": [{ENTRIES["plain"]},\n{text}]}}' for name, text in ENTRIES.items()} | {
    "none": '{"values": []}',
    "too many": f'{{"values": [{",".join([ENTRIES["plain"]] * 4)}]}}',
    "a list twice": '{"values": [], "values": []}',
    "no list": '{"values": 1}',
}
VALUES = {"JSON": "[1]", "no JSON": "[1", "no UTF-8": '"\udcff"'} | {
    name: text for name, (text, _) in REFUSED.items()
}


def said(entries: Iterator[Read]) -> Said:
    """The parsed entries or their errors, and their values."""
    found: Said = []
    try:
        for given, value in entries:
            fields = {name: getattr(given, name) for name in given.__struct_fields__[2:]}
            found += [given.key, fields]
            if value is None:
                value = content(given)
            if isinstance(value, InvalidRequest):
                raise value
            found.append(value)
    except InvalidRequest as error:
        found += [type(error), error.detail, error.field]
    return found


def one(text: bytes) -> Iterator[Read]:
    yield Read(parse(SET_VALUE, text))


def checked(text: bytes) -> Iterator[Read]:
    check_json(text, "value")
    yield Read(SetValue("", msgspec.Raw(b"")), text)


def many(text: bytes) -> Iterator[Read]:
    yield from read_many(split_many(text, 3))


CASES = [
    *((Job.ENTRY, text) for text in ENTRIES.values()),
    *((Job.ENTRIES, text) for text in MANY.values()),
    *((Job.VALUE, text) for text in VALUES.values()),
]


async def test_the_child_gives_the_same_verdicts_as_this_process() -> None:
    here: dict[Job, Callable[[bytes], Iterator[Read]]] = {
        Job.ENTRY: one,
        Job.ENTRIES: many,
        Job.VALUE: checked,
    }
    reader = ParserProcess()
    for job, case in CASES:
        text = case.encode(errors="surrogateescape")
        assert said(await reader.read(job, text, 3)) == said(here[job](text)), case


@pytest.mark.parametrize(
    ("text", "large"),
    [
        (b"a" * OFFLOAD_BYTES, False),
        (b"a" * (OFFLOAD_BYTES + 1), True),
        (b"[]," * 400_000, False),
        (b"[{" * 600_000, True),
        (b"[" * (1 << 20), False),
    ],
    ids=["at the bound", "above", "some brackets", "many brackets", "small"],
)
def test_which_bodies_are_large(text: bytes, large: bool) -> None:
    assert is_large(text) is large


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs another program instead of the child's."""
    return lambda text: monkeypatch.setattr(runner, "_PROGRAM", text)


async def test_one_at_a_time(program: Callable[[str], None], tmp_path: Path) -> None:
    mark = tmp_path / "running"
    program(
        f"import os, time; mark = {str(mark)!r}; os.close(os.open(mark, os.O_CREAT | os.O_EXCL))\n"
        "time.sleep(0.05)\n"
        f"os.remove(mark)\n{runner._PROGRAM}"
    )
    reader = ParserProcess()
    texts = [b'{"key":"%d","value":0}' % number for number in range(4)]
    found = await asyncio.gather(*(reader.read(Job.ENTRY, text) for text in texts))
    assert [next(each).given.key for each in found] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "ending",
    [
        "import os; os.kill(os.getpid(), 9)",
        "raise SystemExit(3)",
        "pass",  # it exits with status 0, but without an answer
        "import os; os.write(1, bytes([128, 4, 149]))",  # the beginning of an answer
        "import os, pickle; os.write(1, pickle.dumps([]))",
    ],
)
async def test_a_child_that_dies_means_overloaded(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    reader = ParserProcess()
    with monkeypatch.context():
        usual = runner._PROGRAM
        program(ending)
        with pytest.raises(Overloaded):
            await reader.checked(b"1")
        program(usual)
    await reader.checked(b"1")


async def test_a_child_that_cannot_start_means_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Overloaded):
        await ParserProcess().checked(b"1")


HANGING = "import os, time; open({!r}, 'w').write(str(os.getpid())); time.sleep(600)"


async def test_a_hanging_child_is_killed(
    program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "_TIMEOUT_SECONDS", 1)
    program(HANGING.format(str(tmp_path / "pid")))
    with pytest.raises(Overloaded):
        await ParserProcess().checked(b"1")
    written = tmp_path / "pid"
    text = written.read_text() if written.exists() else ""  # it may have ended before it wrote it
    assert not text or not alive(int(text))


async def test_a_child_whose_caller_is_gone_is_killed(
    program: Callable[[str], None], tmp_path: Path
) -> None:
    written = tmp_path / "pid"
    program(HANGING.format(str(written)))
    reader = ParserProcess()
    asking = asyncio.create_task(reader.checked(b"1"))
    async with asyncio.timeout(20):
        while not written.exists() or not written.read_text():
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not alive(int(written.read_text()))


def test_a_child_exits_when_it_takes_too_long(tmp_path: Path) -> None:
    """For a parent that hangs or has died: here, its large answer is never read."""
    body = tmp_path / "body"
    body.write_text('{"values": [%s]}' % ",".join([ENTRIES["plain"]] * 50_000))
    reading, writing = os.pipe()
    with body.open("r+b") as file:
        command = [sys.executable, "-c", runner._PROGRAM, "entries", "1", "100000", "--", *sys.path]
        process = subprocess.Popen(command, stdin=file, stdout=writing)
    os.close(writing)
    poll(lambda: process.poll() is not None, "its end")
    os.close(reading)
    assert process.returncode == -signal.SIGALRM


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
