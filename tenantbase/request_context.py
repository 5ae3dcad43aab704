"""What names a request in log lines, error answers and traces: its id and its caller's trace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import ContextVar
from random import getrandbits
from typing import Final, NamedTuple

from tenantbase.stages import Span

MAX_ID_CHARACTERS: Final = 128
# Only characters without a special meaning in logs, shells and pages. Common systems use no others.
_ID: Final = re.compile(rf"[0-9A-Za-z._~:/+=@-]{{1,{MAX_ID_CHARACTERS}}}")
# W3C Trace Context, section 3.2.2. Later versions may append fields.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.{0,512})?"
)


class Trace(NamedTuple):
    """The caller's ``traceparent``.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: the caller's span: 16 hexadecimal digits.
        flags: 1 if the caller records its spans.
    """

    trace_id: str
    parent_id: str
    flags: int


class RequestContext:
    """The id and trace of a request, from its header fields.

    Args:
        ids: the values of ``X-Request-ID``. A single, safe one becomes the request's id.
        traceparents: the values of ``traceparent``. More than one count as none, as W3C requires.
        tracestate: the values of ``tracestate``, joined by commas.

    Attributes:
        echoed: the answer has the id, because the client sent one, even if it is not used.
        trace: None if there is no valid ``traceparent``.
        waits: what it has waited for so far, if it is answered by a task (``waits.py``).
    """

    __slots__ = ("echoed", "trace", "tracestate", "waits", "_id")

    def __init__(
        self, ids: Sequence[str] = (), traceparents: Sequence[str] = (), tracestate: str = ""
    ) -> None:
        self.echoed = bool(ids)
        self._id = ids[0] if len(ids) == 1 and is_safe_id(ids[0]) else None
        self.trace = parse_traceparent(traceparents[0]) if len(traceparents) == 1 else None
        self.tracestate = tracestate
        self.waits: list[Span] = []

    @property
    def id(self) -> str:
        """The request's id; generated when it is first needed, unless the client's is used."""
        if self._id is None:
            self._id = getrandbits(128).to_bytes(16).hex()
        return self._id


CURRENT: Final[ContextVar[RequestContext | None]] = ContextVar("request", default=None)
"""The request that the running task works for, if any."""


def is_safe_id(text: str) -> bool:
    """Whether this may be used as the id of a request."""
    return _ID.fullmatch(text) is not None


def parse_traceparent(text: str) -> Trace | None:
    """The trace that a ``traceparent`` field names; None if it is invalid."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return Trace(match[2], match[3], int(match[4], 16))
