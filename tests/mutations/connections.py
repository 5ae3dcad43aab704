"""Mistakes in accepting, reading and closing connections."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/web/fast_path/parser.py",
        ["tests/web/fast_path/test_plain_heads.py", "tests/web/fast_path/test_parser.py"],
        {
            "an-expectation-is-harmless": ('        "expect",\n', ""),
            "a-pipeline-is-remembered-as-its-last-request": (
                "alone = not start and ",
                "alone = ",
            ),
            "a-request-is-remembered-with-its-id": ("alone and context is None", "alone"),
            "requests-are-remembered-without-end": (
                "if len(self._requests) >= _CACHED_REQUESTS:",
                "if False:",
            ),
            "long-requests-are-remembered": (" and end <= _CACHED_REQUEST_BYTES", ""),
            "a-get-has-no-body": ("            if length:\n", "            if False:\n"),
            "an-empty-body-is-a-set": (
                "not 0 < length <= MAX_BODY_BYTES",
                "not 0 <= length <= MAX_BODY_BYTES",
            ),
            "two-hosts-are-one": ("len(set(headers)) != len(weighed)", "False"),
            "no-host-is-needed": ('"host" not in headers', "False"),
            "half-an-escape-is-a-key": ("_HALF_ESCAPE.search(escaped) or ", ""),
            "a-key-holds-nul": (' or b"\\0" in raw', ""),
            "a-plain-key-of-any-length": ("elif len(line[number]) > MAX_KEY_BYTES", "elif False"),
            "an-escaped-key-of-any-length": ("or len(raw) > MAX_KEY_BYTES ", ""),
            "a-head-without-fields-is-waited-for": ("fields_at - 2, start", "fields_at, start"),
            "bare-line-feeds-are-waited-for": (
                'data.count(b"\\n", start) != data.count(b"\\r\\n", start)',
                "False",
            ),
            "an-endless-head-is-waited-for": (" or len(data) - start >= MAX_HEAD_BYTES", ""),
            "a-proxys-connection-field-is-harmless": (
                '("connection", "proxy-connection")\n',
                '("connection",)\n',
            ),
            "the-guard-is-not-asked": (
                "None if verdict is None else (int(length), verdict)",
                "(int(length), verdict)",
            ),
            "a-verdict-for-all-fields": ("key = tuple(weighed)", "key = tuple(weighed[:1])"),
        },
    ),
    **of(
        "tenantbase/web/fast_path/borrowed.py",
        ["tests/web/fast_path/test_loans.py", "tests/web/fast_path/test_borrowing.py"],
        {
            "a-borrower-closes-the-connection": (
                "self._lender.given_up(self)",
                "self._transport.close()",
            ),
            "a-borrower-cannot-pause": ("self._transport.pause_reading()", "pass"),
        },
    ),
    **of(
        "tenantbase/web/fast_path/lending.py",
        ["tests/web/fast_path/test_loans.py"],
        {
            "the-rest-of-a-body-is-a-request": (
                "self._answered and not self.owed",
                "self._answered",
            ),
        },
    ),
    **of(
        "tenantbase/web/transport/connections.py",
        [
            "tests/web/transport/test_ends.py",
            "tests/web/transport/test_limits.py::test_connections_are_counted_once_on_either_path",
        ],
        {
            "an-idle-client-is-cut": ("if not transport.get_write_buffer_size():", "if False:"),
            "an-ended-connection-counts": ("self._open.discard(transport)", "pass"),
            "a-connection-counts-twice": (
                "            transport.set_write_buffer_limits(HIGH_WATER_BYTES)\n"
                "            self.expected = max(0, self.expected - 1)",
                "            transport.set_write_buffer_limits(HIGH_WATER_BYTES)",
            ),
        },
    ),
    **of(
        "tenantbase/web/transport/connections.py",
        [
            "tests/web/transport/test_limits.py::test_a_client_that_reads_nothing_is_cut_off_and_logged",
            "tests/web/transport/test_limits.py::test_a_slow_reader_is_not_cut_off",
        ],
        {
            "who-takes-nothing-is-not-cut": ("elif now - since >= seconds:", "elif False:"),
        },
    ),
    **of(
        "tenantbase/web/transport/progress.py",
        [
            "tests/web/transport/test_limits.py::test_a_slow_reader_is_not_cut_off",
        ],
        {"the-kernel-is-not-asked": ("return int(acknowledged)", "pass")},
    ),
    **of(
        "tenantbase/web/transport/unread.py",
        [
            "tests/web/transport/test_unread.py",
        ],
        {
            "unread-answers-have-no-bound": (
                "            return not self.used",
                "            return True",
            ),
            "slow-readers-are-cut": ("if mark != self.mark:", "if False:"),
        },
    ),
    **of(
        "tenantbase/web/transport/tenant_use.py",
        [
            "tests/web/transport/test_max_requests.py::test_one_tenant_does_not_take_all_places",
            "tests/web/transport/test_unread.py::"
            "test_one_tenants_unread_answers_leave_room_for_another",
        ],
        {
            "one-tenant-takes-everything": ("<= _TIMES_FREE * free", "<= 300 * free"),
        },
    ),
    **of(
        "tenantbase/web/transport/tenant_use.py",
        ["tests/web/transport/test_max_requests.py::test_one_tenant_does_not_take_all_places"],
        {
            "a-tenants-requests-never-end": ("        use.requests -= 1\n", "        pass\n"),
        },
    ),
    **of(
        "tenantbase/web/transport/tenant_use.py",
        ["tests/web/transport/test_window.py"],
        {
            "what-waits-for-the-window-waits-for-ever": (
                "            asyncio.get_running_loop().call_soon(self._resume, use)\n",
                "            pass\n",
            ),
            "a-tenant-is-never-beside-others": (
                "            if self._last is not None:\n",
                "            if False:\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/fast_path/connection.py",
        ["tests/web/transport/test_window.py"],
        {
            "a-tenant-has-no-window": ("or use.begun < WINDOW or", "or True or"),
            "a-lone-tenant-has-a-window": (" or not lifecycle.tenants.shared", ""),
            "health-waits-for-the-window": (" or request.route is HEALTH", ""),
            "any-number-waits-for-the-window": (
                "lifecycle.active + len(use.waiting) >= lifecycle.limit or",
                "",
            ),
            "what-waits-is-forgotten-at-the-end": (
                "if self._waiting or waiting and",
                "if waiting and",
            ),
        },
    ),
    **of(
        "tenantbase/web/transport/connections.py",
        ["tests/process/test_shutdown.py::test_pipelined_requests_do_not_destroy_an_answer"],
        {"no-connection-lingers": ("if error is None:", "if False:")},
    ),
    **of(
        "tenantbase/web/transport/acceptor.py",
        [
            "tests/web/transport/test_ends.py",
            "tests/web/transport/test_limits.py::test_one_connection_too_many_is_refused_at_once",
        ],
        {
            "one-connection-more": (
                "len(self._connections) >= self._limit",
                "len(self._connections) > self._limit",
            ),
            "a-refusal-is-destroyed": (
                "self._connections.lingering.add(accepted, then)",
                "accepted.close()",
            ),
        },
    ),
    **of(
        "tenantbase/web/transport/acceptor.py",
        ["tests/process/test_limits.py::test_without_descriptors_it_refuses_serves_and_recovers"],
        {
            "accepting-spins": (
                "        self._ignore()\n        if error.errno",
                "        if error.errno",
            ),
            "the-spare-descriptor-is-used-once": (
                "            self._reserve = _any_descriptor()\n",
                "            pass\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/transport/acceptor.py",
        ["tests/process/test_connection_limit.py"],
        {"more-connections-than-descriptors": ("min(limit, available)", "limit")},
    ),
    **of(
        "tenantbase/web/transport/draining.py",
        [
            "tests/web/transport/test_draining.py",
            "tests/process/test_shutdown.py::test_the_port_stays_open_for_the_drain_delay",
            "tests/process/test_shutdown.py::test_every_request_is_answered",
        ],
        {
            "the-port-is-closed-at-once": ("if settings.drain_delay:", "if False:"),
            "closed-at-the-first-quiet-moment": (
                "elif now - since >= _QUIET_SECONDS:",
                "else:",
            ),
            "no-moment-for-the-last": ("max(deadline, now + _LEAST_SECONDS)", "deadline"),
        },
    ),
    **of(
        "tenantbase/web/transport/budget.py",
        [
            "tests/web/transport/test_budget.py",
            "tests/web/transport/test_giving_way.py",
            "tests/web/transport/test_limits.py::test_held_back_bodies_stay_within_the_budget",
            "tests/web/transport/test_limits.py::test_a_queued_request_holds_its_body_and_does_not_give_way",
        ],
        {
            "what-has-arrived-gives-way": ("        self._budget._settle(self)\n", ""),
            "nothing-is-reserved-for-small-bodies": ("self._limit - self._reserved", "self._limit"),
            "stalled-bodies-refuse-others": (
                "self._limit_for(count) - self._used + self._reclaimable()",
                "self._limit_for(count) - self._used",
            ),
            "one-that-goes-on-is-the-oldest": (
                "        self._arriving.pop(holding, None)  #",
                "        #",
            ),
            "giving-way-is-a-timeout": ("self.evicted = True", "pass"),
        },
    ),
    **of(
        "tenantbase/web/semantics/expectations.py",
        [
            "tests/web/semantics/test_expectations.py",
            "tests/web/transport/test_limits.py::test_no_100_continue_for_a_request_refused_by_its_head",
            "tests/web/transport/test_limits.py::test_an_unknown_expectation",
            "tests/web/transport/test_limits.py::test_a_body_sent_without_waiting_is_accepted",
        ],
        {
            "a-continue-in-capitals-is-unknown": (
                "expected.lower() != _CONTINUE",
                "expected != _CONTINUE",
            ),
            "invited-twice": ("        and _INVITED not in request\n", ""),
            "an-old-client-is-invited": (
                "        and request.version >= HttpVersion11\n",
                "",
            ),
            "an-old-client-may-not-expect": (
                "expected and request.version >= HttpVersion11 and",
                "expected and",
            ),
            "an-invitation-is-the-answer": (
                "        request.writer.output_size = 0",
                "        pass",
            ),
            "a-missing-route-has-no-guard": ("reversed(app.middlewares)", "()"),
        },
    ),
}
