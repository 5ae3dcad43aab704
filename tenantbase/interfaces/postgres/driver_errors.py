"""What the driver's errors mean."""

from __future__ import annotations

from typing import Final

import asyncpg

from tenantbase.errors import (
    Damaged,
    DiskFailed,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
)
from tenantbase.troubles import Trouble

# Of an attempt to connect. A statement may fail with any other error, too.
DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


class SessionLost(StoreUnavailable):
    """The connection broke or is no longer used. The statement in flight may or may not have taken
    effect.

    Args:
        why: in words.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"the connection to the database was lost: {why}")
        self.why = why


class NotConfirmed(StoreUnavailable):
    """No synchronous standby confirms commits. They may become visible later."""

    trouble = Trouble.NOT_CONFIRMED


class Unsettled(OutcomeUnknown):
    """The outcome of a group in doubt could not be found out in time. Unlike with a file, the cause is
    not a broken disk."""

    trouble = None


class ReadOnly(StoreUnavailable):
    """The primary is read-only. Nothing was done."""

    trouble = Trouble.READ_ONLY


class Retry(StoreUnavailable):
    """The server undid a transaction that met another one. It may be repeated."""


class WrongTerm(StoreUnavailable):
    """The server is not, or no longer, the primary of the session's term. Nothing was done."""


class TooSlow(StoreUnavailable):
    """The server ended a statement that exceeded its time limit. Nothing was done."""


class Defeated(StoreUnavailable):
    """What a group was planned from has changed. Nothing was done."""


# SQLSTATEs that the functions of the schema raise.
WRONG_TERM: Final = "TB001"
NO_STANDBY: Final = "TB002"
LATE: Final = "TB003"
DEFEATED: Final = "TB004"

_LOST: Final = {
    "25P03",  # idle in a transaction for too long
    "57P01",  # the server shuts down
    "57P02",  # it restarts after a crash
    "57P03",  # it does not accept connections yet
    "57P05",  # idle for too long
}
_LOST_CLASSES: Final = {"08"}  # connection exceptions
_RETRY: Final = {"40001", "40P01"}  # serialization failure, deadlock
_CANCELLED: Final = "57014"
_READ_ONLY: Final = "25006"
_LOCK_TIMEOUT: Final = "55P03"
_DISK_FULL: Final = "53100"
DAMAGED_CLASS: Final = "XX"
_IO_ERROR: Final = {"58030", "58P01"}


def sqlstate_of(error: BaseException | None) -> str:
    """The SQLSTATE of a server's error; empty if it did not come from the server."""
    return (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""


def unavailable(error: BaseException) -> StoreUnavailable:
    """What an error of a statement means."""
    state = sqlstate_of(error)
    if not state or state in _LOST or state[:2] in _LOST_CLASSES:
        return SessionLost(reason(error))
    if state in _RETRY:
        return Retry("the database is busy with another transaction")
    if state == _READ_ONLY:
        return ReadOnly("the database server is read-only (default_transaction_read_only)")
    if state == WRONG_TERM:
        return WrongTerm("another database server is the primary now")
    if state == DEFEATED:
        return Defeated("other writes were faster")
    if state == NO_STANDBY:
        return NotConfirmed("the database server has no synchronous standby")
    if state == LATE:
        return StoreUnavailable("the write reached the database too late")
    if state == _CANCELLED:
        return TooSlow("the database did not answer in time")
    if state == _LOCK_TIMEOUT:
        return StoreUnavailable("the database is locked by another transaction")
    if state == _DISK_FULL:
        return StoreFull("the disk of the database server is full")
    if state in _IO_ERROR:
        return DiskFailed("the disk of the database server reports an error")
    if state[:2] == DAMAGED_CLASS:
        return Damaged(f"the database server reports damage: {reason(error)}")
    return StoreUnavailable(f"the database server refuses: {reason(error)}")


def reason(error: BaseException) -> str:
    """An error in plain words, as the end of a sentence, on one line."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return f"it refuses the user or the password ({_first_line(error)})"
        case asyncpg.InvalidCatalogNameError():
            return "it has no such database"
        case asyncpg.TooManyConnectionsError():
            return "it has no connections left (max_connections)"
        case asyncpg.InsufficientPrivilegeError():
            return f"the user lacks rights ({_first_line(error)})"
        case FileNotFoundError():  # without its name, from the module ssl
            return "a file that the URL names does not exist"
        case OSError(strerror=str(text)) if text:
            return text
    return _first_line(error) or type(error).__name__


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
