"""Sealed items: what was sealed can be opened, and nothing else is accepted."""

from __future__ import annotations

import hashlib
import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantbase.coherence import sealed_item
from tenantbase.coherence.authority import BUCKETS, Tag
from tenantbase.coherence.sealed_item import (
    OVERHEAD_BYTES,
    REJECTED,
    ItemSealer,
    Remembered,
    Slot,
    bucket_of,
)
from tenantbase.entry import JSON, MAX_KEY_BYTES, Entry
from tenantbase.interfaces.cache import Fetched
from tenantbase.lookup import Lookup
from tenantbase.scope import ScopedKey

SECRET = bytes(range(32))
SEALER = ItemSealer(SECRET)
TAG: Tag = (b"e" * 16, 4)
ID = str(uuid.UUID(int=1))
CAS = b"12"

keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
entries = st.builds(
    Entry,
    key=keys,
    value=st.binary(),
    content_type=st.sampled_from([JSON, "text/plain; charset=utf-8", "", "x/é"]),
    id=st.uuids().map(str),
    version=st.integers(1, 2**63 - 1),
    expires_at=st.none() | st.floats(1, 2.5e11),
)


def sealed(entry: Entry | None, key: str, tag: Tag = TAG) -> bytes:
    return SEALER.seal(SEALER.name(key), tag, entry)


def opened(data: bytes, key: str, tag: Tag = TAG, sealer: ItemSealer = SEALER) -> object:
    found = sealer.open(Fetched(data, CAS), sealer.slot(key), tag)
    return found.entry if isinstance(found, Lookup) else found


def remembered(key: str, sealer: ItemSealer = SEALER) -> Remembered:
    """What the key's slot remembers."""
    found = sealer.slot(key).remembered
    assert found is not None
    return found


def reopened(key: str, tag: Tag = TAG, sealer: ItemSealer = SEALER) -> object:
    """What is opened if memcached says that it still has the item that the key's slot remembers."""
    found = sealer.reopen(sealer.slot(key), remembered(key, sealer), tag)
    return found.entry if isinstance(found, Lookup) else found


@given(entries)
def test_an_entry_survives_sealing(entry: Entry) -> None:
    assert opened(sealed(entry, entry.key), entry.key) == entry


@given(keys)
def test_an_absence_survives_sealing(key: str) -> None:
    assert opened(sealed(None, key), key) is None


@given(st.none() | entries, st.data())
def test_any_byte_changed_is_rejected(entry: Entry | None, data: st.DataObject) -> None:
    item = bytearray(sealed(entry, "k"))
    at = data.draw(st.integers(0, len(item) - 1))
    item[at] ^= data.draw(st.integers(1, 255))
    assert opened(bytes(item), "k") is REJECTED


@pytest.mark.parametrize("size", [1_500, 2_047, 2_048, 5_000, 100_000])
def test_every_part_of_a_large_value_is_covered(size: int) -> None:
    item = bytearray(sealed(Entry(ScopedKey("k"), bytes(size), JSON, ID, 1, None), "k"))
    assert opened(bytes(item), "k") is not REJECTED
    # Each page, and the last byte.
    for at in {*range(0, len(item), 512), len(item) - 1}:
        item[at] ^= 1
        assert opened(bytes(item), "k") is REJECTED, at
        item[at] ^= 1


@given(entries, st.data())
def test_truncated_and_extended_items_are_rejected(entry: Entry, data: st.DataObject) -> None:
    item = sealed(entry, "k")
    cut = data.draw(st.integers(0, len(item) - 1))
    assert opened(item[:cut], "k") is REJECTED
    assert opened(item + data.draw(st.binary(min_size=1)), "k") is REJECTED


@given(st.none() | entries, keys, keys)
def test_another_keys_item_is_rejected(entry: Entry | None, key: str, other: str) -> None:
    if key != other:
        assert opened(sealed(entry, key), other) is REJECTED


@pytest.mark.parametrize("tag", [(b"e" * 16, 2), (b"e" * 16, 6), (b"f" * 16, 4)])
def test_another_tags_item_is_rejected(tag: Tag) -> None:
    assert opened(sealed(None, "k", tag), "k") is REJECTED


