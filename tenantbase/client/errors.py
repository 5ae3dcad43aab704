"""Every error of the client.

    ClientError
    ├── ConnectionFailed         no answer; nothing was written
    │   └── NotTrusted           the server's certificate cannot be verified; nothing was sent
    ├── OutcomeUnknown           no answer to a write, or one that leaves it open: perhaps it was made
    ├── UnexpectedAnswer         an answer that no tenantbase gives: something else is in between
    └── Refused                  the server says no, and why; nothing was written
        ├── ConditionFailed      if_version or if_absent did not hold
        ├── WrongType            the entry is not of the kind the operation needs
        ├── TooLarge             the value or the request is over a limit
        └── Unavailable          it cannot serve now; try again later

A missing key is not an error: it is ``None``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tenantbase.errors import TenantbaseError


class ClientError(TenantbaseError):
    """The root: its text is one sentence, fit to be shown to a user."""


class ConnectionFailed(ClientError):
    """No answer came. Nothing was written."""


class NotTrusted(ConnectionFailed):
    """The server's certificate cannot be verified. Nothing was sent, and it is not tried again."""


class OutcomeUnknown(ClientError):
    """A write was sent, and nobody can say whether it was made. Read before you send it again."""


class UnexpectedAnswer(ClientError):
    """The answer is none of a tenantbase server. A write was not acknowledged."""


class Problem(msgspec.Struct, frozen=True):
    """What the server says is wrong: the members of an ``application/problem+json`` document.

    Attributes:
        status: of the HTTP answer.
        type: a URI that names the kind of problem; stable.
        title: the kind of problem, for people.
        detail: what is wrong with this request, for people.
        field: the offending field or parameter, where there is one.
        key: the key whose condition failed.
        version: the version that key has; None: it is absent.
    """

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    field: str | None = None
    key: str | None = None
    version: int | None = None


class Refused(ClientError):
    """The server refused the request; nothing was written.

    Attributes:
        problem: what it says.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title or f"HTTP status {problem.status}")
        self.problem = problem


class ConditionFailed(Refused):
    """A condition did not hold. ``problem.version`` is the version the key has."""


class WrongType(Refused):
    """The entry exists, but is not of the kind the operation works on."""


class TooLarge(Refused):
    """A value, a batch or a request is over its limit."""


class NoSuchKey(Refused):
    """There is no such key. Never leaves the client: there it is None."""


class Unavailable(Refused):
    """The server cannot do it now: too much to do, stopping, or its disk is full."""


_BY_STATUS: Final[dict[int, type[Refused]]] = {
    409: WrongType,
    412: ConditionFailed,
    413: TooLarge,
    429: Unavailable,
    503: Unavailable,
    507: Unavailable,
}

_PREFIX: Final = "urn:tenantbase:problem:"
_NO_SUCH_KEY: Final = _PREFIX + "no-such-key"
_UNKNOWN: Final = _PREFIX + "outcome-unknown"
# The server did nothing and may do it when asked again. Not so with a full disk: that takes longer.
PASSING: Final = frozenset({_PREFIX + "overloaded", _PREFIX + "store-unavailable"})
_NOTHING_DONE: Final = PASSING | {_PREFIX + "disk-full"}


def error_of(problem: Problem, status: int, writes: bool) -> ClientError:
    """The error that a problem is raised as.

    Args:
        status: of the answer that it came with; a proxy's document may have another.
        writes: whether it is the answer to a write.
    """
    if problem.type == _UNKNOWN:
        return OutcomeUnknown(problem.detail)
    if writes and status >= 500 and problem.type not in _NOTHING_DONE:
        # The server failed at some point or other, or something in between lost its answer.
        what = problem.detail or problem.title or f"HTTP status {status}"
        return OutcomeUnknown(f"{what}; the write may or may not have been made")
    if problem.type == _NO_SUCH_KEY:
        return NoSuchKey(problem)
    return _BY_STATUS.get(problem.status, Refused)(problem)
