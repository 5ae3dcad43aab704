"""Limits how many log lines of one kind are written per minute.

Lines are of one kind if the same place in the code logs them, however many requests, clients or
keys they name. The first few of each kind are written. While more come, one line per minute says how
many were left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

PERIOD_SECONDS: Final = 60.0
BURST_LINES: Final = 5
_MOST_KINDS: Final = 1_000

Kind = tuple[object, ...]


class _Count:
    """The lines of one kind in the current period: when it ends, and how many were left out."""

    __slots__ = ("ends", "written", "left_out", "last")

    def __init__(self, ends: float, last: logging.LogRecord) -> None:
        self.ends = ends
        self.written = 0
        self.left_out = 0
        self.last = last


class Limiter:
    """Decides which records are written. Call its methods only with the handler's lock held.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[Kind, _Count] = {}

    def passes(self, record: logging.LogRecord) -> bool:
        """Whether to write this record.

        Its attribute ``burst``, if it has one, replaces ``BURST_LINES``: how many lines of its kind
        may be written in a period; None: all of them.
        """
        burst = getattr(record, "burst", BURST_LINES)
        if burst is None:
            return True
        kind = _kind(record)
        count = self._counts.get(kind)
        if count is None:
            if len(self._counts) >= _MOST_KINDS:
                return True
            count = self._counts[kind] = _Count(self._clock() + PERIOD_SECONDS, record)
        if count.written < burst:
            count.written += 1
            return True
        count.left_out += 1
        count.last = record
        return False

    def due(self) -> float | None:
        """Seconds until ``summaries`` yields something; None: nothing was left out."""
        ends = [count.ends for count in self._counts.values() if count.left_out]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def summaries(self, *, all_of_them: bool = False) -> Iterator[logging.LogRecord]:
        """A record for each kind that had lines left out in a period that has ended."""
        now = self._clock()
        for kind, count in list(self._counts.items()):
            if now < count.ends and not all_of_them:
                continue
            if not count.left_out:
                del self._counts[kind]  # nothing left out: the next line is news again
                continue
            yield _summary(count)
            count.ends = now + PERIOD_SECONDS
            count.left_out = 0


def _kind(record: logging.LogRecord) -> Kind:
    # A template that is only a placeholder does not tell kinds apart.
    text = record.getMessage() if record.msg in ("%s", "%r") else record.msg
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.name, record.levelno, text
    return record.name, record.levelno, text, type(error), _place(error.__traceback__)


def _place(trace: TracebackType | None) -> tuple[str, int] | None:
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno


def _summary(count: _Count) -> logging.LogRecord:
    last = count.last
    text = "%d more lines in %g s like this one, the last of them: %s"
    arguments = (count.left_out, PERIOD_SECONDS, last.getMessage())
    summary = logging.LogRecord(
        last.name, last.levelno, last.pathname, last.lineno, text, arguments, None
    )
    summary.__dict__["fields"] = {"left_out": count.left_out}
    return summary
