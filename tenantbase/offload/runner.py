"""Parses large bodies in a child process, one at a time: no parser releases the interpreter's lock,
so a thread would hold up the event loop as well.

The child runs the same functions, so it accepts the same bodies and reports the same errors. Each
body gets a new process, which takes about 60 ms; bodies of that size are rare.
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

from tenantbase.errors import Overloaded
from tenantbase.json_requests import Read
from tenantbase.offload.child import Answer, Job, read_at, write_at

Result = TypeVar("Result")

log = logging.getLogger("tenantbase.offload")

OFFLOAD_BYTES: Final = 2 << 20
"""A larger body is parsed in a child process. In the event loop it would take up to 10 ms for each
MiB, or 50 if it is nothing but brackets, which base64 may hide."""
_SMALL_BYTES: Final = 1 << 20
_AT_ONCE_BYTES: Final = 4 << 20  # below this, one read and copying it are faster than many reads
_MANY_BRACKETS: Final = 1 << 19  # each bracket takes 50 ns or more

_TIMEOUT_SECONDS: Final = 60  # includes waiting; the largest possible body, 1 GiB, takes ten
_PROGRAM: Final = (
    "import sys; at = sys.argv.index('--'); sys.path[:] = sys.argv[at + 1:]; del sys.argv[at:]\n"
    "from tenantbase.offload.child import main; main()"
)


def is_large(text: bytes) -> bool:
    """Whether a body is to be parsed in a child process."""
    if len(text) <= _SMALL_BYTES:
        return False
    return len(text) > OFFLOAD_BYTES or text.count(b"[") + text.count(b"{") > _MANY_BRACKETS


class ParserProcess:
    """Parses the large bodies of one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def checked(self, text: bytes) -> bytes:
        """The text, if it is JSON that may be stored.

        It is released while the child has it; callers should not keep it either.

        Raises:
            InvalidRequest: as ``check_json`` does.
            Overloaded: it cannot be done now.
        """
        reading = self._read(Job.VALUE, text, 1)
        del text
        (read,) = await reading
        assert isinstance(read.value, bytes)
        return read.value

    def read(
        self, job: Job, text: bytes, max_entries: int = 1
    ) -> Coroutine[None, None, Iterator[Read]]:
        """The entries of a body, as ``json_requests.py`` reads them.

        The body is released as soon as the child has it; callers should not keep it either.

        Raises:
            Overloaded: there are no resources for it now.
        """
        return self._read(job, text, max_entries)

    async def _read(self, job: Job, text: bytes, max_entries: int) -> Iterator[Read]:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS), self._turn:
                with _memory() as fd:
                    await _in_thread(write_at, fd, text, 0)
                    del text
                    answer = await _run(job, fd, max_entries)
                    return _read_again(answer, await _in_thread(_values, fd, answer))
        except OSError as error:  # TimeoutError is an OSError
            log.warning("a large body cannot be parsed in a child process: %s", error or "too slow")
            raise Overloaded(
                "there are no resources to parse so large a body; try again later"
            ) from error


async def _in_thread(function: Callable[..., Result], *args: object) -> Result:
    """Run a function in a thread. Waits for the thread even if cancelled: the descriptor it uses
    would be closed, and could by then be another file's."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(work)
    finally:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])


async def _run(job: Job, fd: int, max_entries: int) -> Answer:
    arguments = (job.value, str(_TIMEOUT_SECONDS), str(max_entries), "--", *sys.path)
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
    try:
        answer = pickle.loads(told)  # written by our own program
    except (EOFError, pickle.UnpicklingError) as error:
        raise OSError("it ended without a complete answer") from error
    if not isinstance(answer, Answer):
        raise OSError("it gave another answer")
    return answer


def _values(fd: int, answer: Answer) -> list[bytes]:
    sizes = [size for _, size in answer.entries if isinstance(size, int)]
    ends = list(accumulate(sizes))
    if not ends or ends[-1] > _AT_ONCE_BYTES:
        return [read_at(fd, size, end - size) for size, end in zip(sizes, ends, strict=True)]
    together = read_at(fd, ends[-1], 0)
    return [together[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _read_again(answer: Answer, values: list[bytes]) -> Iterator[Read]:
    """Replay the child's generator: yield what it yielded, raise what it raised."""
    waiting = iter(values)
    del values
    for given, size in answer.entries:
        yield Read(given, next(waiting) if isinstance(size, int) else size)
    if answer.refused is not None:
        raise answer.refused


@contextmanager
def _memory() -> Iterator[int]:
    """An unnamed file; in memory where the system supports it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("tenantbase-body", os.MFD_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()
