"""Sealed items, the contents of memcached: each holds one entry, or says that a key is absent.

memcached is not trusted. A sealed item names its key and the tag (epoch and sequence) it was made
under, and carries a MAC over all of it. Anything else that memcached answers with is rejected:
another key's item, an old one, damaged bytes, something that another program stored.

Layout, little-endian: MAC (16), magic (4), epoch (16), sequence (8), key's name (32), version
(8), expiry as a double (8; 0: none), length of the content type (2), id (36; all 0: no such
key), content type, value.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum
from hmac import compare_digest
from typing import Final

import msgspec

from tenantbase.coherence.authority import Tag
from tenantbase.entry import JSON, Entry
from tenantbase.interfaces.cache import Fetched
from tenantbase.lookup import DOCUMENT_BYTES, CacheStatus, Lookup
from tenantbase.scope import ScopedKey

_MAC_BYTES: Final = 16
_MAGIC: Final = b"TBF\x02"  # in version 1 keys were not scoped, so two keys could share a name
_HEADER: Final = struct.Struct("<4s16sQ32sQdH36s")
_BODY: Final = _MAC_BYTES + _HEADER.size  # where the content type begins
_unpack: Final = _HEADER.unpack_from
_unpack_origin: Final = struct.Struct("<4s16sQ32s").unpack_from  # its first fields
_SMALL_BYTES: Final = 2_048
_NO_ID: Final = bytes(36)

REMEMBERED_BYTES: Final = 64 << 20
"""About how much memory the remembered slots take with their entries: enough for 60,000 keys with values
of 100 bytes, or 6,000 with values of 10 KiB."""

_LARGEST_BYTES: Final = 64 << 10  # of a value that a slot remembers; few larger ones would fit
_SLOT_BYTES: Final = 900  # a slot with its entry, but without the value; approximate
# What a slot without an item counts as. That is more than it takes, so that slots of keys that are only
# written do not displace others: making one again takes 3 µs.
_UNREAD_BYTES: Final = 4 << 10

CACHED_BYTES: Final = 8 << 20
"""The largest value that is cached. A larger one would push thousands of others out of memcached.
The event loop copies it on the way there and back, which takes about 3 ms for each MiB, and a
memcached operation times out after 100 ms. SQLite reads it just as fast."""

OVERHEAD_BYTES: Final = _BODY + 512
"""An upper bound on what a sealed item, and memcached's own header, add to a value."""


class Verdict(Enum):
    """What ``ItemSealer.open`` returns for bytes that are not a valid copy."""

    REJECTED = 0


REJECTED: Final = Verdict.REJECTED


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """A valid item that was opened.

    Attributes:
        cas: memcached's CAS value of it.
        sealed_under: its tag.
        tag: the last tag of its bucket that it was valid under.
        lookup: the hit decoded from it.
        expires_at: when its entry expires, in Unix seconds; infinity: never.
    """

    cas: bytes
    sealed_under: Tag
    tag: Tag
    lookup: Lookup
    expires_at: float


class Slot:
    """A key's place in memcached, and its last valid item.

    Attributes:
        name: the key's name in memcached.
        bucket: the bucket whose tag the items are sealed under.
        remembered: the last valid item that was not too large.
        held: the bytes it counts as; 0 if the slot itself is no longer remembered.
    """

    __slots__ = ("key", "name", "bucket", "remembered", "held")

    def __init__(self, key: ScopedKey, name: bytes, bucket: int) -> None:
        self.key = key
        self.name = name
        self.bucket = bucket
        self.remembered: Remembered | None = None
        self.held = 0


class _Slots(OrderedDict[str, Slot]):
    """The slots of recently requested keys, each made on first use; the oldest are dropped.

    An ordered dict, because a plain one must skip the holes of all removed keys to find its first.
    """

    def __init__(self, locate: Callable[[str], Slot]) -> None:
        super().__init__()
        self._locate = locate
        self._held = 0
        self._changing = threading.Lock()

    def __missing__(self, key: str) -> Slot:
        slot = self._locate(key)
        with self._changing:  # both the event loop and the writing thread look slots up
            known = self.setdefault(key, slot)
            if known is slot:
                self._count(slot, _UNREAD_BYTES)
        return known

    def remember(self, slot: Slot, remembered: Remembered) -> None:
        """Remember a valid item in its slot, unless it is too large. For the event loop only."""
        entry = remembered.lookup.entry
        size = 0 if entry is None else len(entry.value)
        if size > _LARGEST_BYTES:
            slot.remembered = None  # or memcached would always be asked about the older item first
            return
        slot.remembered = remembered
        with self._changing:
            if slot.held:
                self._count(slot, _SLOT_BYTES + size * (2 if size <= DOCUMENT_BYTES else 1))

    def _count(self, slot: Slot, held: int) -> None:
        self._held += held - slot.held
        slot.held = held
        while self._held > REMEMBERED_BYTES:
            _, oldest = self.popitem(last=False)
            self._held -= oldest.held
            oldest.held = 0


def _never(sealed: Tag, current: Tag) -> bool:
    return False


