"""What lies in memcached: one entry, or the news that there is none, sealed.

memcached is not trusted. A frame names the key it belongs to and the tag (epoch and sequence)
it was made under, and carries a MAC over all of it. Whatever else memcached answers with,
another key's frame, an old one, damaged bytes, a stranger's, is rejected.

Layout, little-endian: MAC (16), magic (4), epoch (16), sequence (8), key's name (32), version
(8), expiry as a double (8; 0: none), length of the content type (2), id (36; all 0: no such
key), content type, value.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum
from hmac import compare_digest
from typing import Final

from tenantbase.entry import JSON, Entry
from tenantbase.coherence.tag_file import Tag

_MAC: Final = 16
_MAGIC: Final = b"TBF\x02"  # 1: keys were not scoped, so two keys could have one name
_HEADER: Final = struct.Struct("<4s16sQ32sQdH36s")
_BODY: Final = _MAC + _HEADER.size
_unpack: Final = _HEADER.unpack_from
_SMALL: Final = 2_048
_NO_ID: Final = bytes(36)

REMEMBERED_BYTES: Final = 1_024
"""How large a frame is that is remembered, at most."""

REMEMBERED_SLOTS: Final = 8_192
"""How many keys are remembered; they take 7 MiB with values of 100 bytes, 30 MiB at most."""

CACHED_BYTES: Final = 8 << 20
"""The largest value that is cached. It would take memcached's memory from thousands of others, and
on the way there and back it is copied by the event loop, some 3 ms for each MiB in all; the
deadline of memcached is 100 ms. SQLite reads it as fast."""

OVERHEAD: Final = _BODY + 512
"""An upper bound, in bytes, of what a frame and a memcached item add to a value."""


class Verdict(Enum):
    """What ``decode`` says of bytes that are no frame of this key under this tag."""

    REJECTED = 0


REJECTED: Final = Verdict.REJECTED


class Slot:
    """Where a key's frames belong.

    Attributes:
        name: the key's name in memcached.
        bucket: its bucket in the tag file.
        frame, tag, entry: a frame that was found here, what it was made under, and what is in it.
    """

    __slots__ = ("key", "name", "bucket", "frame", "tag", "entry")

    def __init__(self, key: str, name: bytes, bucket: int) -> None:
        self.key = key
        self.name = name
        self.bucket = bucket
        self.frame: bytes | None = None
        self.tag: Tag | None = None
        self.entry: Entry | None = None


class _Slots(OrderedDict[str, Slot]):
    """The slots of as many keys as are remembered, each made when it is first asked for.

    Ordered: the first key of a plain dict is found by walking over the holes of those that were
    removed before it.
    """

    def __init__(self, locate: Callable[[str], Slot]) -> None:
        super().__init__()
        self._locate = locate
        self._changing = threading.Lock()

    def __missing__(self, key: str) -> Slot:
        slot = self._locate(key)
        with self._changing:  # the event loop and the writing thread both ask
            if len(self) >= REMEMBERED_SLOTS:
                self.popitem(last=False)  # the oldest
            return self.setdefault(key, slot)


class ItemSealer:
    """Names keys in memcached, and makes and opens frames.

    Args:
        secret: 32 random bytes shared by all processes on one database, and by nobody else.
    """

    def __init__(self, secret: bytes) -> None:
        # Keyed states are copied for each use: half the cost of keying anew.
        self._name = hashlib.blake2b(key=secret, digest_size=16, person=b"tenantbase key")
        self._mac = hashlib.blake2b(key=secret, digest_size=_MAC, person=b"tenantbase mac")
        self.slot: Callable[[str], Slot] = _Slots(self._locate).__getitem__
        """The key's slot. Those of many keys are remembered."""

    def name(self, key: str) -> bytes:
        """The key's name in memcached: a keyed hash, 32 hexadecimal digits. No byte of a key
        that a user chose ever reaches memcached's protocol."""
        state = self._name.copy()
        state.update(key.encode())
        return state.hexdigest().encode()

    def _locate(self, key: str) -> Slot:
        name = self.name(key)
        return Slot(key, name, bucket_of(name))

    def encode(self, name: bytes, tag: Tag, entry: Entry | None) -> bytes:
        """Seal an entry, or its absence, for the key of this name under this tag."""
        epoch, sequence = tag
        if entry is None:
            body = _HEADER.pack(_MAGIC, epoch, sequence, name, 0, 0.0, 0, _NO_ID)
        else:
            content_type = entry.content_type.encode()
            header = _HEADER.pack(
                _MAGIC,
                epoch,
                sequence,
                name,
                entry.version,
                entry.expires_at or 0.0,
                len(content_type),
                entry.id.encode(),
            )
            if len(entry.value) > _SMALL:
                return self._seal_large(header, content_type, entry.value)
            body = b"".join((header, content_type, entry.value))
        state = self._mac.copy()
        state.update(body)
        return state.digest() + body

    def _seal_large(self, *parts: bytes) -> bytes:
        # Copied once, and Python's lock is not held while the value is hashed.
        state = self._mac.copy()
        for part in parts:
            state.update(part)
        return b"".join((state.digest(), *parts))

    def decode(self, data: bytes, slot: Slot, tag: Tag) -> Entry | None | Verdict:
        """Open a frame.

        The last small one of each slot is remembered as it was found sound. When memcached
        answers with the very same bytes, what is left to compare is the tag. Frames of more than
        ``REMEMBERED_BYTES`` may be opened in any thread.

        Returns:
            The entry, None if the frame says that there is none, or REJECTED.
        """
        if data == slot.frame and tag == slot.tag:
            return slot.entry
        entry = self._open(data, slot.key, slot.name, tag)
        if entry is not REJECTED and len(data) <= REMEMBERED_BYTES:
            slot.frame, slot.tag, slot.entry = data, tag, entry
        return entry

    def decode_many(
        self, frames: Iterable[tuple[Slot, bytes, Tag]]
    ) -> dict[bytes, Entry | None | Verdict]:
        """What ``decode`` says of each, by the slot's name."""
        return {slot.name: self.decode(data, slot, tag) for slot, data, tag in frames}

    def _open(self, data: bytes, key: str, name: bytes, tag: Tag) -> Entry | None | Verdict:
        if len(data) < _BODY:
            return REJECTED
        magic, epoch, sequence, owner, version, expires_at, length, id_ = _unpack(data, _MAC)
        if sequence != tag[1] or epoch != tag[0] or owner != name or magic != _MAGIC:
            return REJECTED
        state = self._mac.copy()
        # Copied if it is small: that takes less time than to have a view of it.
        state.update(data[_MAC:] if len(data) < _SMALL else memoryview(data)[_MAC:])
        if not compare_digest(state.digest(), data[:_MAC]):
            return REJECTED
        if id_ == _NO_ID:
            return None
        end = _BODY + length
        content_type = data[_BODY:end].decode()
        if content_type == JSON:
            content_type = JSON  # one object for all
        return Entry(key, data[end:], content_type, id_.decode(), version, expires_at or None)


def bucket_of(name: bytes) -> int:
    """The bucket of the key of this name: its first 16 bits, one of ``tags.BUCKETS``."""
    return int(name[:4], 16)
