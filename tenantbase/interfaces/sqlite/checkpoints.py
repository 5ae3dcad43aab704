"""When the write-ahead log is copied into the database, and whether that waits for readers.

All methods are called with the write lock held, or in the writing thread.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Final

from tenantbase.figures import CHECKPOINT_DURATION
from tenantbase.interfaces.sqlite.opening import busy_timeout
from tenantbase.interfaces.sqlite.reserve import Reserve

PAGE_BYTES: Final = 4_096

# A checkpoint is made after so many commits and so many rows, or pages of large values. So few: writes
# wait while it copies what they changed, up to a page for each row. Not fewer commits: a checkpoint
# syncs the disk two or three times, and each commit once. Not fewer rows: that would slow down a client
# that writes them one by one.
_COMMITS: Final = 32
_LEAST_PAGES: Final = 250
# However few the commits are, after so many. A row dirties about half a page, so the write-ahead log
# grows to 4 or 8 MiB.
_MOST_PAGES: Final = 2_000
# A larger log, after a long reader or write, gives its space back.
_KEPT_LOG_BYTES: Final = 64 << 20
_PATIENCE_SECONDS: Final = 0.02  # the wait for readers, during which writers wait for it


class Checkpoints:
    """Counts what is written, and copies it.

    Args:
        reserve: covers what a checkpoint adds to the database.
        figures: the worker's cells.
    """

    def __init__(self, reserve: Reserve, figures: memoryview) -> None:
        self._reserve = reserve
        self._figures = figures
        self._commits = 0  # since the last checkpoint
        self._pages = 0  # written since then
        self._unwaited_pages = 0  # checkpointed since one waited for readers
        self._patience_pages = 0  # how many go without a wait, because the last one was in vain

    def wrote(self, pages: int) -> None:
        """Note a commit of so many rows, or pages of large values."""
        self._commits += 1
        self._pages += pages

    def hurry(self) -> None:
        """Make the next checkpoint due."""
        self._pages = _MOST_PAGES

    def due(self, tight: bool) -> bool:
        """Whether a checkpoint should be made.

        Args:
            tight: whether part of the reserve is missing.
        """
        most = self._most_pages(tight)
        often = self._commits >= _COMMITS
        return self._pages >= (min(_LEAST_PAGES, most) if often else most)

    @property
    def restarting(self) -> str:
        """The mode that has the log begin again."""
        return "TRUNCATE" if self._reserve.log_size() > _KEPT_LOG_BYTES else "RESTART"

    def make(self, connection: sqlite3.Connection, mode: str | None, tight: bool) -> None:
        """Copy the write-ahead log as far as readers allow.

        Args:
            mode: RESTART waits for readers of an older state, while new ones read from the database
                alone. TRUNCATE also gives the log's space back. None: one of them, if the log has
                become long. Usually the next write begins it again by itself, but with reads
                following each other closely, one would always be in the way.
            tight: as for ``due``.

        Raises:
            sqlite3.Error: it failed.
        """
        began = time.monotonic_ns()
        self._unwaited_pages += self._pages
        self._commits = self._pages = 0
        try:
            _, logged, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            most = self._most_pages(tight)
            if mode is None and self._unwaited_pages >= max(most // 2, self._patience_pages):
                restarting = self.restarting
                if logged >= most or restarting == "TRUNCATE":
                    mode = restarting
            if mode is not None:
                with busy_timeout(connection, _PATIENCE_SECONDS):
                    busy, *_ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                # A reader that stays, such as a backup, is waited for less and less often.
                self._patience_pages = 2 * max(self._unwaited_pages, most // 2) if busy else 0
                self._unwaited_pages = 0
        finally:
            CHECKPOINT_DURATION.add(self._figures, time.monotonic_ns() - began)

    def _most_pages(self, tight: bool) -> int:
        """How many may be written between two checkpoints."""
        if tight:
            # Before the log fills its file. A lone write of a row takes some pages more.
            return self._reserve.log_bytes // PAGE_BYTES // 8
        # A checkpoint may grow the database by the same amount, which the reserve must cover.
        return min(_MOST_PAGES, self._reserve.bytes // PAGE_BYTES or _MOST_PAGES)
