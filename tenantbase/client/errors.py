"""Every error of the client.

    ClientError
    ├── ConnectionFailed         no answer; nothing was written
    │   └── NotTrusted           the server's certificate could not be verified; nothing was sent
    ├── OutcomeUnknown           a write without a conclusive answer: it may have taken effect
    ├── UnexpectedAnswer         not from a tenantbase server: something in between answered
    └── Refused                  the server refused, and says why; nothing was written
        ├── ConditionFailed      if_version or if_absent did not hold
        ├── WrongType            the operation does not work on this kind of entry
        ├── TooLarge             the value or the request exceeds a limit
        ├── Unauthenticated      the server requires a token: there is none, or it is not valid now
        ├── Forbidden            the token does not allow it
        ├── NoSuchTenant         the tenant does not exist
        ├── QuotaExceeded        the tenant would exceed its entries or bytes
        ├── RateLimited          the tenant has made too many requests; see retry_after
        └── Unavailable          the server cannot do it now; try again later

A missing key is not an error: it is ``None``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tenantbase.errors import TenantbaseError
from tenantbase.problem_types import ProblemType


class ClientError(TenantbaseError):
    """The root. Its text is one sentence, fit to be shown to a user.

    Attributes:
        request_id: the id of the request in the server's log, which tracebacks show too; None: no
            answer came, or it had no id.
    """

    request_id: str | None = None


class ConnectionFailed(ClientError):
    """No answer came. Nothing was written."""


class NotTrusted(ConnectionFailed):
    """The server's certificate cannot be verified. Nothing was sent, and it is not tried again."""


class OutcomeUnknown(ClientError):
    """A write was sent, but its outcome is unknown. Read before you send it again."""


class UnexpectedAnswer(ClientError):
    """The answer is not from a tenantbase server. A write may have taken effect."""


class Problem(msgspec.Struct, frozen=True):
    """The server's explanation: the members of an ``application/problem+json`` document.

    Attributes:
        status: the HTTP status.
        type: a stable URI for the kind of problem.
        title: the kind of problem, for people.
        detail: what is wrong with this request, for people.
        field: the offending field or parameter, if there is one.
        limit: the limit that is exceeded, such as ``max_bytes``, if the problem is one.
        key: the key whose condition failed.
        version: that key's current version; None if the key is absent.
    """

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    field: str | None = None
    limit: str | None = None
    key: str | None = None
    version: int | None = None


class Refused(ClientError):
    """The server refused the request; nothing was written.

    Attributes:
        problem: the server's explanation.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title or f"HTTP status {problem.status}")
        self.problem = problem


class ConditionFailed(Refused):
    """A condition did not hold. ``problem.version`` is the key's current version."""


class WrongType(Refused):
    """The operation does not work on this kind of entry, such as incrementing a string."""


class TooLarge(Refused):
    """A value, a batch or a request exceeds its limit."""


class Unauthenticated(Refused):
    """The server requires a token, and there is none, or it is unknown, revoked or expired."""


class Forbidden(Refused):
    """The token does not allow it: its scope, its tenant or its prefix."""


class NoSuchTenant(Refused):
    """The tenant does not exist."""


class QuotaExceeded(Refused):
    """The tenant would have more entries, or bytes of keys and values, than it may.

    Attributes:
        limit: ``max_entries`` or ``max_bytes``.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.limit = problem.limit


class RateLimited(Refused):
    """The tenant has made more requests than it may.

    Attributes:
        retry_after: seconds until it may make another.
    """

    def __init__(self, problem: Problem, retry_after: float) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class NoSuchKey(Refused):
    """The key does not exist. Internal: callers of the client get None."""


class Unavailable(Refused):
    """The server cannot do it now: it is overloaded or stopping, or its disk is full."""


_BY_STATUS: Final[dict[int, type[Refused]]] = {
    409: WrongType,
    412: ConditionFailed,
    413: TooLarge,
    429: Unavailable,
    503: Unavailable,
    507: Unavailable,
}
# Types that share their status with others.
_BY_TYPE: Final[dict[str, type[Refused]]] = {
    ProblemType.NO_SUCH_KEY.uri: NoSuchKey,
    ProblemType.UNAUTHENTICATED.uri: Unauthenticated,
    ProblemType.FORBIDDEN.uri: Forbidden,
    ProblemType.NO_SUCH_TENANT.uri: NoSuchTenant,
    ProblemType.TENANT_REQUIRED.uri: Refused,
    ProblemType.QUOTA_EXCEEDED.uri: QuotaExceeded,
}

_RATE_LIMITED: Final = ProblemType.RATE_LIMITED.uri
OVER_LIMIT: Final = ProblemType.OVER_LIMIT.uri
_UNKNOWN: Final = ProblemType.OUTCOME_UNKNOWN.uri
# Nothing was written, and a retry may succeed soon. A full disk takes longer.
RETRYABLE: Final = frozenset(
    {ProblemType.OVERLOADED.uri, ProblemType.STORE_UNAVAILABLE.uri, OVER_LIMIT}
)
_NOTHING_WRITTEN: Final = RETRYABLE | {ProblemType.DISK_FULL.uri, ProblemType.QUOTA_EXCEEDED.uri}


def error_of(problem: Problem, status: int, writes: bool, retry_after: float) -> ClientError:
    """The error to raise for a problem.

    Args:
        status: the answer's HTTP status, which may differ from the one in a proxy's document.
        writes: whether the request was a write.
        retry_after: seconds that the server asks to wait.
    """
    if problem.type == _UNKNOWN:
        return OutcomeUnknown(problem.detail)
    if writes and status >= 500 and problem.type not in _NOTHING_WRITTEN:
        # The server may have failed after writing, or something in between lost its answer.
        what = problem.detail or problem.title or f"HTTP status {status}"
        return OutcomeUnknown(f"{what}; the write may or may not have been made")
    if problem.type == _RATE_LIMITED:
        return RateLimited(problem, retry_after)
    kind = _BY_TYPE.get(problem.type) or _BY_STATUS.get(problem.status, Refused)
    return kind(problem)
