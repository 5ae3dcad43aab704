"""How much of a server's budgets a tenant uses, and how much it may use beside other tenants.

A tenant may use three times as much as it leaves free. So one tenant takes at most three quarters,
two that want everything take three sevenths each, and there is always some left for another.
"""

from __future__ import annotations

from typing import Final

_TIMES_FREE: Final = 3


class TenantUse:
    """What a tenant uses of one server. Belongs to one event loop.

    Attributes:
        requests: in flight.
        unread_bytes: of answers that its clients have yet to read.
    """

    __slots__ = ("requests", "unread_bytes")

    def __init__(self) -> None:
        self.requests = 0
        self.unread_bytes = 0


def leaves_enough(used: int, size: int, free: float) -> bool:
    """Whether a tenant that uses ``used`` may use ``size`` more, which would leave ``free``.

    A tenant that uses nothing yet may take whatever fits.
    """
    return not used or used + size <= _TIMES_FREE * free
