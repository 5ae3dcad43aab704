"""Mistakes in frames and in the database's transactions."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/frame.py",
        ["tests/test_frame.py"],
        {
            "the-mac-covers-the-first-two-kilobytes": (
                "memoryview(data)[_MAC:])",
                "memoryview(data)[_MAC : _MAC + 2048])",
            ),
            "the-mac-is-not-compared": (
                "if not compare_digest(state.digest(), data[:_MAC]):",
                "if False:",
            ),
            "what-is-remembered-has-no-tag": (
                "if data == place.frame and tag == place.tag:",
                "if data == place.frame:",
            ),
        },
    ),
    **of(
        "tenantbase/web/health.py",
        ["tests/web/test_health.py"],
        {
            "the-first-check-is-kept-for-ever": (
                "    def _checked(self, check: asyncio.Task[bool]) -> None:\n        self._check = None",
                "    def _checked(self, check: asyncio.Task[bool]) -> None:\n        pass",
            ),
            "each-question-is-a-check": ("        if self._check is None:\n", "        if True:\n"),
        },
    ),
    **of(
        "tenantbase/interfaces/sql_commit.py",
        ["tests/test_sql_interface.py", "tests/test_sql_recovery.py"],
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
}
