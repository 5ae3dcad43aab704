"""What an answer means, and whether and when its request may be sent again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import msgspec

from tenantbase.client.errors import (
    PASSING,
    ClientError,
    OutcomeUnknown,
    Problem,
    Refused,
    UnexpectedAnswer,
    error_of,
)
from tenantbase.problem_types import MEDIA_TYPE

_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 5.0
_GATEWAY: Final = frozenset({502, 503, 504})  # a proxy that does not reach the server

_problem = msgspec.json.Decoder(Problem)


class Answer(msgspec.Struct, frozen=True):
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Interrupted(Exception):
    """A stream that ended before its time and may be asked for again. Never leaves the client."""

    def __init__(self, failure: ClientError, answer: Answer | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.answer = answer


def failure_of(answer: Answer, writes: bool) -> ClientError:
    """The error that an answer with a status of 300 and more stands for."""
    if answer.headers.get("Content-Type", "").startswith(MEDIA_TYPE):
        try:
            return error_of(_problem.decode(answer.body), answer.status, writes)
        except msgspec.MsgspecError:
            pass  # then it is nobody's that we know
    what = f"HTTP status {answer.status} without a problem document"
    if writes and answer.status >= 500:
        return OutcomeUnknown(f"{what}; the write may or may not have been made")
    return UnexpectedAnswer(what)


def may_be_repeated(answer: Answer, failure: ClientError, writes: bool) -> bool:
    """Whether the same request, sent again, may have another end and can do no harm."""
    if isinstance(failure, Refused):
        return failure.problem.type in PASSING
    return not writes and answer.status in _GATEWAY


def delay(attempt: int, answer: Answer | None = None) -> float:
    """Seconds to wait after an attempt, counted from 1: what the server asks for, or longer."""
    # Random, so that clients that failed together do not come back together.
    wait = random.uniform(0.5, 1.0) * min(_BACKOFF * 2.0 ** min(attempt, 16), _LONGEST_BACKOFF)
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if asked.isascii() and asked.isdecimal():
        wait += int(asked)
    return wait
