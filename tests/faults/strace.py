"""Runs a program under strace, to record its system calls or to make them fail.

strace(1) needs no compiler and works on unmodified programs. It needs permission to trace its
children, which some containers deny.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

# The calls that change a database's files, or make a change durable.
FILE_CALLS: Final = (
    "openat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,fallocate,copy_file_range,sendfile,"
    "fsync,fdatasync,sync_file_range,msync,unlink,unlinkat,rename,renameat,renameat2"
)

_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)", re.DOTALL)
_UNFINISHED: Final = " <unfinished ...>"
_CALL: Final = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(.*)", re.DOTALL)


class Call(NamedTuple):
    """One finished system call.

    Attributes:
        began: the number of trace lines before the one that shows its beginning.
        name: as in strace's output.
        args: its arguments as strace prints them with ``-y -xx``, unparsed.
        result: what it returned, -1 for an error.
        file: the path that strace gives for a descriptor that was returned, or None.
    """

    began: int
    name: str
    args: str
    result: int
    file: str | None


@cache
def strace() -> str:
    """The path of strace. Raises RuntimeError, saying what to do, if it cannot be used."""
    program = shutil.which("strace")
    if program is None:
        raise RuntimeError("this needs the program strace; run: apt-get install strace")
    tried = subprocess.run(
        [program, "-f", "-o", "/dev/null", "true"], capture_output=True, text=True
    )
    if tried.returncode:
        raise RuntimeError(
            "strace may not trace here (in a container, start it with"
            f" --cap-add=SYS_PTRACE): {tried.stderr.strip()}"
        )
    return program


def recorded(command: Sequence[str], seconds: float = 120) -> list[Call]:
    """Run a command, and return its calls that concern files, in order.

    Raises:
        RuntimeError: strace cannot be used.
        subprocess.CalledProcessError: the command failed.
    """
    with tempfile.NamedTemporaryFile("r", prefix="tenantbase-trace-", newline="\n") as trace:
        options = ["-f", "-y", "-xx", "-s", "99999999", "-e", "signal=none", "-o", trace.name]
        full = [strace(), *options, "-e", f"trace={FILE_CALLS}", "--", *command]
        subprocess.run(full, check=True, timeout=seconds)
        return list(parsed(trace))


def parsed(lines: Iterator[str]) -> Iterator[Call]:
    """The finished calls of a trace, in the order in which they ended."""
    halves: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line.rstrip("\n"))
        if match is None:
            raise ValueError(f"not a line of strace: {line[:200]!r}")
        thread, resumed, rest = match.groups()
        began = number
        if resumed is not None:
            began, first = halves.pop(thread)
            rest = first + rest
        if rest.endswith(_UNFINISHED):
            halves[thread] = number, rest.removesuffix(_UNFINISHED)
            continue
        call = _CALL.fullmatch(rest)
        if call is None or call[3] == "?":
            continue  # an exit, or a call interrupted by a kill
        name, args, result, more = call.groups()
        file = more[1 : more.rindex(">")] if more.startswith("<") else None
        yield Call(began, name, args, int(result), file and text(file).decode())


def text(printed: str) -> bytes:
    """Decode the bytes that strace printed with ``-xx``."""
    return bytes.fromhex(printed.replace("\\x", ""))


def injecting(fault: str, command: Sequence[str | Path], files: Sequence[Path] = ()) -> list[str]:
    """The command line that runs a command with an injected fault.

    Args:
        fault: what ``strace -e inject=`` takes.
        files: only calls on these files count and can fail; if empty, all calls.
    """
    name = fault.partition(":")[0]
    options = ["-f", "-qqq", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={fault}"]
    options += [option for file in files for option in ("-P", str(file))]
    return [strace(), *options, "--", *map(str, command)]
