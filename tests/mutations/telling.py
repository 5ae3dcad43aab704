"""Mistakes in what is told of requests and of trouble: the log, request ids, reports and spans."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_LOGS: Final = ["tests/process/test_logs.py"]
_IDS: Final = ["tests/web/test_request_ids.py", "tests/test_request_context.py"]
_TELEMETRY: Final = ["tests/process/test_telemetry.py"]
_FAULTS: Final = ["tests/process/test_trouble_in_the_log.py"]

_UNEXPECTED: Final = [
    "tests/web/test_problems.py::test_an_unexpected_error_is_logged_with_the_id_in_its_answer"
]

MUTATIONS: Final = {
    **of(
        "tenantbase/web/fast_path/answering.py",
        _UNEXPECTED,
        {
            "a-failed-health-check-is-logged-without-its-id": (
                "state.result() if error is None else _failed(asker, error)",
                "state.result() if error is None else error_answer(error)",
            ),
        },
    ),
    **of(
        "tenantbase/web/server.py",
        _IDS,
        {
            "an-invalid-request-is-logged-with-another-id": (
                "            request[CONTEXT] = context_of(request.headers)\n",
                "            pass\n",
            ),
        },
    ),
    **of(
        "tenantbase/process/log_limiter.py",
        _LOGS,
        {
            "every-line-is-written": ("if count.written < burst:", "if True:"),
            "what-was-left-out-is-not-told": ("            yield _summary(count)\n", ""),
            "lasting-trouble-is-news-each-minute": (
                "            count.left_out = 0\n",
                "            count.left_out = count.written = 0\n",
            ),
            "trouble-is-told-once-for-all": (
                "                del self._counts[kind]",
                "                pass",
            ),
        },
    ),
    **of(
        "tenantbase/process/logs.py",
        _LOGS,
        {
            "keys-are-always-shown": ("if self._keys and isinstance", "if isinstance"),
            "keys-are-never-shown": ("if self._keys and isinstance", "if False and isinstance"),
            "text-is-not-escaped": ("{escaped(message)}{fields}", "{message}{fields}"),
            "a-field-replaces-the-message": (
                "document.setdefault(name, value)",
                "document[name] = value",
            ),
            "the-loop-quotes-arguments": ('.partition("(")[0]', ""),
        },
    ),
    **of(
        "tenantbase/process/tracebacks.py",
        _LOGS,
        {
            "no-text-is-withheld": (
                "if isinstance(error, _HARMLESS) and not isinstance(error, _DECODING) and str(error):",
                "if str(error):",
            ),
        },
    ),
    **of(
        "tenantbase/request_context.py",
        _IDS,
        {
            "two-ids-are-one": ("ids[0] if len(ids) == 1 and is_safe", "ids[0] if ids and is_safe"),
            "any-id-is-safe": ("return _ID.fullmatch(text) is not None", "return True"),
            "an-id-changes": ("        if self._id is None:\n", "        if True:\n"),
            "version-0-may-be-longer": (
                'match is None or (match[1] == "00" and match[5] is not None)',
                "match is None",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/connection.py",
        ["tests/web/test_request_ids.py"],
        {
            "errors-have-no-id": (
                "if status >= 400 and context is None:",
                "if False:",
            ),
            "an-id-is-never-returned": ("status >= 400 or context.echoed", "status >= 400"),
        },
    ),
    **of(
        "tenantbase/interfaces/sentry/reporter.py",
        _TELEMETRY,
        {
            "reports-are-not-scrubbed": ("            before_send=self._scrub,\n", ""),
        },
    ),
    **of(
        "tenantbase/coherence/batcher.py",
        ["tests/coherence/test_batcher.py"],
        {
            "a-batch-works-for-its-first-caller": (
                "create_task(work, context=Context())",
                "create_task(work)",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/writing.py",
        _FAULTS,
        {"a-commit-is-not-timed": ("        note_write(began, result.waited)\n", "")},
    ),
    **of(
        "tenantbase/coherence/reading.py",
        _FAULTS,
        {
            "memcached-is-not-timed": (
                "            note(Stage.MEMCACHED, began)\n\n",
                "            pass\n\n",
            )
        },
    ),
}
