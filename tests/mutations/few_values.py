"""Mistakes in bulk reads of few and small entries, which the fast path answers."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_TESTS: Final = [
    "tests/web/fast_path/test_bulk.py",
    "tests/web/fast_path/test_writer.py",
    "tests/test_bulk_read.py",
]

MUTATIONS: Final = {
    **of(
        "tenantbase/web/fast_path/answering.py",
        _TESTS,
        {
            "some-of-the-entries-are-all": (" if len(result) == len(keys) else None", ""),
            "entries-of-any-size-are-small": (
                "values_json(keys, result, most)",
                "values_json(keys, result, 1 << 40)",
            ),
            "the-shortest-compressed-answer-is-not": (
                "True: COMPRESSED_FROM_BYTES - 1}",
                "True: COMPRESSED_FROM_BYTES}",
            ),
            "nobody-asked-for-compression": (
                "most = _MOST_BYTES[credentials.compresses]",
                "most = _MOST_BYTES[False]",
            ),
            "what-is-compressed-is-read-twice": (
                "_MOST_BYTES[credentials.compresses] // 2",
                "_MOST_BYTES[False] // 2",
            ),
            "grown-entries-count-twice": (
                "            return\n        _uncount(credentials)\n        asker.hand_on()\n",
                "            return\n        asker.hand_on()\n",
            ),
            "many-keys-count-twice": (
                "        if not begun:\n            _uncount(credentials)\n",
                "",
            ),
            "a-failed-bulk-read-is-asked-again": (
                "            self._refuse(asker, credentials, result)\n            return\n",
                "            asker.hand_on()\n            return\n",
            ),
        },
    ),
    **of(
        "tenantbase/documents.py",
        ["tests/test_documents.py"],
        {
            "commas-do-not-count": ("+ commas + len(end) > most", "+ len(end) > most"),
            "the-missing-do-not-count": ("+ commas + len(end) > most", "+ commas > most"),
            "large-values-are-rendered-to-measure-them": (
                "    elif sum(each.bytes for each in lookups) > most:\n        return None\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/database/service.py",
        _TESTS,
        {
            "repeated-keys-are-read-twice": ("receive(plain, result)", "receive(keys, result)"),
            "one-tenants-sizes-are-those-of-all": (
                "self._sizes.fit(scope.tenant,",
                'self._sizes.fit("default",',
            ),
        },
    ),
    **of(
        "tenantbase/database/bulk_read.py",
        _TESTS,
        {
            "entries-of-unknown-size-are-small": (
                "return usual is not None and keys",
                "usual = usual or 0.0\n        return keys",
            ),
            "any-number-of-keys-is-few": (" and keys <= CHUNK_KEYS and", " and"),
            "one-key-for-all": ("and keys * usual <= size", "and usual <= size"),
            "entries-that-just-fit-do-not": ("keys * usual <= size", "keys * usual < size"),
            "sizes-are-remembered-without-end": (
                "            self._of.clear()\n",
                "            pass\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/parser.py",
        _TESTS,
        {"bulk-reads-are-not-plain": ("(SET_VALUE, GET_VALUES)\n", "(SET_VALUE,)\n")},
    ),
    **of(
        "tenantbase/web/fast_path/shared.py",
        _TESTS,
        {
            "every-coding-is-gzip": (
                "accepted_coding(headers.get(hdrs.ACCEPT_ENCODING)) is not None",
                "hdrs.ACCEPT_ENCODING in headers",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/writer.py",
        _TESTS,
        {
            "private-entries-are-for-all": ("self._collection[private]", "self._collection[False]"),
            "a-collections-date-stands-still": (
                "ending = self._current or self._ending()\n        return b",
                "ending = self._last_fields or self._ending()\n        return b",
            ),
        },
    ),
    **of(
        "tenantbase/documents.py",
        _TESTS,
        {
            "what-exists-is-missing": (
                "documents, [key for key, each in results if each.entry is None]",
                "documents, [key for key, each in results]",
            ),
        },
    ),
}
