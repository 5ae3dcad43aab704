"""Output of the command line: standard output, or a file that is replaced atomically."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Final

from tenantbase.cli.interruptible import checkpoint, interruptible
from tenantbase.errors import CannotWrite

_STANDARD_ERROR: Final = 2
_MODE: Final = 0o666
_PRIVATE_MODE: Final = 0o600
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class Output:
    """A destination for bytes. Its errors are CannotWrite and name the destination.

    BrokenPipeError is passed on: when a pipe's reader has exited, the command ends silently.

    Attributes:
        path: the regular file that is written; None if it is a stream.
    """

    def __init__(self, file: BinaryIO, name: str, path: Path | None = None) -> None:
        self.file = file
        self.path = path
        self._name = name

    def write(self, data: bytes) -> None:
        with _explained(self._name), interruptible():
            self.file.write(data)

    async def send(self, data: bytes) -> None:
        """As ``write``, from a task that Ctrl-C may have cancelled."""
        await checkpoint()
        self.write(data)

    def flush(self) -> None:
        with _explained(self._name), interruptible():
            self.file.flush()


@contextmanager
def standard_output() -> Iterator[Output]:
    """Standard output, flushed at the end of the block, so that errors surface inside it.

    Raises:
        CannotWrite: it is closed or cannot be written.
    """
    if sys.stdout is None:
        raise CannotWrite("cannot write to standard output: it is closed")
    output = Output(sys.stdout.buffer, "standard output")
    try:
        yield output
        output.flush()
    except (CannotWrite, BrokenPipeError, KeyboardInterrupt):
        discard_standard_output()
        raise


@contextmanager
def output_to(name: str, *, replace: bool = True, private: bool = False) -> Iterator[Output]:
    """A file, or standard output for ``-``.

    Args:
        replace: False: refuse a regular file that exists.
        private: only its owner may read a new file.

    A regular file is replaced atomically, keeping its mode, when the block ends without an error.
    If the block fails, or power is lost, it stays as it was. Anything else, such as a FIFO or
    /dev/stdout, is written directly.

    Raises:
        CannotWrite: one line that says why.
    """
    if name == "-":
        with standard_output() as output:
            yield output
        return
    with _explained(name):
        try:
            old = os.stat(name)
        except FileNotFoundError:
            old = None
        if _is_direct(name, old):
            with interruptible():  # a FIFO waits for its reader
                fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            with open(fd, "wb") as direct:
                yield Output(direct, name)
        else:
            if old is not None and not replace:
                raise CannotWrite(f"{name} exists; --force replaces it")
            if old is not None and not os.access(name, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            # A symbolic link is kept; its target is replaced.
            path = Path(os.path.realpath(name))
            with _ended_in_order(), _replacing(path, old, private) as (file, beside):
                yield Output(file, name, beside)


def _is_direct(name: str, old: os.stat_result | None) -> bool:
    """Whether to write to it directly. /dev/stdout may be a regular file, but is not ours."""
    path = os.path.abspath(name)
    return old is not None and (
        not stat.S_ISREG(old.st_mode) or path.startswith(("/dev/", "/proc/"))
    )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotWrite(f"cannot write to {name}: {error.strerror}") from error


@contextmanager
def _replacing(
    path: Path, old: os.stat_result | None, private: bool
) -> Iterator[tuple[BinaryIO, Path]]:
    beside = path.with_name(f".tenantbase-{secrets.token_hex(8)}")
    try:
        # Inside the try block, because Ctrl-C may come right after the file is created.
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            yield file, beside
            file.flush()
            _make_alike(fd, old, _PRIVATE_MODE if private else _MODE)
            os.fsync(fd)
        os.rename(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems do not support it: fsync(2)
            raise
    finally:
        os.close(directory)


def _make_alike(fd: int, old: os.stat_result | None, mode: int) -> None:
    if old is None:
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(fd, mode & ~mask)
        return
    with suppress(PermissionError):  # only root may set another owner
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that the block cleans up before the exit."""

    ended_by: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        # Handled like Ctrl-C, for which asyncio has a handler while its event loop runs.
        ended_by.append(number)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    before = {}
    for number in _ENDING:
        with suppress(ValueError):  # not the main thread
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        if ended_by:
            raise SystemExit(128 + ended_by[0]) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def discard_standard_output() -> None:
    """Discard its buffer: Python would flush it again at exit, and print an error."""
    with suppress(OSError, ValueError):  # the stream may have no descriptor
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
