"""The Protocol of a tracer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tenantbase.request_context import RequestContext
from tenantbase.stages import Span


class Tracer(Protocol):
    """Exports finished requests as spans."""

    def record(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        context: RequestContext,
        began: int,
        ended: int,
        waits: Sequence[Span],
        *,
        failed: bool,
    ) -> None:
        """Record a finished request. Must not block.

        Args:
            began, ended: nanoseconds of ``time.monotonic_ns``.
            waits: what it waited for; each becomes a child span.
            failed: the server is to blame.
        """

    def close(self) -> None:
        """Export what is left. Takes seconds at most."""
