"""Mistakes in lists that the fast path answers."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_TESTS: Final = ["tests/web/fast_path/test_pages.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/web/fast_path/pages.py",
        _TESTS,
        {
            "short-lists-outlive-their-token": (
                "self._callers.holding(caller, recipient.abort)",
                "self._callers.holding(caller, bool)",
            ),
            "short-lists-are-read-at-once": (
                "async with self._turns.held(tenant):",
                "if True:",
            ),
            "short-lists-wait-for-each-other": (
                "        self._turns.begin_stream(caller.scope.tenant)\n"
                "        task = asyncio.get_running_loop().create_task(read())\n",
                "        task = asyncio.get_running_loop().create_task(read())\n"
                "        asyncio.get_running_loop().call_soon(\n"
                "            self._turns.begin_stream, caller.scope.tenant\n"
                "        )\n",
            ),
            "short-lists-wait-for-no-room": (
                "            await recipient.share.reserve(PAGE_BYTES, WAIT_SECONDS)\n",
                "",
            ),
            "a-list-ends-with-its-first-page": (
                "if not more or len(entries) == limit:",
                "if True:",
            ),
            "a-full-page-is-read-again": (
                "if not more or len(entries) == limit:",
                "if not more:",
            ),
            "long-lists-are-tried-each-time": (
                "                self._too_many[kind] = len(entries)\n",
                "                pass\n",
            ),
            "lists-that-were-long-stay-long": (
                "            self._too_many.clear()\n",
                "",
            ),
            "a-list-without-a-limit-is-tried": (
                "if limit is None or not self._may_fit(limit, kind):",
                "limit = limit or PAGE_ENTRIES\n        if not self._may_fit(limit, kind):",
            ),
            "long-lists-are-not-compressed": (
                "if parts and compresses and",
                "if False and",
            ),
            "a-list-that-cannot-be-made-is-never-answered": (
                "except Exception as error:",
                "except OSError as error:",
            ),
            "many-rows-are-rendered-at-once": ("len(rows) > GROUP_ITEMS or ", ""),
            "folded-keys-are-taken-for-entries": (
                "if not asked.values or asked.wanted.delimiter:",
                "if not asked.values:",
            ),
            "entries-come-with-their-values": (
                "if not asked.values or asked.wanted.delimiter:",
                "if asked.wanted.delimiter:",
            ),
            "the-last-page-has-a-cursor": ("if more and entries else", "if entries else"),
            "an-empty-list-has-no-beginning": (
                "    if parts:\n        document.before",
                "    if True:\n        document.before",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/answering.py",
        _TESTS,
        {
            "a-list-that-is-handed-on-counts-twice": (
                "        elif result is None:\n            _uncount(credentials)\n",
                "        elif result is None:\n",
            ),
            "a-list-that-may-be-long-counts-twice": (
                "        if not begun:\n            _uncount(credentials)\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/connection.py",
        _TESTS,
        {
            "a-list-is-charged-for-good": (
                "        self._busy = False\n        if self._share is not None:\n"
                "            self._share.release()\n",
                "        self._busy = False\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/list_document.py",
        [*_TESTS, "tests/web/handlers/test_lists.py"],
        {
            "a-later-part-begins-anew": (
                'ended if self.before == b","',
                "ended if False",
            ),
            "nothing-folded-is-no-list": (
                'b"" if folded is None',
                'b"" if not folded',
            ),
        },
    ),
}
