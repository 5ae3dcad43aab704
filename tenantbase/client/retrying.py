"""What an answer means, and whether and when to retry its request."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import msgspec

from tenantbase.client.errors import (
    OVER_LIMIT,
    RETRYABLE,
    ClientError,
    OutcomeUnknown,
    Problem,
    RateLimited,
    Refused,
    UnexpectedAnswer,
    error_of,
)
from tenantbase.client.naming import X_REQUEST_ID
from tenantbase.problem_types import MEDIA_TYPE
from tenantbase.request_context import is_safe_id

_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5.0
_GATEWAY: Final = frozenset({502, 503, 504})  # from a proxy that cannot reach the server

_problem = msgspec.json.Decoder(Problem)


class Answer(msgspec.Struct, frozen=True):
    """A complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Interrupted(Exception):
    """A stream broke off, and a retry may succeed. Internal: callers never see it."""

    def __init__(self, failure: ClientError, answer: Answer | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.answer = answer


def failure_of(answer: Answer, writes: bool) -> ClientError:
    """The error for an answer with a status of 300 or more."""
    failure = _failure_of(answer, writes)
    id = answer.headers.get(X_REQUEST_ID, "")
    if is_safe_id(id):  # a proxy may have set it
        failure.request_id = id
        failure.add_note(f"request id: {id}")
    return failure


def _failure_of(answer: Answer, writes: bool) -> ClientError:
    if answer.headers.get("Content-Type", "").startswith(MEDIA_TYPE):
        try:
            problem = _problem.decode(answer.body)
        except msgspec.MsgspecError:
            pass  # not a document of ours
        else:
            return error_of(problem, answer.status, writes, _asked_seconds(answer))
    what = f"HTTP status {answer.status} without a problem document"
    if writes and answer.status >= 500:
        return OutcomeUnknown(f"{what}; the write may or may not have been made")
    return UnexpectedAnswer(what)


def may_retry(answer: Answer, failure: ClientError, writes: bool) -> bool:
    """Whether a retry may succeed and is harmless."""
    if isinstance(failure, RateLimited):
        return True
    if isinstance(failure, Refused):
        return failure.problem.type in RETRYABLE
    return not writes and answer.status in _GATEWAY


def retry_delay(attempt: int, answer: Answer | None = None) -> float:
    """Seconds to wait after attempt number ``attempt``, from 1: at least what the server asks for."""
    # Jitter keeps clients that failed together from retrying together.
    backoff = min(_BACKOFF_SECONDS * 2.0 ** min(attempt, 16), _LONGEST_BACKOFF_SECONDS)
    wait = random.uniform(0.5, 1.0) * backoff
    if answer is not None:
        wait += _asked_seconds(answer)
    return wait


def _asked_seconds(answer: Answer) -> int:
    asked = answer.headers.get("Retry-After", "")
    return int(asked) if asked.isascii() and asked.isdecimal() else 0


class Retries:
    """The retries of one call: how many there may be, and how long each is waited for.

    Args:
        attempts: how often the request may fail in all. Refusals that are waited for do not count.
        wait_when_limited: how many seconds it may wait in all, while a limit of its tenant or of
            the server refuses it.
    """

    def __init__(self, attempts: int, wait_when_limited: float) -> None:
        self._attempts_left = attempts
        self._patience_left = wait_when_limited
        self._failures = 0

    def delay(self, failure: ClientError, answer: Answer | None = None) -> float | None:
        """Count a failure after which a retry may succeed.

        Returns: seconds to wait before the retry; None if there may be no more.
        """
        self._failures += 1
        delay = retry_delay(self._failures, answer)
        asked = 0 if answer is None else _asked_seconds(answer)
        if _is_limit(failure) and self._patience_left > 0 and asked <= self._patience_left:
            delay = min(delay, self._patience_left)
            self._patience_left -= delay
            return delay
        if isinstance(failure, RateLimited):
            return None
        self._attempts_left -= 1
        return delay if self._attempts_left > 0 else None


def _is_limit(failure: ClientError) -> bool:
    if isinstance(failure, RateLimited):
        return True
    return isinstance(failure, Refused) and failure.problem.type == OVER_LIMIT
