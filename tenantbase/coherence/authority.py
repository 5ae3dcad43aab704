"""Which cached copies are valid: the question that every read asks before it believes memcached.

Keys fall into buckets. The *authority* gives each bucket a *tag*, which changes with every write
to the bucket, in whatever process. A copy is sealed under the tag that its bucket had before the
store was read, or that the write which made it was given; a reader believes it only if it fits
the tag that the bucket has now.

On one machine the authority is the tag file: tags lie in shared memory, a look at them is
immediate, and a copy fits if the tags are equal. With a database shared by several machines the
tags have to be asked for, so the answer is awaited, beside memcached's; a copy fits if its
position is at or above that of the bucket's last change. Hence the two forms of an answer, and
``ItemSealer``'s ``accepts``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

BUCKETS: Final = 65_536
"""How many buckets there are; see ``sealed_item.bucket_of``."""

Tag = tuple[bytes, int]
"""An epoch and a sequence. Under an epoch, a bucket's sequence never decreases."""

Tags = list[Tag | None]
"""The tag of each bucket that was asked for, in order.

None: a write to the bucket is in flight, so no copy is valid and none may be stored.
"""


class Authority(Protocol):
    """Gives out tags, and tells when to look for changes."""

    def tags(self, buckets: Sequence[int]) -> Tags | Awaitable[Tags]:
        """The buckets' tags as of a moment after this call.

        No write acknowledged before the call is missing: a copy that fits its bucket's tag shows
        it, or a later one. The answer is a list where it costs nothing; cached reads then take no
        extra turn of the event loop. Otherwise it is awaited, while memcached is asked.

        Raises (the call, or the awaitable):
            StoreError: the authority cannot be asked.
        """

    @property
    def commits(self) -> int:
        """Changes with every commit of any process. Cheap: watchers poll it."""


class WriteTags(Protocol):
    """The tags that a transaction's buckets have when it has ended."""

    def tag(self, bucket: int) -> Tag:
        """The tag under which what the transaction wrote may be cached."""
