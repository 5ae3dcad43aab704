"""Input of the command line: standard input or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from tenantbase.errors import TenantbaseError


@contextmanager
def input_from(name: str) -> Iterator[BinaryIO]:
    """A file to read, or standard input for ``-``.

    Raises:
        TenantbaseError: it cannot be opened.
    """
    if name == "-":
        yield _standard_input()
        return
    try:
        file = open(name, "rb")
    except OSError as error:
        raise TenantbaseError(f"cannot read {name}: {error.strerror}") from error
    with file:
        yield file


def read_standard_input() -> bytes:
    """Read standard input to its end. Raises TenantbaseError."""
    try:
        return _standard_input().read()
    except OSError as error:
        raise TenantbaseError(f"cannot read standard input: {error.strerror}") from error


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise TenantbaseError("cannot read standard input: it is closed")
    return sys.stdin.buffer
