"""What an answer means, and whether and when to retry its request."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import msgspec

from tenantbase.client.errors import (
    RETRYABLE,
    ClientError,
    OutcomeUnknown,
    Problem,
    Refused,
    UnexpectedAnswer,
    error_of,
)
from tenantbase.problem_types import MEDIA_TYPE

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
    if answer.headers.get("Content-Type", "").startswith(MEDIA_TYPE):
        try:
            return error_of(_problem.decode(answer.body), answer.status, writes)
        except msgspec.MsgspecError:
            pass  # not a document of ours
    what = f"HTTP status {answer.status} without a problem document"
    if writes and answer.status >= 500:
        return OutcomeUnknown(f"{what}; the write may or may not have been made")
    return UnexpectedAnswer(what)


def may_retry(answer: Answer, failure: ClientError, writes: bool) -> bool:
    """Whether a retry may succeed and is harmless."""
    if isinstance(failure, Refused):
        return failure.problem.type in RETRYABLE
    return not writes and answer.status in _GATEWAY


def retry_delay(attempt: int, answer: Answer | None = None) -> float:
    """Seconds to wait after attempt number ``attempt``, from 1: at least what the server asks for."""
    # Jitter keeps clients that failed together from retrying together.
    backoff = min(_BACKOFF_SECONDS * 2.0 ** min(attempt, 16), _LONGEST_BACKOFF_SECONDS)
    wait = random.uniform(0.5, 1.0) * backoff
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if asked.isascii() and asked.isdecimal():
        wait += int(asked)
    return wait
