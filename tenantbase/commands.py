"""What the database can be asked to do, and what it did.

A *transaction* is a sequence of commands: all are carried out, or none. Their keys and prefixes are
scoped (``scope.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tenantbase.access import Token
from tenantbase.entry import Entry


class Condition(msgspec.Struct, frozen=True, gc=False):
    """A condition on a key. The command is carried out only if every attribute that is given holds.

    Attributes:
        absent: the key does not exist (``if_absent``, ``If-None-Match: *``).
        exists: the key exists (``If-Match: *``).
        versions: the entry's version is one of these (``if_version``, ``If-Match: "7"``).
        not_versions: the entry is absent or its version is none of these
            (``If-None-Match: "7"``).
    """

    absent: bool = False
    exists: bool = False
    versions: frozenset[int] | None = None
    not_versions: frozenset[int] | None = None

    def holds(self, version: int | None) -> bool:
        """Whether the condition holds for an entry of this version, or for an absent one (None)."""
        if self.absent and version is not None:
            return False
        if self.exists and version is None:
            return False
        if self.versions is not None and version not in self.versions:
            return False
        return self.not_versions is None or version not in self.not_versions


class Set(msgspec.Struct, frozen=True, gc=False):
    """Store a value. A new key gets a new id; an existing one keeps its id.

    ``keep_expiry``: an existing entry keeps its expiry, and ``expires_at`` is None.
    """

    key: str
    value: bytes
    content_type: str
    expires_at: float | None = None
    condition: Condition | None = None
    keep_expiry: bool = False


MAX_RETURNED_BYTES: Final = 8 << 20
"""The most bytes of deleted values that one transaction may return."""


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Remove a key. Removing an absent one changes nothing.

    ``returned``: the result has the entry that was removed. A transaction that would return more than
    ``MAX_RETURNED_BYTES`` of values fails with TooLarge.
    """

    key: str
    condition: Condition | None = None
    returned: bool = False


class Increment(msgspec.Struct, frozen=True, gc=False):
    """Add ``by`` to the JSON integer stored at ``key``; an absent key counts as ``initial``.

    ``expires_at`` None keeps an existing counter's expiry.
    """

    key: str
    by: int
    initial: int
    expires_at: float | None = None
    condition: Condition | None = None


class Touch(msgspec.Struct, frozen=True, gc=False):
    """Change the expiry of an entry, and nothing else. It must exist."""

    key: str
    expires_at: float | None
    condition: Condition | None = None


class Rename(msgspec.Struct, frozen=True, gc=False):
    """Move an entry, with its media type and expiry, to another key of the same tenant.

    ``copy``: the entry also stays at ``key``. ``replace``: an entry at ``to`` is replaced, and its id
    kept; otherwise ``to`` must be free. The condition is on ``key``, whose entry must exist.
    """

    key: str
    to: str
    copy: bool = False
    replace: bool = False
    condition: Condition | None = None


class DeletePrefix(msgspec.Struct, frozen=True, gc=False):
    """Remove every key that begins with ``prefix`` (literal text; empty: all keys)."""

    prefix: str


class Sweep(msgspec.Struct, frozen=True, gc=False):
    """Remove at most ``limit`` rows that have expired or whose prefix was deleted.

    Also removes tokens that expired more than a week ago, which do not count.
    """

    limit: int


class PutTenant(msgspec.Struct, frozen=True, gc=False):
    """Create a tenant, or change its limits. UNSET keeps a limit; in a new tenant it is None."""

    name: str
    max_entries: int | None | msgspec.UnsetType = msgspec.UNSET
    max_bytes: int | None | msgspec.UnsetType = msgspec.UNSET
    max_requests_per_second: int | None | msgspec.UnsetType = msgspec.UNSET


class DeleteTenant(msgspec.Struct, frozen=True, gc=False):
    """Remove a tenant, its entries and its tokens. Removing an absent one changes nothing."""

    name: str


class CreateToken(msgspec.Struct, frozen=True, gc=False):
    """Store a token, and close the database if it is open. Its tenant must exist.

    ``digest`` is the SHA-256 of the secret.
    """

    token: Token
    digest: bytes


class RevokeToken(msgspec.Struct, frozen=True, gc=False):
    """Remove a token by its id. Removing an absent one changes nothing."""

    id: str


class DisableTokens(msgspec.Struct, frozen=True, gc=False):
    """Remove all tokens and open the database to everyone."""


KeyCommand = Set | Delete | Increment
"""Commands that name their key."""

InPlaceCommand = Touch | Rename
"""Commands that leave the value in the database. Each is a transaction of its own."""

AdminCommand = PutTenant | DeleteTenant | CreateToken | RevokeToken | DisableTokens
"""Commands that are each a transaction of their own."""

Removal = Delete | DeletePrefix | Sweep | DeleteTenant | RevokeToken
"""Those that only remove. They are carried out on a full disk, too."""

Command = KeyCommand | InPlaceCommand | DeletePrefix | Sweep | AdminCommand
Transaction = Sequence[Command]


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The result of one command.

    Attributes:
        entry: the entry as it is now, or None if there is none. After a Touch or a Rename (to the
            new key), its value is left out, and empty.
        created: whether the key, the tenant or the token is new.
        removed: the number of removed entries (of rows for a Sweep; of tenants or tokens for
            theirs).
        before: for a Delete that returns it, the entry that was removed.
        expired: for a Sweep, how many of them were expired entries.
    """

    entry: Entry | None = None
    created: bool = False
    removed: int = 0
    expired: int = 0
    before: Entry | None = None
