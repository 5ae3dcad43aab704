"""Exceptions as text that quotes no client: where they arose, and their message if harmless.

The message of an exception may quote a request: ``int("...")`` repeats its argument, and the message
of a ``KeyError`` is the key. So messages are shown only for types whose messages name code or files.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator
from typing import Final

from tenantbase.errors import CacheUnavailable, StoreError

# Their messages are Python's, the system's or ours, and never contain a key or a value.
_HARMLESS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    CacheUnavailable,
    ImportError,
    MemoryError,
    NameError,
    NotImplementedError,
    OSError,
    RecursionError,
    StoreError,
    TypeError,
    Warning,
    sqlite3.Error,
)
_DECODING: Final = (UnicodeError,)  # a ValueError whose message contains the data
_MOST_FRAMES: Final = 30
_MOST_LINKS: Final = 10


def summary(error: BaseException) -> str:
    """An exception's type, with its message if that is harmless."""
    name = type(error).__name__
    if isinstance(error, _HARMLESS) and not isinstance(error, _DECODING) and str(error):
        return f"{name}: {error}"
    return f"{name} (its text is withheld: it may quote a request)" if error.args else name


def format_error(error: BaseException) -> str:
    """A traceback as Python prints it, except for messages that may quote a client."""
    return "".join(_parts(error)).rstrip()


def _parts(error: BaseException) -> Iterator[str]:
    chain: list[tuple[BaseException, str]] = []
    link: BaseException | None = error
    joint = ""
    while link is not None and len(chain) < _MOST_LINKS:
        chain.append((link, joint))
        if link.__cause__ is not None:
            link, joint = link.__cause__, "It was the direct cause of this exception:\n"
        elif link.__context__ is not None and not link.__suppress_context__:
            link, joint = link.__context__, "While it was handled, this exception arose:\n"
        else:
            link = None
    for each, joint in reversed(chain):
        if each.__traceback__ is not None:
            yield "Traceback (most recent call last):\n"
            yield from traceback.format_tb(each.__traceback__, -_MOST_FRAMES)
        yield f"{summary(each)}\n"
        if isinstance(each, BaseExceptionGroup):
            for inner in each.exceptions:
                yield f"  of the group: {summary(inner)}\n"
        if joint:
            yield joint
