"""Mistakes in the limits on what clients may use."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_FAST: Final = ["tests/web/fast_path/test_borrowing.py", "tests/web/fast_path/test_connection.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/web/transport/heads.py",
        ["tests/web/transport/test_heads.py", "tests/web/test_hostile.py"],
        {
            "heads-weigh-nothing": ("if self.arriving > _FREE_BYTES:", "if False:"),
            "heads-of-any-size": ("if self.arriving > MAX_HEAD_BYTES:", "if False:"),
            "a-head-is-charged-for-good": ("            self.release()\n", ""),
            "a-stalled-head-stays": ("        self._transport.abort()\n", ""),
        },
    ),
    **of(
        "tenantbase/web/sending.py",
        ["tests/web/test_cut_clients.py"],
        {
            "the-last-piece-waits-for-the-collector": ("        error.__traceback__ = None\n", ""),
        },
    ),
    **of(
        "tenantbase/web/server.py",
        ["tests/web/test_cut_clients.py"],
        {
            "a-cut-request-waits-for-the-collector": ("cut.__context__ = exc = None", "pass"),
        },
    ),
    **of(
        "tenantbase/web/handlers/bulk.py",
        ["tests/web/transport/test_limits.py"],
        {
            "parsed-keys-weigh-nothing": (
                "        _unfold(request, _KEY_BYTES * len(given.keys))\n",
                "",
            ),
            "parsed-entries-weigh-nothing": (
                "            _unfold(request, _ENTRY_BYTES * len(texts))\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/connection.py",
        _FAST,
        {
            "reading-is-never-resumed": (
                "            self._reading = True\n            self._transport.resume_reading()",
                "            pass",
            ),
            "answers-pile-up": (
                "            or not self._writable\n",
                "",
            ),
            "what-waits-has-no-bound": ("if waiting > _MAX_AHEAD_BYTES:", "if False:"),
            "what-waits-for-a-slow-request-has-no-bound": (
                "if waiting > _MAX_AHEAD_BYTES:",
                "if waiting > _MAX_AHEAD_BYTES and not self._busy:",
            ),
            "a-busy-connection-is-handed-on": (
                "if self._busy or not self._writable:",
                "if not self._writable:",
            ),
            "a-half-closed-client-loses-its-answer": (
                "if incomplete or not self._busy and self._writable:",
                "if True:",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/lending.py",
        _FAST,
        {
            "an-idle-borrower-closes-the-connection": (
                "        if self.active:\n            self._transport.close()\n        # Otherwise",
                "        self._transport.close()\n        # Otherwise",
            ),
        },
    ),
    **of(
        "tenantbase/web/handlers/lists.py",
        ["tests/web/handlers/test_lists.py::test_each_page_is_read_in_a_turn"],
        {"pages-are-read-at-once": ("async with self.turn():", "if True:")},
    ),
    **of(
        "tenantbase/web/handlers/lists.py",
        [
            "tests/web/handlers/test_lists.py"
            "::test_a_key_that_is_added_to_the_last_page_displaces_none"
        ],
        {"the-last-page-is-chosen-twice": ("if not page:", "if not more or not page:")},
    ),
    **of(
        "tenantbase/web/handlers/bulk.py",
        ["tests/web/handlers/test_bulk.py::test_bulk_reads_of_many_keys_begin_in_a_turn"],
        {"reads-of-many-keys-begin-at-once": ("if len(keys) > CHUNK_KEYS:", "if False:")},
    ),
    **of(
        "tenantbase/web/transport/turns.py",
        ["tests/web/transport/test_turns.py"],
        {
            "threads-work-on-after-their-turn": ("elif self._held:", "elif False:"),
            "a-thread-that-hangs-holds-later-turns": (
                "        self._held = 0\n        self._began",
                "        self._began",
            ),
        },
    ),
    **of(
        "tenantbase/database/service.py",
        ["tests/web/handlers/test_watch.py::test_events_wait_for_a_turn"],
        {"all-watchers-wait-in-one-lane": ("pace(tenant_of(prefix))", 'pace("")')},
    ),
    **of(
        "tenantbase/web/transport/budget.py",
        ["tests/web/transport/test_turns.py"],
        {"bodies-wait-in-one-lane": ("_turns.take(lane)", "_turns.take()")},
    ),
    **of(
        "tenantbase/web/transport/budget.py",
        ["tests/web/transport/test_budget.py"],
        {
            "any-number-of-bodies-in-one-turn": (
                "return self._received <= self._room",
                "return True",
            ),
            "what-is-received-counts-for-good": ("        self._received = 0\n", ""),
        },
    ),
    **of(
        "tenantbase/web/server.py",
        ["tests/process/test_limits.py", "tests/web/test_held_memory.py"],
        {
            "a-body-without-room-is-kept": ("            holding.evict()\n", ""),
            "a-sent-answer-stays": ("            resp.body = None  #", "            resp.body  #"),
        },
    ),
    **of(
        "tenantbase/web/semantics/bodies.py",
        ["tests/web/test_held_memory.py"],
        {
            "the-last-part-is-held-twice": (
                "                        del chunk  #",
                "                        #",
            )
        },
    ),
    **of(
        "tenantbase/process/memory.py",
        ["tests/process/test_memory.py"],
        {
            "freed-memory-stays": (
                "        return\n    mallopt",
                "        return\n    return\n    mallopt",
            )
        },
    ),
    **of(
        "tenantbase/web/transport/budget.py",
        ["tests/web/transport/test_limits.py"],
        {
            "the-budget-has-no-end": (
                "while self._used + count > limit:",
                "while False:",
            ),
            "bytes-are-never-given-back": (
                "        self._used -= holding.size\n",
                "",
            ),
            "stalled-bodies-stay": (
                "if oldest is None or now - self._arriving[oldest] < STALLED_SECONDS:",
                "if True:",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/write_queue.py",
        ["tests/coherence/test_write_queue.py"],
        {
            "a-group-of-one-row-too-many": (
                "rows + write.rows > GROUP_ROWS",
                "rows + write.rows > GROUP_ROWS + 1",
            ),
            "a-group-of-any-size": (" or held + write.bytes > GROUP_BYTES", ""),
            "a-group-of-one-write-too-many": (
                "while small.lanes.size and len(group) < GROUP_WRITES:",
                "while small.lanes.size and len(group) <= GROUP_WRITES:",
            ),
            "large-ones-go-first": (
                "if large.size and (not small.size or self._passed and self._large_may_go()):",
                "if large.size:",
            ),
            "large-ones-starve": (
                "if large.size and (not small.size or self._passed and self._large_may_go()):",
                "if large.size and not small.size:",
            ),
            "large-ones-pass-small-ones-of-other-lanes": (
                "self._passed = not self._first",
                "self._passed = True",
            ),
            "large-ones-wait-for-all-small-ones": (
                "return self._large.lanes.next()[0].lane not in self._first",
                "return not self._first",
            ),
            "writes-taken-are-still-counted": ("            small.rows = small.bytes = 0\n", ""),
            "a-write-taken-is-still-counted": ("        self.bytes -= write.bytes\n", ""),
            "each-write-costs-the-same": (
                "cost = max(write.bytes, _ROW_COST * write.rows, _WRITE_COST)",
                "cost = 1",
            ),
            "the-first-of-a-lane-may-be-refused": (
                "return not waiting or waiting <",
                "return waiting <",
            ),
            "a-lane-may-fill-the-queue": (
                "and held + bytes <= free_bytes",
                "and held >= 0",
            ),
        },
    ),
    **of(
        "tenantbase/lanes.py",
        ["tests/test_lanes.py"],
        {
            "a-new-lane-gets-credit": (
                "heappush(self._turns, (self._now, self._ties, name))",
                "heappush(self._turns, (0.0, self._ties, name))",
            ),
            "costs-do-not-count": ("(given + cost, self._ties", "(given + 1, self._ties"),
        },
    ),
    **of(
        "tenantbase/process/worker.py",
        ["tests/process/test_telemetry.py::test_what_ends_a_worker_is_reported"],
        {"the-failure-of-a-worker-is-not-reported": ("        _logging_failure(),\n", "")},
    ),
    **of(
        "tenantbase/web/transport/turns.py",
        ["tests/web/transport/test_turns.py"],
        {
            "small-requests-wait-for-every-piece": (
                "if self._in_flight(None) <= self._streams.total():",
                "if True:",
            ),
            "the-event-loop-never-rests": (
                "rest = min(max(took, _LEAST_REST_SECONDS), _MOST_REST_SECONDS)",
                "rest = 0.0",
            ),
            "rests-are-shorter-than-turns": (
                "max(took, _LEAST_REST_SECONDS)",
                "_LEAST_REST_SECONDS",
            ),
            "small-requests-stop-streams": ("self._rests <= _MORE_RESTS and ", ""),
            "a-tenant-waits-for-its-own-requests": (
                "- self._streams.total() - own",
                "- self._streams.total()",
            ),
            "streams-wait-for-streams": (
                "self._in_flight(None) - self._streams.total() - own",
                "self._in_flight(None) - own",
            ),
            "threads-switch-slowly-beside-watchers": (" or self._taken > 0", ""),
            "small-pieces-take-whole-turns": (
                "self._taken += share\n        self",
                "self._taken = 1.0\n        self",
            ),
            "large-pieces-share-a-turn": (
                "self._waiting and self._taken + self._waiting.next()[1] <= 1:",
                "self._waiting and self._taken <= 1:",
            ),
        },
    ),
    **of(
        "tenantbase/switching.py",
        ["tests/web/transport/test_turns.py"],
        {
            "threads-go-on-switching-fast": (" if _hurried else _USUAL_SECONDS", ""),
            "one-answer-ends-the-haste-of-another": ("if _hurried else", "if fast else"),
        },
    ),
    **of(
        "tenantbase/fair_lock.py",
        ["tests/test_fair_lock.py"],
        {
            "a-cancelled-task-keeps-the-lock": ("if not turn.cancelled():", "if False:"),
            "a-lock-for-everyone": ("        self._held = True\n        try:", "        try:"),
            "lanes-do-not-take-turns": (
                "self._waiting.append(lane, turn)",
                'self._waiting.append("", turn)',
            ),
        },
    ),
    **of(
        "tenantbase/database/bulk_read.py",
        ["tests/test_bulk_read.py"],
        {
            "large-values-in-large-chunks": (
                "min(int(_CHUNK_BYTES / usual), CHUNK_KEYS)",
                "CHUNK_KEYS",
            ),
            "the-first-chunk-is-a-guess": ("else _FIRST_KEYS", "else CHUNK_KEYS"),
            "sizes-are-never-remembered": ("        sizes.note(tenant, usual)\n", ""),
        },
    ),
    **of(
        "tenantbase/coherence/writing.py",
        [
            "tests/coherence/test_policy.py::test_a_set_is_not_cached_when_columns_of_its_group_replace_it"
        ],
        {
            "columns-leave-older-states": (
                "                    last.pop(key, None)\n",
                "                    pass\n",
            )
        },
    ),
    **of(
        "tenantbase/coherence/writing.py",
        ["tests/coherence/test_policy.py::test_a_large_group_is_cached_some_entries_at_a_time"],
        {"large-groups-are-cached-at-once": ("        if large:\n", "        if False:\n")},
    ),
    **of(
        "tenantbase/web/handlers/bulk.py",
        ["tests/web/handlers/test_bulk.py"],
        {
            "bulk-writes-are-prepared-in-one-turn": ("if not count % _ADDED_AT_ONCE:", "if False:"),
            "bulk-results-are-rendered-in-one-turn": (
                "                if at:\n                    await",
                "                if False:\n                    await",
            ),
            "chunks-of-bulk-reads-take-no-turn": (
                "        if not self._first:\n",
                "        if False:\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/lifecycle.py",
        ["tests/web/transport/test_max_requests.py"],
        {"watches-count-as-requests": ("        self.limit += 1\n", "")},
    ),
    **of(
        "tenantbase/web/app.py",
        ["tests/web/transport/test_max_requests.py"],
        {
            "health-checks-are-refused": (" and not _is_probe(request):", ":"),
            "one-request-too-many": (
                "if lifecycle.active > lifecycle.limit and",
                "if lifecycle.active > lifecycle.limit + 1 and",
            ),
        },
    ),
    **of(
        "tenantbase/web/forwarding.py",
        ["tests/web/test_forwarding.py"],
        {
            "everybody-is-a-proxy": (
                "return address is not None and self._has(address)",
                "return address is not None",
            ),
            "the-left-most-address-is-the-client": ("in reversed(hops):", "in hops:"),
        },
    ),
}
