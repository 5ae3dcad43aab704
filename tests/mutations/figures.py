"""Mistakes in what is counted, and in what is shown of it."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/metrics/board.py",
        ["tests/metrics/test_board.py"],
        {
            "a-successor-begins-elsewhere": (
                "min(set(range(len(self._slots)))",
                "max(set(range(len(self._slots)))",
            ),
            "gauges-outlive-their-worker": (
                "[FIRST_GAUGE : LAST_GAUGE + 1] =",
                "[PID : PID + 1] =",
            ),
            "a-slot-is-never-free-again": ("self._taken.discard(slot)", "pass"),
        },
    ),
    **of(
        "tenantbase/metrics/pulse.py",
        ["tests/metrics/test_pulse.py"],
        {
            "only-one's-own-loop-may-hang": ("[0, *late, *board", "[0, *board"),
            "a-delay-is-forgotten-at-once": ("max(cells[LAG], now", "max(0, now"),
            "what-came-before-counts": ("new - old for new", "new for new"),
        },
    ),
    **of(
        "tenantbase/metrics/pulse.py",
        ["tests/metrics/test_pulse.py"],
        {
            "a-delay-is-never-forgotten": (
                "if now - self._turned > _LAG_NANOSECONDS:",
                "if False:",
            ),
            "a-worker-that-ended-is-late": (
                "        self._cells[BEAT_DUE] = 0\n",
                "        pass\n",
            ),
            "recent-is-since-the-start": ("if self._beats % _BEATS_PER_LOOK == 0:", "if False:"),
            "failures-are-never-long-ago": (
                "(now.errors - then.errors) / seconds",
                "now.errors / seconds",
            ),
        },
    ),
    **of(
        "tenantbase/metrics/families.py",
        ["tests/metrics/test_families.py"],
        {
            "descriptors-of-one-process": ("else limit * processes", "else limit"),
            "the-supervisor-is-no-process": ("{board.supervisor, *workers}", "{*workers}"),
            "workers-that-ended-used-nothing": ("used.cpu + ended)", "used.cpu)"),
            "there-is-no-trouble": ("each in scraped.troubles)", "False)"),
            "a-limit-of-zero-is-not-shown": (
                "for each, value in values if value is not None]",
                "for each, value in values if value]",
            ),
        },
    ),
    **of(
        "tenantbase/web/observer.py",
        ["tests/web/test_observer.py"],
        {
            "watches-spoil-the-percentiles": ("        if not lasts:\n", "        if True:\n"),
            "the-log-hears-of-all": ("return self._took >= self.log_from", "return True"),
            "a-group-is-one-request": ("self._size += 1", "pass"),
            "a-group-has-any-status": ("and status == self._status and", "and"),
            "a-group-began-at-any-time": (" and began == self._began:", ":"),
            "a-group-is-counted-twice": ("        self._series = None\n", ""),
            "a-group-has-the-duration-of-one": ("+= took * size", "+= took"),
            "a-turn-does-not-end": (
                "    def _end_turn(self) -> None:\n        self.turn = 0\n",
                "    def _end_turn(self) -> None:\n        pass\n",
            ),
            "a-client-that-left-got-its-answer": (
                "request.get(_STATUS, CLIENT_GONE)",
                "request.get(_STATUS, 200)",
            ),
        },
    ),
    **of(
        "tenantbase/web/handlers/figures.py",
        ["tests/web/handlers/test_figures.py"],
        {
            "anybody-sees-the-figures": (
                "if not request[CALLER].principal.reads_figures:",
                "if False:",
            ),
            "tenants-are-always-shown": ("if measured.per_tenant:", "if True:"),
            "no-figures-without-a-database": (
                "with suppress(StoreError, TimeoutError):",
                "with suppress(TimeoutError):",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/sizes.py",
        ["tests/interfaces/sqlite/test_space.py"],
        {
            "a-disk-may-fill-up-silently": ("size.free_bytes < floor", "False"),
            "a-log-may-grow-silently": ("size.log_bytes > _GROWN_BYTES", "False"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/store.py",
        ["tests/interfaces/sqlite/test_space.py"],
        {
            "a-grown-log-waits-for-a-write": ("(anyway or self._committer", "(self._committer"),
        },
    ),
}
