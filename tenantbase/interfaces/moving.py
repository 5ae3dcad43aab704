"""The Protocols of a database that is moved: what ``process/moving.py`` needs of the old and the new one.

Both show the rows as they are stored: with their versions and ids, and expired entries, too, until they
are swept. Rows under deleted prefixes do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from hashlib import blake2b
from typing import NamedTuple, Protocol

from tenantbase.access import Access
from tenantbase.events import ChangeEvent

PAGE_ROWS = 500
PAGE_BYTES = 4 << 20
"""A page of rows ends with the first that reaches this many bytes of values."""


TENANT_COLUMNS = "name, entries, bytes, max_entries, max_bytes, max_requests_per_second"
TOKEN_COLUMNS = "digest, id, name, scope, tenant, prefix, created_at, expires_at"
_IDENTITY_BYTES = 16


class Row(NamedTuple):
    """An entry as it is stored.

    Attributes:
        key: scoped.
        created: the version that made it.
        expires_at: Unix seconds, or None.
    """

    key: str
    created: int
    version: int
    expires_at: float | None
    id: str
    content_type: str
    value: bytes


class Progress(NamedTuple):
    """How far a move has come. It is kept in the target, and changes together with the rows.

    Attributes:
        source: identifies the database that is moved.
        copied: the last key that was copied; None: all were.
        version: changes up to this one were followed.
    """

    source: bytes
    copied: str | None
    version: int


class Rows(Protocol):
    """The rows of a database."""

    async def rows(self, after: str, among: Sequence[str] | None = None) -> list[Row]:
        """The next rows after a key, in order of keys: at least one, unless there are no more.

        Args:
            among: only these keys.
        """


class Source(Rows, Protocol):
    """The old database. It may be written to, except while it is *quiet*."""

    @property
    def identity(self) -> bytes:
        """Bytes that no other database has."""

    def quiet(self) -> AbstractAsyncContextManager[None]:
        """Nothing writes to it in the block, and all that is read in it is there to stay.

        Raises:
            InUse: it has other users.
        """

    async def last_version(self) -> int:
        """The newest version given out."""

    async def changes(self, after: int, limit: int) -> tuple[list[ChangeEvent], bool]:
        """The change log after a version; see ``Store.changes``."""

    async def last_change(self) -> ChangeEvent | None:
        """The last line of the change log."""

    async def access(self) -> Access:
        """Tenants and tokens."""


class Target(Rows, Protocol):
    """The new database. It is hidden from servers until ``finish``."""

    async def progress(self) -> Progress | None:
        """How far the move has come; None: it has yet to begin."""

    async def begin(self, progress: Progress) -> None:
        """Begin, or begin again, with an empty database."""

    async def put(self, rows: Sequence[Row], gone: Sequence[str], progress: Progress) -> None:
        """Put rows in the place of those with their keys, and remove the keys that are gone."""

    async def hide(self, prefix: str, version: int) -> None:
        """Remove the rows under a scoped prefix that were created up to a version."""

    async def finish(self, access: Access, last: ChangeEvent, version: int) -> None:
        """Add what is not rows, make all of it durable, and show it to servers.

        Args:
            last: the last line of the change log.
            version: the last that counts as given out.
        """


def identity_of(secret: bytes) -> bytes:
    """The identity of the database with this secret, which it does not reveal."""
    return blake2b(secret, digest_size=_IDENTITY_BYTES, person=b"moved").digest()


def tenant_rows(access: Access) -> list[tuple[object, ...]]:
    """The tenants' ``TENANT_COLUMNS``."""
    return [
        (
            tenant.name,
            tenant.entries,
            tenant.bytes,
            tenant.limits.max_entries,
            tenant.limits.max_bytes,
            tenant.limits.max_requests_per_second,
        )
        for tenant in access.tenants.values()
    ]


def token_rows(access: Access) -> list[tuple[object, ...]]:
    """The tokens' ``TOKEN_COLUMNS``, in order of creation."""
    return [
        (
            digest,
            token.id,
            token.name,
            str(token.scope),
            token.tenant,
            token.prefix,
            token.created_at,
            token.expires_at,
        )
        for digest, token in access.tokens.items()
    ]
