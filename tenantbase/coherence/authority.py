"""The authority on cached copies: every read asks it which copies are valid.

Keys fall into buckets. The *authority* gives each bucket a *tag*, which changes with every write to
the bucket, by any process. A copy carries the tag it was sealed under. A reader uses it only if it
fits the bucket's current tag.

There are two authorities. On one machine it is the tag file (``tag_file.py``): tags lie in shared
memory, reading them is immediate, and a copy fits if the tags are equal. In a database that several
machines share it is the read index (``read_index.py``): it asks the database which buckets have
changed, so its answer is awaited, together with memcached's, and a copy fits if its position is not
below that of the bucket's last change. That is why an answer has two forms, and why ``ItemSealer``
takes ``accepts``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

BUCKETS: Final = 65_536
"""How many buckets there are; see ``sealed_item.bucket_of``."""

Tag = tuple[bytes, int]
"""An epoch and a sequence. Under an epoch, a bucket's sequence never decreases."""

Tags = list[Tag | None]
"""The tag of each requested bucket, in order. None means that a write to the bucket is in flight,
so no copy is valid and none may be stored.
"""


class Answer(NamedTuple):
    """The answer of an authority that had to be asked.

    Attributes:
        tags: as of a moment after the question was sent.
        now: the authority's time then, in Unix seconds. It decides whether an entry has expired.
        question: the number of the question. Reads with the same one may share a load.
    """

    tags: Tags
    now: float
    question: int


class Authority(Protocol):
    """Knows the buckets' tags, and counts commits."""

    @property
    def parallel(self) -> int:
        """How many batches of reads may wait for tags at once; 1 if tags are immediate."""

    def tags(self, buckets: Sequence[int]) -> Tags | asyncio.Future[Answer]:
        """The buckets' tags as of a moment after this call.

        They reflect every write acknowledged before the call: a copy that fits its bucket's tag
        shows that write, or a later one. An immediate answer is a list, so cached reads take no
        extra turn of the event loop. Any other is awaited, while memcached is asked.

        Raises (the future does):
            StoreError: the authority does not answer.
        """

    def remembered(self, buckets: Sequence[int], max_age: float) -> Answer | None:
        """The tags as of a moment at most ``max_age`` seconds ago, without asking.

        None if none were confirmed since, or if tags are immediate anyway.
        """

    @property
    def commits(self) -> int:
        """Changes with every commit of any process, at the latest by the next ``poll``."""

    async def poll(self) -> None:
        """Bring ``commits`` up to date. Cheap: watchers call it all the time.

        Raises:
            StoreError: the authority does not answer.
        """

    def lost(self, version: int) -> bool:
        """Whether a change of this version was lost, by a failover that an operator forced."""

    async def drained(self) -> None:
        """Wait for questions in flight."""


class WriteTags(Protocol):
    """The tags that a transaction's buckets have once it has ended."""

    def tag(self, bucket: int) -> Tag:
        """The tag under which what the transaction wrote may be cached."""
