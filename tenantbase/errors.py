"""Every error that tenantbase raises on purpose.

    TenantbaseError
    ├── ConfigError              an option or a TENANTBASE_ variable is wrong
    ├── CannotListen             the address or port to listen on is not available
    ├── CannotWrite              the command line's output cannot be written
    ├── InvalidRequest           malformed or invalid input; names the field
    │   └── TooLarge             a value, a batch or a body is over its limit
    ├── WrongType                the entry is not of the kind the operation needs
    ├── NoSuchKey                the operation needs an entry, and there is none; nothing was done
    ├── ConditionFailed          if_version, if_absent, If-Match, If-None-Match
    ├── Unauthenticated          no valid token, and the database is closed
    ├── Forbidden                the caller's token does not allow it; nothing was done
    ├── NoSuchTenant             the tenant does not exist; nothing was done
    ├── TenantRequired           the tenant ``default`` cannot be deleted
    ├── QuotaExceeded            a tenant's limit for entries or bytes; nothing was done
    ├── RateLimited              a tenant's limit for requests; nothing was done
    ├── Overloaded               too much work is queued; nothing was done
    ├── StoreError               the database
    │   ├── CannotOpen           it cannot be opened, or is not ours
    │   │   └── InUse            another process has it open
    │   ├── StoreUnavailable     it cannot serve now; nothing was done
    │   │   ├── StoreFull        the disk is full; nothing was done
    │   │   ├── Damaged          what was asked for is damaged; the rest can be used
    │   │   └── DiskFailed       the disk reports an error; nothing was done
    │   └── OutcomeUnknown       a write may or may not have been made durable
    └── CacheUnavailable         memcached gave no usable answer; never leaves the policy

For a read, a missing key is not an error: it is ``None``. One table, in ``web/problems.py``, translates these
into HTTP answers.
"""

from __future__ import annotations

from tenantbase.figures import CacheFailure
from tenantbase.troubles import Trouble


class TenantbaseError(Exception):
    """The root. Its text is one sentence, fit to be shown to a user."""


class ConfigError(TenantbaseError):
    """An option or an environment variable is unknown or has an invalid value."""


class CannotListen(TenantbaseError):
    """The address cannot be listened on: the port is in use or denied, or the host is not here."""


class CannotWrite(TenantbaseError):
    """A file or standard output cannot be created or written: it is full, closed, or denied."""


class InvalidRequest(TenantbaseError):
    """Input that cannot be accepted.

    Args:
        detail: what is wrong, in one sentence.
        field: the name of the offending field or parameter, where there is one.
    """

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class TooLarge(InvalidRequest):
    """A value, a batch or a body over its limit."""


class WrongType(TenantbaseError):
    """The entry exists, but its value is not of the kind that the operation needs."""


class NoSuchKey(TenantbaseError):
    """The key does not exist, or has expired. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("there is no such key, or it has expired")


class ConditionFailed(TenantbaseError):
    """A condition of a write did not hold. Nothing was done.

    Args:
        key: the key whose condition failed.
        version: the version the entry has, None if it is absent.

    Attributes:
        reason: the reason, if the version does not explain it; otherwise empty.
    """

    reason = ""

    def __init__(self, key: str, version: int | None) -> None:
        state = "it is absent" if version is None else f"its version is {version}"
        super().__init__(f"the condition on key {key!r} does not hold: {state}")
        self.key = key
        self.version = version

    def __str__(self) -> str:
        return f"{super().__str__()}. {self.reason}" if self.reason else super().__str__()


class Unauthenticated(TenantbaseError):
    """The database is closed, and the request has no valid token. One text for every reason."""

    def __init__(self) -> None:
        super().__init__("a valid token is required: send it as Authorization: Bearer TOKEN")


class Forbidden(TenantbaseError):
    """The caller's token does not allow this. Nothing was done."""


class NoSuchTenant(TenantbaseError):
    """There is no tenant of this name. Nothing was done."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no tenant {name!r}")
        self.name = name


class TenantRequired(TenantbaseError):
    """The tenant ``default`` always exists, and cannot be deleted."""


class QuotaExceeded(TenantbaseError):
    """A write would take a tenant over its limit. Nothing was done.

    Args:
        limit: ``"max_entries"`` or ``"max_bytes"``.
        allowed: the limit.
    """

    def __init__(self, limit: str, allowed: int) -> None:
        kind = "entries" if limit == "max_entries" else "bytes of keys and values"
        super().__init__(f"the tenant may have {allowed:,} {kind}, and this would be more")
        self.limit = limit
        self.allowed = allowed


class RateLimited(TenantbaseError):
    """A tenant has made too many requests. Nothing was done.

    Args:
        rate: requests per second that it may make.
        retry_after: seconds until one more is allowed.
    """

    def __init__(self, rate: int, retry_after: float) -> None:
        super().__init__(f"the tenant may make {rate:,} requests per second")
        self.rate = rate
        self.retry_after = retry_after


class Overloaded(TenantbaseError):
    """Too many requests are waiting. Nothing was done; try again later."""


class StoreError(TenantbaseError):
    """The database did not do what was asked.

    Attributes:
        trouble: what is wrong with the database, if other requests will meet it too.
    """

    trouble: Trouble | None = None


class LeftOut(StoreError):
    """An entry did not fit into a batch's memory. It is read again; clients never see this."""


class CannotOpen(StoreError):
    """The database cannot be opened: locked, read-only, corrupt, foreign, or too new."""


class InUse(CannotOpen):
    """Another process has the database open."""


class StoreUnavailable(StoreError):
    """The database cannot serve now. Nothing was done; the request may be repeated."""


class StoreFull(StoreUnavailable):
    """The disk, or the file system's quota, is full. Nothing was done."""

    trouble = Trouble.DISK_FULL


class Damaged(StoreUnavailable):
    """A row, or a page, cannot be read. Nothing was done; other entries may be sound."""

    trouble = Trouble.DAMAGED_ROWS


class DiskFailed(StoreUnavailable):
    """The disk reports an error. Nothing was done."""

    trouble = Trouble.DISK_ERRORS


class OutcomeUnknown(StoreError):
    """A commit was begun but its outcome is not known: the write may be durable or lost."""

    trouble: Trouble | None = Trouble.DISK_ERRORS


class CacheUnavailable(TenantbaseError):
    """memcached gave no usable answer within its timeout.

    Args:
        reason: why, for the metrics.
    """

    def __init__(self, detail: str, reason: CacheFailure) -> None:
        super().__init__(detail)
        self.reason = reason


def prefix_too_large(seconds: float) -> StoreUnavailable:
    """The error if what is under a prefix could not be counted in this time."""
    return StoreUnavailable(
        f"the keys under the prefix cannot be counted within {seconds:.1f} s:"
        " delete it in parts, or raise --write-timeout"
    )
