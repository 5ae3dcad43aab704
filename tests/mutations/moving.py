"""Mistakes in moving a database to another system."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_TESTS: Final = ["tests/cli/test_migrate.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/process/moving.py",
        _TESTS,
        {
            "a-move-goes-on-from-another-source": (
                "elif progress.source != self._source.identity:",
                "elif False:",
            ),
            "keys-that-are-gone-stay": (
                "await self._target.put([], [key for key in keys if key not in found], progress)",
                "await self._target.put([], [], progress)",
            ),
            "prefixes-are-not-hidden": (
                "                    await self._target.hide(line.key, line.version)",
                "                    pass",
            ),
            "a-trimmed-change-log-is-not-noticed": (
                "            if not reached:\n",
                "            if False:\n",
            ),
            "rows-are-not-compared": (
                "        if await anext(others, None) != row:",
                "        if await anext(others, None) is None:",
            ),
            "rows-that-are-too-many-are-accepted": (
                "if (extra := await anext(others, None)) is not None:",
                "if (extra := await anext(others, None)) is not None and not extra.key:",
            ),
            "skipped-versions-are-given-again": (
                "    if last is None or last.version < version:",
                "    if last is None:",
            ),
            "the-last-changes-are-left": (
                "await _Move(source, target, tell, 0).run()",
                "await _Move(source, target, tell, _FEW_LINES).run()",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/moving.py",
        _TESTS,
        {
            "it-is-moved-from-beside-servers": ("        if others:\n", "        if False:\n"),
            "a-database-is-overwritten": ("            if taken:\n", "            if False:\n"),
            "progress-is-not-noted": (
                "    WHERE steps = $4 RETURNING steps",
                "    WHERE steps < 0",
            ),
            "versions-begin-again": (
                "SET position = $1, trimmed = $1, access",
                "SET trimmed = $1, access",
            ),
            "the-log-reaches-back-for-ever": (
                "EXISTS (SELECT FROM changes WHERE position <= $1) OR",
                "true OR",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/moving.py",
        _TESTS,
        {
            "rows-and-progress-are-two-transactions": (
                "            self._connection.execute(_NOTE, progress)",
                "            pass",
            ),
            "servers-see-it-at-once": ('return f"{path}.moving"', "return path"),
            "no-incremental-vacuum": ("PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA auto_vacuum = 0"),
        },
    ),
}
