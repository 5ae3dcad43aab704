"""Mistakes in the change feed."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_TESTS: Final = [
    "tests/changes/test_subscription.py",
    "tests/changes/test_feed_log.py",
    "tests/changes/test_feed.py",
]

_ENDS: Final = ["tests/web/handlers/test_watch.py::test_a_watch_is_over_when_its_client_closes"]

MUTATIONS: Final = {
    **of(
        "tenantbase/web/transport/connections.py",
        [
            *_ENDS,
            "tests/web/transport/test_tls.py::test_watch_ends_with_the_close_notify_of_its_client",
        ],
        {
            "a-watch-outlives-a-half-close": (
                "        self._half_closed.add(transport)\n        self._end(transport)\n",
                "        self._half_closed.add(transport)\n",
            ),
            "a-watch-outlives-its-connection": (
                "        self._half_closed.discard(transport)\n        self._end(transport)\n",
                "        self._half_closed.discard(transport)\n",
            ),
            "a-watch-of-a-half-closed-client-begins": (
                "            if transport in self._half_closed or transport not in self._open:\n",
                "            if transport not in self._open:\n",
            ),
            "a-half-close-is-remembered-for-ever": (
                "        self._half_closed.discard(transport)\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/changes/feed.py",
        _TESTS,
        {
            "the-counter-is-read-after-the-version": (
                "        newest = await self._change_log.last_version()\n        # No",
                "        newest = await self._change_log.last_version()\n"
                "        commits = self._change_log.commits\n        # No",
            ),
            "uncounted-commits-are-never-seen": (
                " or loop.time() - looked > _READ_ANYWAY_SECONDS",
                "",
            ),
            "a-failed-poll-ends-the-feed": (
                "            try:\n                await self._change_log.poll()\n",
                "            await self._change_log.poll()\n            try:\n",
            ),
            "the-log-is-read-all-the-time": (
                "if more or commits != self._commits or",
                "if True or",
            ),
            "the-rest-of-the-log-waits": ("return len(events) == BATCH", "return False"),
            "trouble-is-told-once-for-ever": (
                "                    self._outage.over()\n",
                "",
            ),
            "the-feed-stays-behind-a-trimmed-log": (
                "            self.position = await self._change_log.last_version()\n            for",
                "            for",
            ),
            "a-trimmed-log-goes-unnoticed": (
                "                subscription.fall_behind()\n",
                "                pass\n",
            ),
            "a-prefix-is-counted-for-each-watcher": (
                "        if not watchers:\n            self._lengths[",
                "        if True:\n            self._lengths[",
            ),
            "the-length-of-a-prefix-is-never-forgotten": (
                "            self._lengths -= Counter([len(subscription.prefix)])\n",
                "",
            ),
            "an-unwatched-prefix-stays": (
                "            del self._by_prefix[subscription.prefix]\n",
                "",
            ),
            "a-key-as-long-as-its-prefix": (
                "if length <= len(event.key) and",
                "if length < len(event.key) and",
            ),
            "resets-go-to-everyone": (
                "if concerns(event, prefix)",
                "if True",
            ),
            "all-watchers-send-at-once": (
                "enumerate(reached):\n            if not count % _WOKEN_AT_ONCE:",
                "enumerate(reached):\n            if False:",
            ),
            "all-heartbeats-at-once": ("if not beaten % _WOKEN_AT_ONCE:", "if False:"),
            "catching-up-without-a-pace": (
                "lambda: self.pace(prefix)",
                "lambda: _next_turn(prefix)",
            ),
            "one-heartbeat-and-no-more": (
                "            self._due[subscription] = now + self._heartbeat\n",
                "            self._due[subscription] = now + 3600\n",
            ),
            "heartbeats-for-the-first-one-alone": (
                "            self._due.move_to_end(subscription)\n",
                "",
            ),
            "a-feed-begins-again-where-it-ended": (
                "            self.position, self._commits = newest, commits\n",
                "            self._commits = commits\n",
            ),
        },
    ),
    **of(
        "tenantbase/changes/subscription.py",
        _TESTS,
        {
            "catching-up-ends-at-a-batch-of-others": (
                "self.position = events[-1].version if events else reached",
                "mine = [each for each in events if self.concerns(each)]\n"
                "        self.position = mine[-1].version if mine else reached",
            ),
            "catching-up-repeats-the-last-one": (
                "self.position = events[-1].version if events else reached",
                "self.position = events[-1].version - 1 if len(events) > 1 else reached",
            ),
            "catching-up-stops-one-too-early": (
                "if self.position >= reached:",
                "if self.position >= reached - 1:",
            ),
            "events-are-delivered-twice": (
                "if self._behind or events[-1].version <= self.position:",
                "if self._behind:",
            ),
            "the-beginning-of-a-list-is-delivered-twice": (
                "if events[0].version <= self.position:",
                "if False:",
            ),
            "events-go-into-the-queue-of-who-reads-the-log": (
                "if self._behind or events[-1].version <= self.position:",
                "if events[-1].version <= self.position:",
            ),
            "a-queue-without-bound": (
                "if self._queued + len(events) > _QUEUE:",
                "if False:",
            ),
            "what-was-taken-fills-the-queue": (
                "                self._queued -= len(events)\n",
                "",
            ),
            "what-was-queued-stays-when-it-falls-behind": (
                "            self._clear()\n            self._behind",
                "            self._behind",
            ),
            "who-falls-behind-sleeps-on": (
                "            self._behind = True\n            self._wake.set()",
                "            self._behind = True",
            ),
            "an-event-wakes-no-watcher": (
                '"""Have the watcher take what is queued."""\n        self._wake.set()',
                '"""Have the watcher take what is queued."""',
            ),
            "the-end-wakes-no-watcher": (
                "        self._ended = True\n        self._wake.set()",
                "        self._ended = True",
            ),
            "who-takes-nothing-stays": (
                "        if self._beat:\n            self._on_drop()\n            self.end()\n",
                "",
            ),
            "who-takes-something-is-dropped": (
                "        self._beat = False  # asking for more means that the last one was taken\n",
                "",
            ),
            "a-heartbeat-moves-backwards": (
                "self.position = max(self.position, self._feed_position())",
                "self.position = 0",
            ),
            "a-heartbeat-moves-nothing": (
                "                self.position = max(self.position, self._feed_position())\n",
                "",
            ),
            "the-future-is-no-reset": ("if after > self.position:", "if False:"),
            "the-newest-version-is-a-reset": (
                "if after > self.position:",
                "if after >= self.position:",
            ),
            "a-reset-of-what-lies-above": (
                "return event.key.startswith(prefix) or prefix.startswith(event.key)",
                "return event.key.startswith(prefix)",
            ),
            "the-end-comes-before-what-is-queued": (
                "            if self._queue:\n                events",
                "            if self._queue and not self._ended:\n                events",
            ),
            "a-reset-leaves-the-slot-as-it-was": (
                "            self.position = await self._change_log.last_version()\n"
                "            return EventList",
                "            return EventList",
            ),
            "a-long-way-through-others-events-is-taken-for-sleep": (
                "                self._beat = False  # no event for it there, but the watcher is not stuck\n",
                "",
            ),
        },
    ),
}
