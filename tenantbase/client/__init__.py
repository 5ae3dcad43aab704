"""The asyncio client of a tenantbase server.

::

    from tenantbase.client import Client

    async with Client("http://127.0.0.1:8000") as client:
        await client.set("code", {"a": 1}, ttl=60)
        entry = await client.get("code")
        if entry is not None:
            print(entry.value, entry.version)

``Client`` has one method for each operation; ``errors`` lists what can go wrong.
"""

from tenantbase.client.api import Client
from tenantbase.client.errors import (
    ClientError,
    ConditionFailed,
    ConnectionFailed,
    NotTrusted,
    OutcomeUnknown,
    Problem,
    Refused,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    WrongType,
)
from tenantbase.client.results import (
    NOT_MODIFIED,
    Blob,
    Changed,
    Count,
    Entry,
    Event,
    Health,
    NotModified,
    Put,
    Reset,
    Written,
)

__all__ = [
    "NOT_MODIFIED",
    "Blob",
    "Changed",
    "Client",
    "ClientError",
    "ConditionFailed",
    "ConnectionFailed",
    "Count",
    "Entry",
    "Event",
    "Health",
    "NotModified",
    "NotTrusted",
    "OutcomeUnknown",
    "Problem",
    "Put",
    "Refused",
    "Reset",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "Written",
    "WrongType",
]
