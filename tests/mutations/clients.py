"""Mistakes in the Python client."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of


def _tests(*names: str) -> list[str]:
    # All of them take minutes, because some restart servers or wait.
    return [f"tests/test_client.py::{name}" for name in names]


_ANSWERS: Final = _tests(
    "test_a_refusal_of_the_server_is_final",
    "test_a_failure_leaves_the_outcome_of_a_write_open",
    "test_answers_not_from_the_server",
    "test_a_problem_that_cannot_be_read",
    "test_refusals_say_why",
    "test_a_retry_waits_as_long_as_the_server_asks",
)
_SENDING: Final = _tests(
    "test_a_write_whose_answer_is_lost_is_not_sent_again",
    "test_attempts_are_limited",
    "test_a_retry_does_not_wait_beyond_the_timeout",
    "test_answers_not_from_the_server",
    "test_events_may_come_in_any_pieces",
)
_BLOCKS: Final = _tests(
    "test_blocks_of_events",
    "test_lines_of_events_may_end_as_on_windows",
    "test_events_may_come_in_any_pieces",
)
_WATCHING: Final = _tests(
    "test_a_watch_without_an_answer",
    "test_a_watch_of_a_foreign_server",
    "test_a_watch_that_is_refused",
    "test_a_watch_that_was_connected_retries_at_the_servers_pace",
    "test_watching_survives_lost_connections",
)
_LISTING: Final = _tests("test_ranges_and_folders", "test_many_entries")
_VALUES: Final = _tests(
    "test_exact_text",
    "test_invalid_json_is_not_sent",
    "test_raw_values",
    "test_a_time_that_is_not_finite_is_not_sent",
    "test_values_come_back_as_they_were",
)

MUTATIONS: Final = {
    **of(
        "tenantbase/client/retrying.py",
        _ANSWERS,
        {
            "a-write-is-sent-again-behind-a-gateway": (
                "return not writes and answer.status in _GATEWAY",
                "return answer.status in _GATEWAY",
            ),
            "whatever-is-refused-is-sent-again": (
                "return failure.problem.type in RETRYABLE",
                "return True",
            ),
            "what-the-server-asks-for-is-not-waited-for": (
                "        wait += _asked_seconds(answer)\n",
                "        pass\n",
            ),
            "a-failed-write-was-not-made": (
                "    if writes and answer.status >= 500:\n        return Outcome",
                "    if False:\n        return Outcome",
            ),
            "a-problem-that-cannot-be-read-is-raised": (
                "        except msgspec.MsgspecError:\n            pass",
                "        except ZeroDivisionError:\n            pass",
            ),
        },
    ),
    **of(
        "tenantbase/client/errors.py",
        _ANSWERS,
        {
            "a-full-disk-passes": (
                "ProblemType.STORE_UNAVAILABLE.uri, OVER_LIMIT}",
                "ProblemType.STORE_UNAVAILABLE.uri, OVER_LIMIT, ProblemType.DISK_FULL.uri}",
            ),
            "a-full-disk-leaves-it-open": (
                "RETRYABLE | {ProblemType.DISK_FULL.uri, ",
                "RETRYABLE | {",
            ),
            "any-404-is-no-such-key": (
                "    kind = _BY_TYPE.get(problem.type) or",
                "    kind = NoSuchKey if problem.status == 404 else",
            ),
            "a-failure-of-the-server-is-final": (
                "if writes and status >= 500 and problem.type not in _NOTHING_WRITTEN:",
                "if False:",
            ),
            "a-failure-of-a-read-leaves-it-open": (
                "if writes and status >= 500 and",
                "if status >= 500 and",
            ),
        },
    ),
    **of(
        "tenantbase/client/exchange.py",
        _SENDING,
        {
            "put-and-delete-are-sent-again": ("                middlewares=(_no_resend,),\n", ""),
            "one-attempt-too-many": (
                "Retries(self._settings.attempts, ",
                "Retries(self._settings.attempts + 1, ",
            ),
            "waiting-beyond-the-timeout": (" or now() + wait >= deadline:", ":"),
            "a-lost-write-failed": (
                "            if writes:\n                raise OutcomeUnknown(",
                "            if False:\n                raise OutcomeUnknown(",
            ),
            "redirects-are-followed": (
                "                allow_redirects=False,\n                middlewares",
                "                middlewares",
            ),
            "lines-are-cut-at-pieces": (
                "            unfinished = [others[-1]]",
                "            unfinished = []",
            ),
        },
    ),
    **of(
        "tenantbase/client/watching.py",
        _WATCHING,
        {
            "a-watch-forgets-its-slot": ("if block.id is not None:", "if False:"),
            "a-watch-keeps-its-own-pace": (
                "                        retry = block.retry\n",
                "                        pass\n",
            ),
            "a-watch-that-was-connected-gives-up": (
                "if not connected and retries.delay(",
                "if retries.delay(",
            ),
            "an-unanswered-watch-goes-on": (
                "if not connected and retries.delay(interrupted.failure, answer) is None:",
                "if False:",
            ),
            "events-of-other-kinds-are-changes": (
                "kind = _KINDS.get(block.event)",
                'kind = _KINDS.get(block.event, "set")',
            ),
        },
    ),
    **of(
        "tenantbase/client/sse.py",
        _BLOCKS,
        {
            "lines-of-data-run-together": ('f"{block.data}\\n{value}"', 'f"{block.data}{value}"'),
            "all-blanks-are-cut": ('value.removeprefix(" ")', "value.lstrip()"),
            "an-id-with-a-zero": (' and "\\0" not in value', ""),
            "carriage-returns-stay": ('.removesuffix("\\r")', ""),
            "a-block-is-used-again": (
                "block, self._block = self._block, Block()",
                "block = self._block",
            ),
            "a-pause-in-seconds": ("int(value) / 1000", "int(value)"),
        },
    ),
    **of(
        "tenantbase/client/listing.py",
        _LISTING,
        {
            "a-limit-for-each-page": (
                "limit = None if limit is None else limit - len(page.values)",
                "limit = limit",
            ),
            "the-first-page-is-all": ("        if page.cursor is None:", "        if True:"),
            "a-limit-of-zero-is-none": (
                "while limit is None or limit > 0:",
                "while limit is None or limit >= 0:",
            ),
        },
    ),
    **of(
        "tenantbase/client/wire.py",
        _VALUES,
        {
            "not-a-number-is-null": ("allow_nan=False", "allow_nan=True"),
            "base64-is-handed-on": (
                '        if self.encoding == "base64":\n',
                "        if False:\n",
            ),
            "texts-are-encoded-again": (
                "    if isinstance(put.value, msgspec.Raw):\n        return put\n",
                "",
            ),
        },
    ),
}