@given(st.none() | entries, st.data())
def test_a_remembered_item_counts_only_for_the_same_bytes(
    entry: Entry | None, data: st.DataObject
) -> None:
    item = sealed(entry, "k")
    first = opened(item, "k")
    changed = bytearray(item)
    changed[data.draw(st.integers(0, len(item) - 1))] ^= data.draw(st.integers(1, 255))
    assert opened(bytes(changed), "k") is REJECTED
    assert opened(item, "other") is REJECTED
    assert reopened("k") == first, "and nothing took its slot"
    assert opened(bytes(bytearray(item)), "k") == first


def test_a_remembered_item_counts_only_under_its_tag() -> None:
    epoch, sequence = TAG
    old, new = (sealed(None, "k", (epoch, number)) for number in (sequence, sequence + 2))
    for _ in range(2):
        assert opened(old, "k") is None
        assert opened(old, "k", (epoch, sequence + 2)) is REJECTED
        assert opened(old, "k", (b"f" * 16, sequence)) is REJECTED
        assert opened(new, "k", (epoch, sequence + 2)) is None


@given(st.none() | entries)
def test_reopening_is_opening_the_same_item_once_more(entry: Entry | None) -> None:
    epoch, sequence = TAG
    other_tags = [(epoch, sequence - 2), (epoch, sequence + 2), (b"f" * 16, sequence)]
    key = "k" if entry is None else entry.key
    item = sealed(entry, key)
    first = SEALER.open(Fetched(item, CAS), SEALER.slot(key), TAG)
    last = remembered(key)
    assert (last.cas, last.sealed_under, last.tag) == (CAS, TAG, TAG)
    assert last.lookup is first, "so its document is remembered with it"
    expires_at = None if entry is None else entry.expires_at
    assert last.expires_at == (math.inf if expires_at is None else expires_at)
    for _ in range(2):
        assert reopened(key) == entry
        for tag in other_tags:
            assert reopened(key, tag) is REJECTED is opened(item, key, tag)
    assert remembered(key) is last


def test_what_is_remembered_last_counts() -> None:
    epoch, sequence = TAG
    sealer = ItemSealer(SECRET)
    slot, later = sealer.slot("k"), (epoch, sequence + 2)
    old = Entry(slot.key, b"old", JSON, ID, 1, None)
    new = Entry(slot.key, b"new", JSON, ID, 2, None)
    assert opened(sealed(old, "k"), "k", TAG, sealer) == old
    before = remembered("k", sealer)
    assert sealer.open(Fetched(sealed(new, "k", later), b"13"), slot, later) is not REJECTED
    assert remembered("k", sealer).cas == b"13"
    assert reopened("k", later, sealer) == new
    # A batch that has asked memcached meanwhile knows the one before.
    assert sealer.reopen(slot, before, later) is REJECTED
    found = sealer.reopen(slot, before, TAG)
    assert isinstance(found, Lookup) and found.entry == old
    assert remembered("k", sealer).lookup.entry == new


def held(size: int) -> int:
    """What a slot counts as that remembers a value of this size: a small one twice, with its document."""
    return 900 + size * (2 if size <= 1_024 else 1)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> int:
    """Limits the memory to 404 KiB. Returns how many slots without items fit."""
    monkeypatch.setattr(sealed_item, "REMEMBERED_BYTES", 101 * 4_096 - 1)
    return 100


def store(sealer: ItemSealer, slot: Slot, size: int) -> Lookup:
    """Open an item with a value of this size."""
    item = sealer.seal(slot.name, TAG, Entry(slot.key, bytes(size), JSON, ID, 1, None))
    found = sealer.open(Fetched(item, CAS), slot, TAG)
    assert isinstance(found, Lookup) and found.entry is not None and len(found.entry.value) == size
    return found