class ItemSealer:
    """Names keys in memcached, seals entries and opens sealed items.

    Args:
        secret: 32 random bytes shared by all processes on one database, and with nothing else.
        accepts: whether a copy sealed under the first tag is valid while its bucket has the second.
            Called only for different tags; equal ones are always accepted.
    """

    def __init__(self, secret: bytes, accepts: Callable[[Tag, Tag], bool] = _never) -> None:
        # A keyed hash state is copied for each use, at half the cost of making a new one.
        self._name = hashlib.blake2b(key=secret, digest_size=16, person=b"tenantbase key")
        self._mac = hashlib.blake2b(key=secret, digest_size=_MAC_BYTES, person=b"tenantbase mac")
        self._accepts = accepts
        slots = _Slots(self._locate)
        self._remember = slots.remember
        self.slot: Callable[[str], Slot] = slots.__getitem__
        """The key's slot, remembered or new."""

    def name(self, key: str) -> bytes:
        """The key's name in memcached: a keyed hash, 32 hexadecimal digits. No byte of a key that
        a user chose ever reaches memcached's protocol."""
        state = self._name.copy()
        state.update(key.encode())
        return state.hexdigest().encode()

    def bucket(self, key: str) -> int:
        """The key's bucket, for when its slot need not be remembered."""
        return bucket_of(self.name(key))

    def _locate(self, key: str) -> Slot:
        name = self.name(key)
        return Slot(ScopedKey(key), name, bucket_of(name))

    def seal(self, name: bytes, tag: Tag, entry: Entry | None) -> bytes:
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
            if len(entry.value) > _SMALL_BYTES:
                return self._seal_large(header, content_type, entry.value)
            body = b"".join((header, content_type, entry.value))
        state = self._mac.copy()
        state.update(body)
        return state.digest() + body

    def _seal_large(self, *parts: bytes) -> bytes:
        # The value is copied once, and hashed without holding Python's lock.
        state = self._mac.copy()
        for part in parts:
            state.update(part)
        return b"".join((state.digest(), *parts))

    def open(self, item: Fetched, slot: Slot, tag: Tag) -> Lookup | Verdict:
        """Open the item that memcached returned for a slot whose bucket has this tag now.

        If it is valid and not too large, its slot remembers it.

        Returns: a hit, without an entry if the item says that the key is absent; or REJECTED. The
            entry may have expired.
        """
        lookup = self.unseal(item.data, slot, tag)
        if lookup is not REJECTED:
            self.remember(slot, item, tag, lookup)
        return lookup

    def reopen(self, slot: Slot, remembered: Remembered, tag: Tag) -> Lookup | Verdict:
        """What ``open`` returns for an item that a slot has remembered."""
        if remembered.tag == tag:
            return remembered.lookup
        if not self._accepts(remembered.sealed_under, tag):
            return REJECTED
        if slot.remembered is remembered:  # its bytes are counted already
            slot.remembered = msgspec.structs.replace(remembered, tag=tag)
        return remembered.lookup

    def remember(self, slot: Slot, item: Fetched, tag: Tag, lookup: Lookup) -> None:
        """Remember an item that ``unseal`` has found valid. For the event loop only."""
        _, epoch, sequence, _ = _unpack_origin(item.data, _MAC_BYTES)
        sealed_under = epoch, sequence
        entry = lookup.entry
        expires_at = None if entry is None else entry.expires_at
        self._remember(
            slot,
            Remembered(
                item.cas,
                tag if sealed_under == tag else sealed_under,  # nearly always one object
                tag,
                lookup,
                math.inf if expires_at is None else expires_at,
            ),
        )

    def unseal(self, data: bytes, slot: Slot, tag: Tag) -> Lookup | Verdict:
        """Like ``open``, but without remembering anything. For any thread."""
        if len(data) < _BODY:
            return REJECTED
        magic, epoch, sequence, owner = _unpack_origin(data, _MAC_BYTES)
        if owner != slot.name or magic != _MAGIC:
            return REJECTED
        if (sequence != tag[1] or epoch != tag[0]) and not self._accepts((epoch, sequence), tag):
            return REJECTED
        state = self._mac.copy()
        # Copying a small one is faster than making a view.
        state.update(
            data[_MAC_BYTES:] if len(data) < _SMALL_BYTES else memoryview(data)[_MAC_BYTES:]
        )
        if not compare_digest(state.digest(), data[:_MAC_BYTES]):
            return REJECTED
        return self._decoded(data, slot.key)

    def unseal_many(
        self, items: Iterable[tuple[Slot, bytes, Tag]]
    ) -> dict[bytes, Lookup | Verdict]:
        """The result of ``unseal`` for each, by the slot's name. For any thread."""
        return {slot.name: self.unseal(data, slot, tag) for slot, data, tag in items}

    @staticmethod
    def _decoded(data: bytes, key: ScopedKey) -> Lookup:
        """Decode a valid item."""
        _, _, _, _, version, expires_at, length, id_ = _unpack(data, _MAC_BYTES)
        if id_ == _NO_ID:
            return Lookup(None, CacheStatus.HIT)
        end = _BODY + length
        content_type = data[_BODY:end].decode()
        if content_type == JSON:
            content_type = JSON  # one object for all
        entry = Entry(key, data[end:], content_type, id_.decode(), version, expires_at or None)
        return Lookup(entry, CacheStatus.HIT)


HASH_BUCKET_SHIFT: Final = 16
"""How far to shift a name's hash to the right to get its bucket."""


def hash_of(name: bytes) -> int:
    """The first 32 bits of a key's name in memcached."""
    return int(name[:8], 16)


def bucket_of(name: bytes) -> int:
    """The bucket of the key of this name, one of ``authority.BUCKETS``: its first 16 bits."""
    return int(name[:4], 16)
