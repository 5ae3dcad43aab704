"""Mistakes in workers, background tasks, imports and our own files."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_IMPORTS: Final = ["tests/cli/test_import_model.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/background.py",
        [
            "tests/test_background.py::test_failures_are_logged_and_restarted_with_back_off",
            "tests/test_background.py::test_cancelling_what_it_awaits_does_not_end_it",
            "tests/test_background.py::test_it_can_be_cancelled_between_two_runs",
        ],
        {
            "the-pause-before-a-restart-stays": ("min(2 * pause, _LONGEST_PAUSE_SECONDS)", "pause"),
            "an-order-to-end-is-a-failure": ("task is None or task.cancelling()", "False"),
            "any-cancellation-is-an-order": ("task is None or task.cancelling()", "True"),
        },
    ),
    **of(
        "tenantbase/process/sweeper.py",
        ["tests/process/test_sweeper.py"],
        {
            "trouble-with-sweeping-is-told-once-for-ever": ("            outage.over()\n", ""),
            "the-rest-waits-a-second": (
                "_BATCH_PAUSE_SECONDS if more else",
                "_INTERVAL_SECONDS if more else",
            ),
        },
    ),
    **of(
        "tenantbase/database/import_batch.py",
        ["tests/cli/test_transfer.py"],
        {
            "the-dead-are-imported": (
                "if each.expires_at is None or each.expires_at > now]",
                "]",
            ),
            "an-import-with-conditions": (
                "if any([each.if_absent or each.if_version is not None for each in given]):",
                "if any([each.if_absent for each in given]):",
            ),
        },
    ),
    **of(
        "tenantbase/cli/transfer.py",
        ["tests/cli/test_transfer.py"],
        {
            "a-bad-first-line-of-a-batch-ends-an-import": (
                "        if batch.refused is not None:\n            raise batch.refused\n"
                "        if not batch.lines:\n            return\n",
                "        if not batch.lines:\n            return\n"
                "        if batch.refused is not None:\n            raise batch.refused\n",
            ),
            "any-line-may-have-a-mark": ("if lines and not done:", "if lines:"),
            "the-line-is-counted-in-its-batch": (
                "_stopped(done + at + 1,",
                "_stopped(at + 1,",
            ),
        },
    ),
    **of(
        "tenantbase/database/validation.py",
        _IMPORTS,
        {
            "columns-hold-a-key-twice": ("    if len(keys) == len(given):\n", "    if True:\n"),
            "plain-values-have-no-limit": (
                '    check_size(max(values, key=len, default=b""), max_value_bytes)\n',
                "",
            ),
            "plain-values-have-any-depth": ("    check_depths(values)\n", ""),
            "plain-keys-are-not-checked": (
                'check_keys([each.key for each in given], "key")',
                "[each.key for each in given]",
            ),
        },
    ),
    **of(
        "tenantbase/json_requests.py",
        _IMPORTS,
        {
            "an-encoded-value-is-plain": (
                "self.encoding is None\n            and",
                "True\n            and",
            ),
            "members-in-order-may-repeat": ("%b\\s*+)?' %", "%b\\s*+)*' %"),
        },
    ),
    **of(
        "tenantbase/json_text.py",
        _IMPORTS,
        {
            "lines-need-not-be-utf-8": ('check_utf8(b"\\n".join(texts), None)  #', "#"),
            "lines-may-repeat-fields": (
                "        for each, text in zip(given, texts, strict=True):\n"
                "            self.check_once(each, text)\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/named.py",
        ["tests/interfaces/sqlite/test_usage.py", "tests/interfaces/test_store.py"],
        {
            "a-key-is-created-twice": ("return len(keys) == len(transaction)", "return True"),
            "what-exists-is-created-again": ("if rows.all_absent and", "if"),
        },
    ),
    **of(
        "tenantbase/owned_files.py",
        [
            "tests/interfaces/sqlite/test_foreign.py::test_an_empty_file_stays",
            "tests/interfaces/sqlite/test_foreign.py::test_foreign_files_are_named_and_untouched",
            "tests/interfaces/sqlite/test_foreign.py::test_files_made_by_root_belong_to_the_databases_owner",
        ],
        {
            "a-file-of-others-is-removed": ("    if is_marked(path):\n", "    if True:\n"),
            "any-mark-is-ours": (" and os.pread(fd, MARK_BYTES, 0) in _MARKS", ""),
            "what-root-makes-is-roots": (
                "            make_alike(fd, like)\n",
                "            pass\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/reserve.py",
        ["tests/interfaces/sqlite/test_reserve.py"],
        {
            "the-reserve-takes-others-files": (
                "elif os.pread(fd, MARK_BYTES, 0) not in (RESERVE_MARK, RESERVE_IN_EMPTY_MARK):",
                "elif False:",
            ),
            "the-reserve-is-not-given-up": (
                "                os.ftruncate(fd, MARK_BYTES)\n",
                "                pass\n",
            ),
            "the-reserve-stays": (
                "                    os.unlink(self._path)\n",
                "                    pass\n",
            ),
        },
    ),
    **of(
        "tenantbase/outage.py",
        ["tests/test_outage.py"],
        {
            "an-outage-is-told-each-time": ("if self._times > 1:", "if False:"),
            "an-outage-is-told-once-for-ever": (
                "times, self._times = self._times, 0",
                "times = self._times",
            ),
            "an-outage-ends-when-it-was-last-met": (
                "monotonic() if self._quiet_seconds is None else self._last",
                "self._last",
            ),
            "an-outage-ends-while-it-is-met": (
                "self._last + self._quiet",
                "self._began + self._quiet",
            ),
        },
    ),
    **of(
        "tenantbase/troubles.py",
        ["tests/test_troubles.py"],
        {
            "trouble-is-told-each-time-it-is-met": (
                "if trouble not in self._last_met:",
                "if True:",
            ),
            "trouble-lasts-from-its-beginning": (
                "        self._last_met[trouble] = self._clock()\n",
                "        self._last_met.setdefault(trouble, self._clock())\n",
            ),
            "trouble-that-ends-by-a-sign-ends-at-once": ('float("inf")', "0.0"),
        },
    ),
    **of(
        "tenantbase/process/supervisor.py",
        ["tests/process/test_notifications.py"],
        {
            "alive-although-all-workers-hang": (
                "worker.ready and worker.silent < half for",
                "worker.ready for",
            ),
            "a-reload-never-ends": (
                "                os.kill(worker.pid, signal.SIGHUP)\n        self._notifier.ready()\n",
                "                os.kill(worker.pid, signal.SIGHUP)\n",
            ),
        },
    ),
    **of(
        "tenantbase/process/supervisor.py",
        ["tests/process/test_telemetry.py"],
        {
            "each-death-is-reported": (
                'ended.report if self._pause == _FIRST_PAUSE_SECONDS else ""',
                "ended.report",
            ),
            "a-failure-to-start-is-not-reported": (
                "            self._reports.report(log.name, ended.report)\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/process/child.py",
        ["tests/process/test_telemetry.py"],
        {
            "what-a-worker-reported-is-reported-again": (
                ' if code != _FAILURE_STATUS else ""',
                "",
            ),
            "the-reason-is-reported": (
                '"a worker cannot serve; the log says why"',
                "worker.failure.decode()",
            ),
        },
    ),
    **of(
        "tenantbase/process/notifier.py",
        ["tests/process/test_notifications.py"],
        {"an-abstract-address-is-a-path": ('address.startswith("@")', "False")},
    ),
    **of(
        "tenantbase/process/supervisor.py",
        [
            "tests/process/test_supervisor.py::test_a_signal_right_after_the_fork_is_the_workers_own",
            "tests/process/test_supervisor.py::test_the_pause_before_a_replacement_grows",
            "tests/process/test_watchdog.py::test_workers_that_do_not_end_in_time_are_killed",
        ],
        {
            "signals-are-not-blocked-around-the-fork": (
                "        signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)\n",
                "",
            ),
            "overdue-workers-are-not-killed": (
                "            self._kill_all()\n            self._deadline += _SHUTDOWN_GRACE_SECONDS",
                "            self._deadline += _SHUTDOWN_GRACE_SECONDS",
            ),
            "the-pause-before-a-replacement-stays": (
                "min(self._pause * 2, _LONGEST_PAUSE_SECONDS)",
                "self._pause",
            ),
        },
    ),
}