def test_the_oldest_slots_are_forgotten_first(room: int) -> None:
    sealer = ItemSealer(SECRET)
    first, *others = [sealer.slot(f"{number}") for number in range(room)]
    assert sealer.slot("0") is first and first.held
    sealer.slot("one more")
    assert not first.held and all(slot.held for slot in others)
    again = sealer.slot("0")
    assert again is not first and again.name == first.name


@pytest.mark.parametrize("size", [0, 10, 1_024, 1_025, 50_000])
def test_more_small_items_are_remembered_than_large_ones(room: int, size: int) -> None:
    sealer = ItemSealer(SECRET)
    for _ in range(2):  # once remembered, an item takes no more room
        slots = []
        for number in range(1_000):
            slots.append(sealer.slot(f"{number}"))
            store(sealer, slots[-1], size)
        cost = held(size)
        kept = [slot.held > 0 for slot in slots].count(True)
        # Each slot had to find room before it had an item.
        most = sealed_item.REMEMBERED_BYTES // cost
        assert most - 4_096 // cost - 1 <= kept <= most
        assert all(slot.held == cost for slot in slots[-kept:])


def test_an_absence_counts_as_an_empty_value() -> None:
    sealer = ItemSealer(SECRET)
    assert opened(sealed(None, "k"), "k", TAG, sealer) is None
    assert sealer.slot("k").held == held(0)


def test_a_slot_counts_as_its_last_item() -> None:
    sealer = ItemSealer(SECRET)
    slot = sealer.slot("k")
    for size in (10, 50_000, 1_000, 0):
        store(sealer, slot, size)
        assert slot.held == held(size)
    opened(sealed(None, "k"), "k", TAG, sealer)
    assert slot.held == held(0)


def test_another_accepted_tag_takes_no_room(room: int) -> None:
    """An accepted tag takes the place of the last one: the entry remains the same object."""
    sealer = ItemSealer(SECRET, lambda sealed_under, current: True)
    slots = [sealer.slot(f"{number}") for number in range(room)]
    for slot in slots:
        store(sealer, slot, 1_000)
    before = [slot.held for slot in slots]
    for sequence in range(10):
        for slot in slots:
            assert slot.remembered is not None
            sealer.reopen(slot, slot.remembered, (TAG[0], TAG[1] + sequence))
    assert [slot.held for slot in slots] == before == [held(1_000)] * room


def test_an_item_of_a_forgotten_slot_takes_no_room(room: int) -> None:
    sealer = ItemSealer(SECRET)
    forgotten = sealer.slot("forgotten")
    slots = [sealer.slot(f"{number}") for number in range(room)]
    store(sealer, forgotten, 50_000)
    assert all(slot.held for slot in slots)


@pytest.mark.parametrize("size", [10, 10_000, 65_536, 65_537, 100_000])
def test_very_large_items_are_not_remembered(size: int) -> None:
    sealer = ItemSealer(SECRET)
    slot = sealer.slot("k")
    new = slot.held
    for _ in range(2):
        lookup = store(sealer, slot, size)
        if size <= 65_536:
            assert remembered("k", sealer).lookup is lookup and slot.held == held(size)
        else:
            assert slot.remembered is None and slot.held == new


def test_a_foreign_item_is_rejected() -> None:
    stranger = ItemSealer(bytes(32))
    item = stranger.seal(SEALER.name("k"), TAG, None)
    assert opened(item, "k") is REJECTED


@given(st.binary(max_size=400))
def test_rubbish_is_rejected(data: bytes) -> None:
    assert opened(data, "k") is REJECTED


def test_names_are_fixed_length_hexadecimal_and_keyed() -> None:
    names = {SEALER.name(key) for key in ("a", "b", "a b\r\nset x", "é" * 512)}
    assert len(names) == 4
    assert all(len(name) == 32 and set(name) <= set(b"0123456789abcdef") for name in names)
    assert ItemSealer(bytes(32)).name("a") != SEALER.name("a")
    assert SEALER.name("a") != hashlib.blake2b(b"a", digest_size=16).hexdigest().encode()


