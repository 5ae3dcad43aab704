"""Mistakes in frames and in the database's transactions."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/coherence/sealed_item.py",
        ["tests/coherence/test_sealed_item.py"],
        {
            "the-mac-covers-the-first-two-kilobytes": (
                "memoryview(data)[_MAC_BYTES:]",
                "memoryview(data)[_MAC_BYTES : _MAC_BYTES + 2048]",
            ),
            "the-mac-is-not-compared": (
                "if not compare_digest(state.digest(), data[:_MAC_BYTES]):",
                "if False:",
            ),
            "what-is-remembered-has-no-tag": (
                "if data == slot.data and tag == slot.tag:",
                "if data == slot.data:",
            ),
        },
    ),
    **of(
        "tenantbase/web/handlers/health.py",
        ["tests/web/handlers/test_health.py"],
        {
            "the-first-check-is-kept-for-ever": (
                "    def _checked(self, check: asyncio.Task[bool]) -> None:\n        self._check = None",
                "    def _checked(self, check: asyncio.Task[bool]) -> None:\n        pass",
            ),
            "each-question-is-a-check": ("        if self._check is None:\n", "        if True:\n"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/commit.py",
        ["tests/interfaces/sqlite/test_store.py", "tests/interfaces/sqlite/test_recovery.py"],
        {
            "the-patience-of-a-checkpoint-stays": (
                '    finally:\n        connection.execute(f"PRAGMA busy_timeout = {before}")',
                "    finally:\n        pass",
            ),
            "a-failed-rollback-is-forgotten": (
                '                self.failure = "a transaction cannot be ended;'
                ' no more writes are taken"\n                return False',
                "                return False",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/queries.py",
        ["tests/interfaces/sqlite/test_queries.py"],
        {
            "a-page-of-the-log-is-read-without-a-snapshot": (
                "    with snapshot(connection):\n        newest",
                "    if True:\n        newest",
            ),
            "an-error-leaves-a-snapshot-open": (
                "    finally:\n        if connection.in_transaction:  # after",
                "    except ZeroDivisionError:\n        raise\n    else:\n"
                "        if connection.in_transaction:  # after",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/schema.py",
        ["tests/interfaces/sqlite/test_recovery.py"],
        {
            "a-log-is-declared-safe-before-it-was-rewritten": (
                "    left = None if mark",
                "    if mark is not None:\n        mark.log_was_made_safe()\n    left = None if mark",
            ),
        },
    ),
    **of(
        "tenantbase/database/service.py",
        [
            "tests/web/transport/test_limits.py::test_a_bulk_read_takes_no_more_at_a_time_than_fits_into_memory"
        ],
        {
            "bulk-reads-have-no-bound": (
                "max(1, min(_READ_ENTRIES, _READ_BYTES // limits.max_value_bytes))",
                "_READ_ENTRIES",
            ),
        },
    ),
}
