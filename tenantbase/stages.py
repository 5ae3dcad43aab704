"""The stages in which a request waits."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Stage(StrEnum):
    """What a request can wait for."""

    QUEUE = "queue"  # for its batch to begin
    MEMCACHED = "memcached"
    CONFIRMATION = "confirmation"  # for a shared database to say what has changed
    DATABASE = "database"  # a read
    CHECKPOINT = "checkpoint"  # before the commit may begin
    COMMIT = "commit"


class Span(NamedTuple):
    """A wait from one moment to another, in nanoseconds of ``time.monotonic_ns``."""

    stage: Stage
    began: int
    ended: int


def totals(spans: Iterable[Span]) -> dict[str, int]:
    """How long each stage took, in nanoseconds, in the order of first occurrence."""
    took: dict[str, int] = {}
    for stage, began, ended in spans:
        took[stage.value] = took.get(stage.value, 0) + ended - began
    return took
