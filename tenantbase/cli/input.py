"""Input of the command line: standard input, a file, or a prompt at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import click

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


def given_or_prompted(name: str, given: str | None) -> str:
    """The argument, or the answer to a prompt on standard error.

    Raises:
        TenantbaseError: it is not given, and there is no answer.
    """
    if given is not None:
        return given
    if sys.stdin is None:  # closed by the parent process
        raise TenantbaseError(f"{name.upper()} is missing, and standard input is closed")
    try:
        answer: str = click.prompt(name, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)  # moves past the prompt's line
        raise TenantbaseError(f"{name.upper()} is missing") from None
    return answer


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise TenantbaseError("cannot read standard input: it is closed")
    return sys.stdin.buffer
