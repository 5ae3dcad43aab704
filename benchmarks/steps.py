"""Measures each step of reading one key from memcached by itself, with warm processor caches."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.work import BULK_KEYS, SMALL
from tenantbase.coherence.sealed_item import ItemSealer, Slot
from tenantbase.coherence.tag_file import TagFile
from tenantbase.documents import entry_json
from tenantbase.entry import JSON, Entry, check_keys
from tenantbase.interfaces.cache import Fetched
from tenantbase.interfaces.memcached.protocol import parse_answers
from tenantbase.scope import DEFAULT, plain_key

_REPEATS: Final = 300


def measure(directory: Path) -> list[dict[str, Any]]:
    """Run the steps of a bulk read one after the other, each for all keys.

    Returns: for each step: ``step``, and ``seconds`` for one key, the fastest of several repeats.
    """
    entries = [
        Entry(DEFAULT.key(key), msgspec.json.encode(text), JSON, "0" * 36, version, None)
        for version, (key, text) in enumerate(islice(SMALL.entries().items(), BULK_KEYS))
    ]
    sealer = ItemSealer(bytes(32))
    tags = TagFile.open(directory / "steps-tags")
    try:
        plain = [plain_key(entry.key) for entry in entries]
        keys = [entry.key for entry in entries]
        names = [sealer.name(key) for key in keys]
        slots = [sealer.slot(key) for key in keys]
        buckets = [slot.bucket for slot in slots]
        tokens = [tags.tag(bucket) for bucket in buckets]
        items = [
            Fetched(sealer.seal(*each), b"%d" % cas)
            for cas, each in enumerate(zip(names, tokens, entries, strict=True), 1)
        ]
        answer = b"".join(b"VA %d c%b\r\n%b\r\n" % (len(i.data), i.cas, i.data) for i in items)
        remembered = []
        for item, slot, token in zip(items, slots, tokens, strict=True):
            sealer.open(item, slot, token)
            assert slot.remembered is not None
            remembered.append(slot.remembered)
        steps: dict[str, Callable[[], object]] = {
            "checking the key": lambda: check_keys(keys, "keys"),
            "its name in memcached, a keyed hash": lambda: [sealer.name(key) for key in keys],
            "the same, its slot remembered": lambda: [sealer.slot(key) for key in keys],
            "its tag": lambda: tags.tags(buckets),
            "parsing memcached's answer": lambda: parse_answers(answer, [], len(items)),
            "opening its item, MAC included": lambda: [
                sealer.open(item, Slot(key, name, bucket), token)
                for item, key, name, bucket, token in zip(
                    items, keys, names, buckets, tokens, strict=True
                )
            ],
            "the same, remembered": lambda: [
                sealer.reopen(*each) for each in zip(slots, remembered, tokens, strict=True)
            ],
            "its JSON": lambda: list(map(entry_json, plain, entries)),
        }
        return [
            {"step": step, "seconds": _least(work) / len(entries)} for step, work in steps.items()
        ]
    finally:
        tags.close()


def _least(work: Callable[[], object]) -> float:
    used = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        work()
        used.append(time.perf_counter() - begun)
    return min(used)
