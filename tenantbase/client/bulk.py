"""Many entries in one request: the part of ``Client`` for bulk reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from tenantbase.client.exchange import Exchange, post
from tenantbase.client.results import Entry, Put, Written
from tenantbase.client.wire import (
    JSON_HEADERS,
    Deleted,
    EntryPage,
    WrittenMany,
    check_keys,
    json_body,
    parse,
    put_body,
)

_KEYS_PER_REQUEST: Final = 1000


class Bulk:
    """See ``Client``."""

    @property
    def _exchange(self) -> Exchange:
        raise NotImplementedError

    async def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Read many entries. Returns: those that exist, by key, in the order of ``keys``."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Entry] = {}
        for start in range(0, len(wanted), _KEYS_PER_REQUEST):
            body = json_body({"keys": wanted[start : start + _KEYS_PER_REQUEST]})
            answer = await self._exchange.read("POST", "/get-values", body, JSON_HEADERS)
            found.update((each.key, each.entry()) for each in parse(answer.body, EntryPage).values)
        check_keys(wanted, found)
        return found

    async def set_many(self, entries: Mapping[str, Any] | Iterable[Put]) -> Sequence[Written]:
        """Store many values in one transaction, all or none.

        Args:
            entries: values by key; or a ``Put`` for each, which may have conditions.

        Raises:
            TypeError, ValueError: JSON cannot express a value, or a time is not finite. Nothing was
                sent.
        """
        if isinstance(entries, Mapping):
            entries = [Put(key=key, value=value) for key, value in entries.items()]
        entries = list(entries)
        body = json_body({"values": [put_body(each) for each in entries]})
        written = parse(await post(self._exchange, "/set-values", body), WrittenMany).values
        check_keys((each.key for each in entries), (each.key for each in written))
        return written

    async def delete_many(self, keys: Iterable[str] | Mapping[str, int | None]) -> int:
        """Delete many keys in one transaction. Returns: how many of them existed.

        Args:
            keys: a mapping gives the version that each entry must have, or None; if one has
                another, nothing is deleted and ConditionFailed is raised.
        """
        body = json_body(_named(keys))
        return parse(await post(self._exchange, "/delete-values", body), Deleted).deleted

    async def pop_many(self, keys: Iterable[str] | Mapping[str, int | None]) -> dict[str, Entry]:
        """Delete many keys in one transaction, and return the entries that existed, by key.

        Args:
            keys: as for ``delete_many``.

        Raises:
            TooLarge: the values have more than 8 MiB together; nothing was deleted.
        """
        keys = keys if isinstance(keys, Mapping) else list(keys)
        body = json_body({**_named(keys), "return_values": True})
        values = parse(await post(self._exchange, "/delete-values", body), Deleted).values
        check_keys(keys, (each.key for each in values))
        return {each.key: each.entry() for each in values}

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every key with the prefix; an empty one deletes all. Returns: how many existed."""
        body = json_body({"prefix": prefix})
        return parse(await post(self._exchange, "/delete-values", body), Deleted).deleted


def _named(keys: Iterable[str] | Mapping[str, int | None]) -> dict[str, Any]:
    """The keys to delete, in a body of ``delete-values``."""
    if isinstance(keys, Mapping):
        return {"entries": [{"key": key, "if_version": version} for key, version in keys.items()]}
    return {"keys": list(dict.fromkeys(keys))}
