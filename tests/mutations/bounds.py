"""Mistakes in what keeps clients from taking more than their share."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_FAST: Final = ["tests/web/fast_path/test_borrowing.py", "tests/web/fast_path/test_connection.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/web/fast_path/connection.py",
        _FAST,
        {
            "reading-is-never-resumed": (
                "            self._reading = True\n            self._transport.resume_reading()",
                "            pass",
            ),
            "answers-pile-up": (
                "            and self._writable\n            and not self._transport",
                "            and not self._transport",
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
                "elif not self._busy and self._writable:",
                "else:",
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
                "while small and len(group) < GROUP_WRITES:",
                "while small and len(group) <= GROUP_WRITES:",
            ),
            "large-ones-go-first": (
                "if self._large and (self._first <= 0 or not self._small):",
                "if self._large:",
            ),
            "large-ones-starve": (
                "if self._large and (self._first <= 0 or not self._small):",
                "if self._large and not self._small:",
            ),
            "a-write-taken-is-still-counted": ("        self._small_bytes -= held\n", ""),
            "a-large-write-taken-is-still-counted": (
                "            self._large_bytes -= waiting[0].bytes\n",
                "",
            ),
        },
    ),
}
