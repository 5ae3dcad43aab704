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

from tenantbase.access import Token, TokenScope
from tenantbase.client.api import Client
from tenantbase.client.errors import (
    ClientError,
    ConditionFailed,
    ConnectionFailed,
    Forbidden,
    NoSuchKey,
    NoSuchTenant,
    NotTrusted,
    OutcomeUnknown,
    Problem,
    QuotaExceeded,
    RateLimited,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    WrongType,
)
from tenantbase.client.figures import CacheStats, RequestStats, Stats, StoreStats
from tenantbase.client.naming import request_id
from tenantbase.client.results import (
    NOT_MODIFIED,
    Blob,
    Caller,
    Changed,
    Count,
    Entry,
    EntryMeta,
    Event,
    Folder,
    Health,
    NewToken,
    NotModified,
    OwnToken,
    Put,
    Reset,
    Tenant,
    Total,
    Written,
)

__all__ = [
    "Blob",
    "CacheStats",
    "Caller",
    "Changed",
    "Client",
    "ClientError",
    "ConditionFailed",
    "ConnectionFailed",
    "Count",
    "Entry",
    "EntryMeta",
    "Event",
    "Folder",
    "Forbidden",
    "Health",
    "NOT_MODIFIED",
    "NewToken",
    "NoSuchKey",
    "NoSuchTenant",
    "NotModified",
    "NotTrusted",
    "OutcomeUnknown",
    "OwnToken",
    "Problem",
    "Put",
    "QuotaExceeded",
    "RateLimited",
    "Refused",
    "RequestStats",
    "Reset",
    "Stats",
    "StoreStats",
    "Tenant",
    "Token",
    "TokenScope",
    "TooLarge",
    "Total",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Written",
    "WrongType",
    "request_id",
]
