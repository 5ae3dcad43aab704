"""The authority on cached copies: every read asks it which copies are valid.

Keys fall into buckets. The *authority* gives each bucket a *tag*, which changes with every write to
the bucket, by any process. A copy is sealed under the tag that its bucket had before the store was
read or, if a write stored it, under the tag of that write. A reader uses it only if it fits the
bucket's current tag.

On one machine the authority is the tag file: tags lie in shared memory, reading them is immediate,
and a copy fits if the tags are equal. In a database shared by several machines the tags would have to
be queried, so the answer would be awaited, together with memcached's, and a copy would fit if its
position is not below that of the bucket's last change. That is why an answer has two forms, and why
``ItemSealer`` takes ``accepts``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final, Protocol

BUCKETS: Final = 65_536
"""How many buckets there are; see ``sealed_item.bucket_of``."""

Tag = tuple[bytes, int]
"""An epoch and a sequence. Under an epoch, a bucket's sequence never decreases."""

Tags = list[Tag | None]
"""The tag of each requested bucket, in order. None means that a write to the bucket is in flight,
so no copy is valid and none may be stored.
"""


class Authority(Protocol):
    """Knows the buckets' tags, and counts commits."""

    def tags(self, buckets: Sequence[int]) -> Tags | Awaitable[Tags]:
        """The buckets' tags as of a moment after this call.

        They reflect every write acknowledged before the call: a copy that fits its bucket's tag
        shows that write, or a later one. An immediate answer is a list, so cached reads take no
        extra turn of the event loop. Any other is awaited, while memcached is asked.

        Raises (the call, or the awaitable):
            StoreError: the authority does not answer.
        """

    @property
    def commits(self) -> int:
        """Changes with every commit of any process. Cheap: watchers poll it."""


class WriteTags(Protocol):
    """The tags that a transaction's buckets have once it has ended."""

    def tag(self, bucket: int) -> Tag:
        """The tag under which what the transaction wrote may be cached."""
