"""Mistakes in moving a database to another system."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_PACKAGE: Final = "tenantbase/"


def _test(name: str) -> list[str]:
    # All of them take minutes: each moves a database once or more.
    return [f"tests/cli/test_migrate.py::{name}"]


_THERE_AND_BACK: Final = _test("test_there_and_back")
_WHILE_WRITTEN: Final = _test("test_from_postgresql_while_servers_write")
_GOES_ON: Final = _test("test_a_second_run_goes_on_where_the_first_was")
_NEW_TARGET: Final = _test("test_the_target_must_be_new")
_COMPARED: Final = _test("test_every_row_is_compared")
_TRIMMED: Final = _test("test_a_trimmed_change_log_begins_again")

MUTATIONS: Final = {
    **of(
        _PACKAGE + "process/moving.py",
        _WHILE_WRITTEN,
        {
            "keys-that-are-gone-stay": (
                "await self._target.put([], [key for key in keys if key not in found], progress)",
                "await self._target.put([], [], progress)",
            ),
            "prefixes-are-not-hidden": (
                "                    await self._target.hide(line.key, line.version)",
                "                    pass",
            ),
            "the-last-changes-are-left": (
                "await _Move(source, target, tell, 0).run()",
                "await _Move(source, target, tell, _FEW_LINES).run()",
            ),
        },
    ),
    **of(
        _PACKAGE + "process/moving.py",
        _COMPARED,
        {
            "rows-are-not-compared": (
                "        if await anext(others, None) != row:",
                "        if await anext(others, None) is None:",
            ),
            "rows-that-are-too-many-are-accepted": (
                "if (extra := await anext(others, None)) is not None:",
                "if (extra := await anext(others, None)) is not None and not extra.key:",
            ),
        },
    ),
    **of(
        _PACKAGE + "process/moving.py",
        _TRIMMED,
        {
            "a-trimmed-change-log-is-not-noticed": (
                "            if not reached:\n",
                "            if False:\n",
            ),
        },
    ),
    **of(
        _PACKAGE + "process/moving.py",
        _NEW_TARGET,
        {
            "a-move-goes-on-from-another-source": (
                "elif progress.source != self._source.identity:",
                "elif False:",
            ),
        },
    ),
    **of(
        _PACKAGE + "process/moving.py",
        _test("test_versions_that_were_skipped_are_never_given"),
        {
            "skipped-versions-are-given-again": (
                "    if last is None or last.version < version:",
                "    if last is None:",
            ),
        },
    ),
    **of(
        _PACKAGE + "interfaces/postgres/moving.py",
        _test("test_the_source_must_be_ours_and_free"),
        {"it-is-moved-from-beside-servers": ("        if others:\n", "        if False:\n")},
    ),
    **of(
        _PACKAGE + "interfaces/postgres/moving.py",
        _NEW_TARGET,
        {"a-database-is-overwritten": ("            if taken:\n", "            if False:\n")},
    ),
    **of(
        _PACKAGE + "interfaces/postgres/moving.py",
        _GOES_ON,
        {
            "progress-is-not-noted": (
                "    WHERE steps = $4 RETURNING steps",
                "    WHERE steps < 0",
            ),
        },
    ),
    **of(
        _PACKAGE + "interfaces/postgres/moving.py",
        _THERE_AND_BACK,
        {
            "versions-begin-again": (
                "SET position = $1, trimmed = $1, access",
                "SET trimmed = $1, access",
            ),
        },
    ),
    **of(
        _PACKAGE + "interfaces/postgres/moving.py",
        _TRIMMED,
        {
            "the-log-reaches-back-for-ever": (
                "EXISTS (SELECT FROM changes WHERE position <= $1) OR",
                "true OR",
            ),
        },
    ),
    **of(
        _PACKAGE + "interfaces/sqlite/moving.py",
        _GOES_ON,
        {
            "rows-and-progress-are-two-transactions": (
                "            self._connection.execute(_NOTE, progress)",
                "            pass",
            ),
            "servers-see-it-at-once": ('return f"{path}.moving"', "return path"),
        },
    ),
    **of(
        _PACKAGE + "interfaces/sqlite/moving.py",
        _THERE_AND_BACK,
        {"no-incremental-vacuum": ("PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA auto_vacuum = 0")},
    ),
}
