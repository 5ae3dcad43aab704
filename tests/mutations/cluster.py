"""Mistakes in the store of several machines."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of


def _test(name: str) -> list[str]:
    # Most of them start two servers, so a whole file takes minutes.
    return [f"tests/interfaces/postgres/{name}"]


_WRITING: Final = _test("test_writing.py")
_DEPOSED: Final = _test("test_confirmation.py::test_a_deposed_primary_confirms_nothing")
_PROMOTED: Final = _test(
    "test_confirmation.py::test_a_promoted_standby_goes_on_where_the_primary_was"
)
_UNHEARD: Final = _test(
    "test_confirmation.py::test_a_cancelled_wait_for_the_standby_acknowledges_nothing"
)
_EARLY_PROMOTION: Final = _test(
    "test_joining.py::test_servers_may_be_promoted_before_the_first_write"
)
_SHARED: Final = ["tests/process/test_shared_database.py"]
_CONNECTION: Final = _test("test_connection.py")
_TROUBLES: Final = _test("test_troubles.py")
_PREFIXES: Final = _test("test_prefixes.py")
_POOLS: Final = _test("test_pools.py")
_MIGRATE: Final = ["tests/cli/test_migrate_failover.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/interfaces/postgres/confirmation.py",
        _DEPOSED,
        {
            "a-promoted-standby-confirms": (
                "if not in_recovery or epoch != session.epoch:",
                "if epoch != session.epoch:",
            ),
            "a-standby-without-a-primary-is-enough": (
                "_COMMITTING: Final = \"pg_logical_emit_message(true, 'tenantbase', '')::text\"",
                "_COMMITTING: Final = \"''\"",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/confirmation.py",
        _test("test_confirmation.py::test_a_node_stops_when_synchronous_replication_is_turned_off"),
        {
            "several-standbys-may-confirm": (
                "candidate(names) != session.standby",
                "not names",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/connection.py",
        _UNHEARD,
        {
            "a-warning-with-the-answer-is-not-heard": (
                "if message.severity_en in _LOSS and",
                "if False and",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/connection.py",
        _test("test_connection.py::test_a_statement_after_a_fatal_error_loses_the_session"),
        {
            "an-error-of-the-driver's-own-is-not-expected": (
                "except Exception as error:",
                "except OSError as error:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/confirmation.py",
        _test("test_connection.py::test_a_question_that_both_servers_leave_unanswered_fails_once"),
        {"a-second-error-is-never-retrieved": ("witnessing.exception()", "pass")},
    ),
    **of(
        "tenantbase/interfaces/postgres/connection.py",
        _UNHEARD,
        {
            "a-warning-is-counted-as-a-broken-connection": (
                "self.on_end(why, loss)",
                "self.on_end(why, SessionLoss.CONNECTION)",
            )
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/functions.py",
        _WRITING,
        {
            "the-wait-for-the-lock-is-not-measured": (
                "waited := extract(epoch FROM clock_timestamp() - began);",
                "waited := 0;",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/state.py",
        _test("test_troubles.py::test_a_standby_that_is_not_connected_is_told"),
        {
            "any-server-is-the-standby": (
                "sender.pid IS NOT NULL,",
                "$1 <> '',",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/store.py",
        _test("test_confirmation.py::test_a_cancelled_caller_cancels_no_commit"),
        {
            "a-cancelled-caller-cancels-its-commit": (
                "made = await asyncio.shield(self._start(self._committer.commit(group, name_hash)))",
                "made = await self._committer.commit(group, name_hash)",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/store.py",
        _PROMOTED,
        {
            "positions-of-a-lost-history-are-taken": (
                "if not (within and first <= after <= head.position) or _lost(session, after):",
                "if not (within and first <= after <= head.position):",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/joining.py",
        _PROMOTED,
        {
            "a-new-term-goes-on-at-the-next-position": (
                "start = position if first else begins_after(Term(epoch, position))",
                "start = position",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/joining.py",
        _EARLY_PROMOTION,
        {
            "where-terms-begin-is-their-order": (
                "FROM terms ORDER BY number DESC",
                "FROM terms ORDER BY inherited DESC, number",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/joining.py",
        _test(
            "test_joining.py::test_two_servers_promoted_from_one_history_give_different_positions"
        ),
        {
            "all-terms-begin-at-one-distance": (
                'int.from_bytes(term.epoch[:2], "big")',
                "0",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/survey.py",
        _test("test_joining.py::test_keys_need_an_encoding_that_has_all_characters"),
        {"any-encoding-will-do": ('if server.encoding != "UTF8":', "if False:")},
    ),
    **of(
        "tenantbase/interfaces/postgres/schema.py",
        _EARLY_PROMOTION,
        {
            "no-two-terms-begin-at-one-position": (
                "inherited bigint NOT NULL,",
                "inherited bigint NOT NULL UNIQUE,",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/settling.py",
        ["tests/cluster/test_planted.py::test_without_the_bug_nothing_is_found[token]"],
        {
            "a-group-told-as-not-made-may-come-late": (
                "            await connection.fetch(_MARK, token)\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/settling.py",
        [
            "tests/cluster/test_planted.py::"
            "test_without_the_bug_nothing_is_found[outcome-confirmed]"
        ],
        {
            "an-outcome-that-a-failover-may-lose": (
                "_, ((made, position),) = await self._confirmer.ask(",
                "_, ((made, position),) = await self._confirmer.look(",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/sessions.py",
        _WRITING,
        {
            "a-busy-connection-costs-the-session": (
                ".take(deadline - answer, lane)",
                ".take(None, lane)",
            )
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/store.py",
        _WRITING,
        {
            "a-question-ends-with-its-session": (
                "_use(_askers, ask, answer=self._timeout)",
                "_use(_askers, ask, seconds=self._timeout)",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/alone.py",
        _test("test_plans.py"),
        {"marks-are-looked-for-in-the-whole-table": ("WHERE number = 0 AND NOT", "WHERE NOT")},
    ),
    **of(
        "tenantbase/interfaces/postgres/functions.py",
        _WRITING,
        {
            "versions-that-were-seen-are-not-checked": (
                "WHERE seen.version <> coalesce(entries.version, 0)",
                "WHERE false",
            ),
            "the-usage-that-was-seen-is-not-checked": (
                "WHERE (seen.entries, seen.bytes) <> (tenants.entries, tenants.bytes)",
                "WHERE false",
            ),
            "an-entry-may-expire-before-the-lock": ("OR now >= alive_until", ""),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/settling.py",
        _WRITING,
        {
            "a-mark-counts-as-a-commit": (
                "            return made, position\n",
                "            return True, position\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/writing.py",
        _WRITING,
        {
            "what-is-in-doubt-is-tried-again": (
                "return await self._settler.settle_doubt(token, doubt, deadline), session.epoch",
                "continue",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/plan.py",
        _test("test_writing.py::test_versions_are_those_that_the_group_got"),
        {
            "versions-are-those-of-the-plan": ("more = base - self.base", "more = 0"),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/survey.py",
        _TROUBLES,
        {"a-standby-that-hangs-is-not-named": ("    if waits:\n", "    if False:\n")},
    ),
    **of(
        "tenantbase/interfaces/postgres/sessions.py",
        _TROUBLES,
        {
            "a-standby-that-confirms-again-stays-a-trouble": (
                "self._troubles.over(Trouble.NOT_CONFIRMED)",
                "pass",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/connection.py",
        _TROUBLES,
        {
            "a-damaged-page-ends-the-session": (
                " and message.sqlstate[:2] != DAMAGED_CLASS",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/writing.py",
        _TROUBLES,
        {"a-damaged-row-fails-its-group": ("if len(transactions) == 1:", "if True:")},
    ),
    **of(
        "tenantbase/interfaces/postgres/store.py",
        _TROUBLES,
        {"a-damaged-row-fails-its-batch": ("return await self._use(pool_of, apart)", "raise")},
    ),
    **of(
        "tenantbase/interfaces/postgres/joining.py",
        _TROUBLES,
        {"a-read-only-primary-is-not-joined": ('transaction("READ WRITE")', "transaction()")},
    ),
    **of(
        "tenantbase/interfaces/postgres/joining.py",
        _PREFIXES,
        {
            "a-statement-that-was-given-up-keeps-the-lock": (
                '"client_connection_check_interval": _milliseconds(1.0),',
                "",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/prefixes.py",
        _PREFIXES,
        {
            "what-changed-while-it-was-counted-is-not": (
                "at > (covered or 0) and kind",
                "False and kind",
            ),
            "what-expired-while-it-was-counted-is-alive": (
                "expired_then + expired)",
                "expired_then)",
            ),
            "what-was-deleted-meanwhile-is-counted": (
                "if not reaches or any(position <= transaction.base for position, _ in resets):",
                "if not reaches:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/alone.py",
        _WRITING,
        {
            "only-so-many-commits-are-trimmed-in-a-second": (
                "removed = max(removed, trimmed)",
                "pass",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/session.py",
        _POOLS,
        {
            "lists-of-a-tenant-hold-up-others": (
                "self._waiting.append(lane, turn)",
                'self._waiting.append("", turn)',
            ),
            "a-turn-that-was-given-up-is-given": ("if not turn.done():", "if True:"),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/store.py",
        _POOLS,
        {
            "bulk-reads-hold-up-others": (
                "pool_of = _listers if bulk else _readers",
                "pool_of = _readers",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/postgres/moving.py",
        _MIGRATE,
        {
            "a-move-goes-to-any-server": (
                "    check_settings(server)\n    connection",
                "    connection",
            ),
        },
    ),
    **of(
        "tenantbase/process/migration.py",
        _MIGRATE,
        {
            "a-move-ends-with-its-primary": (
                "if is_open and isinstance(error, SessionLost)",
                "if False and isinstance(error, SessionLost)",
            ),
        },
    ),
}