def test_keys_spread_over_all_buckets() -> None:
    buckets = {bucket_of(SEALER.name(str(n))) for n in range(20_000)}
    assert min(buckets) >= 0 and max(buckets) < BUCKETS
    # 20,000 balls in 65,536 bins hit about 17,200 of them.
    assert len(buckets) > 16_500


def test_the_overhead_is_an_upper_bound() -> None:
    entry = Entry(ScopedKey("k" * MAX_KEY_BYTES), b"v", "x/" + "y" * 250, str(uuid.uuid4()), 1, 1e9)
    memcached_item_header = 64 + 32
    assert len(sealed(entry, entry.key)) - 1 + memcached_item_header <= OVERHEAD_BYTES


def test_a_copy_under_another_tag_is_valid_where_the_authority_accepts_it() -> None:
    def at_or_above(sealed_under: Tag, current: Tag) -> bool:
        return sealed_under[0] == current[0] and sealed_under[1] >= current[1]

    sealer = ItemSealer(SECRET, at_or_above)
    epoch, sequence = TAG
    item = sealed(None, "k", (epoch, sequence))
    for _ in range(2):  # the second time, the result is remembered
        assert opened(item, "k", (epoch, sequence - 2), sealer) is None
        assert opened(item, "k", (epoch, sequence + 2), sealer) is REJECTED
        assert opened(item, "k", (b"f" * 16, sequence - 2), sealer) is REJECTED
    assert opened(item[:-1], "k", (epoch, sequence - 2), sealer) is REJECTED


def test_a_remembered_item_is_judged_by_the_tag_it_was_sealed_under() -> None:
    asked: list[tuple[Tag, Tag]] = []

    def at_or_above(sealed_under: Tag, current: Tag) -> bool:
        asked.append((sealed_under, current))
        return sealed_under[0] == current[0] and sealed_under[1] >= current[1]

    epoch, sequence = TAG
    below, above, at = [(epoch, sequence + more) for more in (-2, 2, 0)]
    sealer = ItemSealer(SECRET, at_or_above)
    assert opened(sealed(None, "k"), "k", below, sealer) is None
    first = remembered("k", sealer)
    assert (first.sealed_under, first.tag) == (TAG, below)
    asked.clear()
    assert reopened("k", below, sealer) is None
    assert asked == [], "the verdict is remembered"

    # A verdict is remembered until there is another one, and changes nothing else.
    assert reopened("k", at, sealer) is None
    assert asked == [(TAG, at)]
    again = remembered("k", sealer)
    assert (again.cas, again.sealed_under, again.tag) == (CAS, TAG, at)
    assert again.lookup is first.lookup and again.expires_at == first.expires_at
    assert reopened("k", at, sealer) is None
    assert asked == [(TAG, at)], "the new verdict is remembered, too"

    # It is not the verdict on the last tag, which is lower or higher, that decides.
    assert reopened("k", below, sealer) is None
    assert reopened("k", at, sealer) is None
    assert asked == [(TAG, at), (TAG, below), (TAG, at)]
    last = remembered("k", sealer)
    for tag in (above, (b"f" * 16, sequence), (b"f" * 16, sequence - 2)):
        assert reopened("k", tag, sealer) is REJECTED
        assert asked[-1] == (TAG, tag)
    assert remembered("k", sealer) is last, "a rejection is not remembered"
    assert reopened("k", at, sealer) is None


def test_a_verdict_on_an_item_that_was_replaced_meanwhile_is_not_remembered() -> None:
    """While memcached was asked about an item, another batch has opened a newer one."""
    epoch, sequence = TAG
    sealer = ItemSealer(SECRET, lambda sealed_under, current: True)
    slot, later = sealer.slot("k"), (epoch, sequence + 2)
    assert opened(sealed(None, "k"), "k", TAG, sealer) is None
    before = remembered("k", sealer)
    new = Entry(slot.key, b"new", JSON, ID, 2, None)
    assert opened(sealed(new, "k", later), "k", later, sealer) == new
    after = remembered("k", sealer)
    assert sealer.reopen(slot, before, (epoch, sequence + 4)) is before.lookup
    assert remembered("k", sealer) is after
