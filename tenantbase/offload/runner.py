"""Large bodies are read in a process apart, one at a time: no parser lets go of the interpreter's
lock, and a thread that held it for so long would hold up the event loop, too.

The very same functions read them there, so the same is accepted and the same is said of the rest.
A process is started for each: that takes some 60 ms, and bodies as large as that are rare.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from typing import Final, TypeVar

from tenantbase.offload.child import Answer, Job, read_at, write_at
from tenantbase.errors import Overloaded
from tenantbase.json_requests import Read

Result = TypeVar("Result")

log = logging.getLogger("tenantbase.apart")

APART_BYTES: Final = 2 << 20
"""A body above this is read apart: it takes the event loop up to 10 ms for each MiB, and up to 50
if it is nothing but brackets, which base64 may hide."""
_SMALL_BYTES: Final = 1 << 20
_AT_ONCE_BYTES: Final = 4 << 20  # up to here one call and a copy take less than many calls
_MANY_BRACKETS: Final = 1 << 19  # each takes 50 ns or more

_SECONDS: Final = 60  # waiting included; the largest body there can be, 1 GiB, takes ten
_PROGRAM: Final = (
    "import sys; at = sys.argv.index('--'); sys.path[:] = sys.argv[at + 1:]; del sys.argv[at:]\n"
    "from tenantbase.offload.child import main; main()"
)


def is_large(text: bytes) -> bool:
    """Whether a body is one to be read apart."""
    if len(text) <= _SMALL_BYTES:
        return False
    return len(text) > APART_BYTES or text.count(b"[") + text.count(b"{") > _MANY_BRACKETS


class Apart:
    """Reads the large bodies of one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def check_value(self, text: bytes) -> None:
        """Return if it is JSON that may be stored as a value. Raises as ``check_json`` does."""
        for _ in await self._read(Job.VALUE, text, 0):
            pass

    def read(
        self, job: Job, text: bytes, max_entries: int = 1
    ) -> Coroutine[None, None, Iterator[Read]]:
        """The entries of a body, as ``given.py`` reads them.

        The body is let go as soon as the other process has it; a caller should not keep it.

        Raises:
            Overloaded: it cannot be done now.
        """
        return self._read(job, text, max_entries)

    async def _read(self, job: Job, text: bytes, max_entries: int) -> Iterator[Read]:
        try:
            async with asyncio.timeout(_SECONDS), self._turn:
                with _memory() as fd:
                    await _in_thread(write_at, fd, text, 0)
                    del text
                    answer = await _run(job, fd, max_entries)
                    return _read_again(answer, await _in_thread(_values, fd, answer))
        except OSError as error:  # a timeout is one, too
            log.warning("a large body cannot be read in a process apart: %s", error or "too slow")
            raise Overloaded("there is no room for reading so large a body; try later") from error


async def _in_thread(function: Callable[..., Result], *args: object) -> Result:
    """Run a function in a thread. Even if this is cancelled it does not end before the thread has:
    the number of a file that was closed under it could be another file's."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(work)
    finally:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])


async def _run(job: Job, fd: int, max_entries: int) -> Answer:
    arguments = (job.value, str(_SECONDS), str(max_entries), "--", *sys.path)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        *arguments,
        stdin=fd,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C at the terminal is for the service, which drains first.
        start_new_session=True,
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise OSError(f"it ended with status {process.returncode}")
    answer = pickle.loads(told)  # written by our own program
    assert isinstance(answer, Answer)
    return answer


def _values(fd: int, answer: Answer) -> list[bytes]:
    sizes = [size for _, size in answer.entries if isinstance(size, int)]
    ends = list(accumulate(sizes))
    if not ends or ends[-1] > _AT_ONCE_BYTES:
        return [read_at(fd, size, end - size) for size, end in zip(sizes, ends, strict=True)]
    together = read_at(fd, ends[-1], 0)
    return [together[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _read_again(answer: Answer, values: list[bytes]) -> Iterator[Read]:
    """What the generator that ran in the other process yields, and raises."""
    waiting = iter(values)
    del values
    for given, size in answer.entries:
        yield Read(given, next(waiting) if isinstance(size, int) else size)
    if answer.refused is not None:
        raise answer.refused


@contextmanager
def _memory() -> Iterator[int]:
    """A file without a name; in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tenantbase-body", os.MFD_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()
