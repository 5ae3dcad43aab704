"""Lists that clients ask for, and what an answer shows of each key.

An entry in a list is a read of its key, and so is its absence between its neighbours.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from tests.wire import Answer

_NDJSON: Final = "application/x-ndjson"
_PLAIN_LIMIT: Final = 100  # a page of fewer than 16 rows is not remembered; see ``queries.py``
_SMALL_LIMIT: Final = 6


@dataclass(frozen=True)
class KeyList:
    """A list of keys of one kind, from one slice.

    Attributes:
        keys: all that it may show, in its order.
        start, end: bounds, as in the request.
        lines: it is asked for as NDJSON instead of a document.
        cursor: where it continues.
    """

    prefix: str
    keys: Sequence[str]
    start: str = ""
    end: str = ""
    limit: int | None = None
    descending: bool = False
    lines: bool = False
    cursor: str = ""

    @property
    def target(self) -> str:
        """The target of the request."""
        order = "desc" if self.descending else ""
        asked = {
            "prefix": self.prefix,
            "start": self.start,
            "end": self.end,
            "limit": self.limit,
            "order": order,
            "cursor": self.cursor,
        }
        given = {name: value for name, value in asked.items() if value}
        return f"/{'v1/values' if self.lines else 'get-values'}?{urlencode(given)}"

    @property
    def accept(self) -> str:
        """The media type to ask for; empty: that of a document."""
        return _NDJSON if self.lines else ""

    def shown(self, answer: Answer) -> dict[str, dict[str, Any] | None]:
        """The entry of each key that a complete answer is about, or None where it shows its absence.

        Raises:
            ValueError: no service may answer so, whatever is stored.
        """
        entries, more = self._parsed(answer)
        keys = [entry["key"] for entry in entries]
        if keys != sorted(set(keys), reverse=self.descending):
            raise ValueError("a list shows a key twice, or keys out of order")
        if not {*keys} <= {*self.keys}:
            raise ValueError("a list shows a key that was not asked for")
        if self.limit is not None and len(keys) > self.limit:
            raise ValueError("a list is longer than its limit")
        found = dict(zip(keys, entries, strict=True))
        return {key: found.get(key) for key in self._reached(keys, more)}

    def following(self, answer: Answer) -> KeyList | None:
        """The list that continues after an answer; None if that was the last page.

        None for NDJSON, too: its next page begins after a key that may have been deleted before it
        could be shown, so nothing is known of the keys before that one.
        """
        if self.lines:
            return None
        entries, more = self._parsed(answer)
        if not more:
            return None
        keys = self.keys[len(self._reached([entry["key"] for entry in entries], more)) :]
        return replace(self, keys=keys, cursor=answer.json["cursor"])

    def _parsed(self, answer: Answer) -> tuple[list[dict[str, Any]], bool]:
        """The entries, and whether others may follow."""
        if self.lines:
            entries = [json.loads(line) for line in answer.body.splitlines()]
            return entries, "Link" in answer.headers
        document: Mapping[str, Any] = answer.json
        return document["values"], document["cursor"] is not None

    def _reached(self, shown: Sequence[str], more: bool) -> Sequence[str]:
        """The keys up to the last one shown, or all of them if no more follow."""
        if not more:
            return self.keys
        return self.keys[: self.keys.index(shown[-1]) + 1] if shown else ()


def drawn(chance: random.Random, keys: Mapping[str, Sequence[str]]) -> KeyList:
    """A list of some of a slice's keys. Most are the same few, which servers remember."""
    if chance.random() < 0.7:
        everything = sorted(keys[chance.choice(("registers", "counters"))])
        # With a limit, the fast path answers.
        return KeyList(_prefix(everything), everything, limit=chance.choice((None, _PLAIN_LIMIT)))
    everything = sorted(keys[chance.choice([*keys])])
    start, end = (chance.choice(("", *everything)) for _ in range(2))
    descending = chance.random() < 0.5
    within = [key for key in everything if start <= key and (not end or key < end)]
    return KeyList(
        _prefix(everything),
        within[::-1] if descending else within,
        start,
        end,
        chance.choice((None, _PLAIN_LIMIT, chance.randint(1, _SMALL_LIMIT))),
        descending,
        chance.random() < 0.5,
    )


def _prefix(keys: Sequence[str]) -> str:
    return keys[0].partition("/")[0] + "/"
