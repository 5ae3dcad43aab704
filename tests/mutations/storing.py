"""Mistakes in sealed items and in the database's transactions."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_STORES: Final = "tests/interfaces/test_store.py"


def _store(*names: str) -> list[str]:
    # All of them take minutes.
    return [f"{_STORES}::{name}" for name in names]


_PLAIN_SETS: Final = ["tests/interfaces/sqlite/test_plain_sets.py"]
_USAGE: Final = [
    *_store(
        "test_keys_and_values_are_counted",
        "test_what_has_expired_counts_until_it_is_removed",
        "test_a_large_prefix_is_counted_at_once",
        "test_a_limit_is_exact",
        "test_a_limit_counts_what_its_group_has_written_before",
        "test_what_does_not_grow_passes_above_a_limit",
        "test_what_has_expired_takes_no_room",
        "test_what_has_expired_leaves_room_for_a_copy",
    ),
    "tests/interfaces/sqlite/test_usage.py::"
    "test_a_key_that_is_set_and_deleted_again_leaves_no_expired_row",
    "tests/interfaces/sqlite/test_usage.py::test_usage_is_that_of_the_rows",
]

_COMPACTED: Final = [
    f"tests/cli/test_maintenance.py::{name}"
    for name in (
        "test_a_step_of_compact_moves_many_pages",
        "test_compact_removes_what_was_deleted_while_no_server_runs",
    )
]

MUTATIONS: Final = {
    **of(
        "tenantbase/interfaces/sqlite/compacting.py",
        _COMPACTED,
        {
            "a-step-moves-one-page": (
                'executescript(f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages})")',
                'execute(f"PRAGMA incremental_vacuum({pages})").fetchall()',
            ),
        },
    ),
    **of(
        "tenantbase/process/maintenance.py",
        _COMPACTED,
        {"dead-rows-are-kept": ("        asyncio.run(_remove_dead_rows(config))\n", "")},
    ),
    **of(
        "tenantbase/coherence/sealed_item.py",
        ["tests/coherence/test_sealed_item.py"],
        {
            "the-mac-covers-the-first-two-kilobytes": (
                "memoryview(data)[_MAC_BYTES:]",
                "memoryview(data)[_MAC_BYTES : _MAC_BYTES + 2048]",
            ),
            "the-mac-is-not-compared": (
                "if not compare_digest(state.digest(), data[:_MAC_BYTES]):",
                "if False:",
            ),
            "what-is-remembered-has-no-tag": (
                "        if remembered.tag == tag:\n",
                "        if True:\n",
            ),
            "a-remembered-item-is-judged-by-its-last-tag": (
                "self._accepts(remembered.sealed_under, tag)",
                "self._accepts(remembered.tag, tag)",
            ),
            "a-verdict-is-forgotten": (
                "slot.remembered = msgspec.structs.replace(remembered, tag=tag)",
                "pass",
            ),
            "a-verdict-replaces-the-tag-of-an-item": (
                "msgspec.structs.replace(remembered, tag=tag)",
                "msgspec.structs.replace(remembered, tag=tag, sealed_under=tag)",
            ),
            "a-verdict-brings-a-replaced-item-back": (
                "        if slot.remembered is remembered:  #",
                "        if True:  #",
            ),
            "an-item-passes-for-one-of-the-present": (
                "tag if sealed_under == tag else sealed_under,",
                "tag,",
            ),
            "slots-without-bound": ("while self._held > REMEMBERED_BYTES:", "while False:"),
            "a-forgotten-slot-still-counts": ("self._held -= oldest.held", "pass"),
            "items-of-a-forgotten-slot-count": (
                "            if slot.held:\n",
                "            if True:\n",
            ),
            "items-do-not-count": ("self._held += held - slot.held", "self._held += _SLOT_BYTES"),
            "very-large-items-are-remembered": ("if size > _LARGEST_BYTES:", "if False:"),
            "documents-do-not-count": ("size * (2 if size <= DOCUMENT_BYTES else 1)", "size"),
            "large-documents-count": (
                "size * (2 if size <= DOCUMENT_BYTES else 1)",
                "size * 2",
            ),
        },
    ),
    **of(
        "tenantbase/web/handlers/health.py",
        ["tests/web/handlers/test_health.py"],
        {
            "the-first-check-is-kept-for-ever": (
                "    def _checked(self, check: asyncio.Task[bool]) -> None:\n        self._check = None",
                "    def _checked(self, check: asyncio.Task[bool]) -> None:\n        pass",
            ),
            "each-question-is-a-check": ("        if self._check is None:\n", "        if True:\n"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/opening.py",
        ["tests/interfaces/sqlite/test_store.py", "tests/interfaces/sqlite/test_recovery.py"],
        {
            "the-patience-of-a-checkpoint-stays": (
                '    finally:\n        connection.execute(f"PRAGMA busy_timeout = {before}")',
                "    finally:\n        pass",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/prefix_counts.py",
        ["tests/interfaces/sqlite/test_prefix_counts.py"],
        {
            "what-changed-keys-were-is-not-subtracted": (
                "total - old + new for",
                "total + new for",
            ),
            "what-expired-meanwhile-is-not-noticed": (
                "return Sums(entries, size, expired_then + expired)",
                "return Sums(entries, size, expired_then)",
            ),
            "a-trimmed-change-log-passes-for-a-whole-one": (
                "if oldest > self._version + 1 or any(",
                "if any(",
            ),
            "a-prefix-deleted-meanwhile-is-overlooked": (
                " or any(map(self._overlaps, resets)):",
                ":",
            ),
            "a-key-that-changed-twice-counts-twice": (
                "keys = list({key for key, is_reset in changed if not is_reset})",
                "keys = [key for key, is_reset in changed if not is_reset]",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/prefix_counter.py",
        ["tests/interfaces/sqlite/test_prefix_counts.py"],
        {
            "a-count-that-was-given-up-goes-on-as-before": (
                "                stack.push_async_callback(self._end_soon, connection, prefix)\n",
                "",
            ),
            "closing-does-not-wait-for-a-count": (
                'return self._turn.held("")',
                "return AsyncExitStack()",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/sweep.py",
        ["tests/interfaces/sqlite/test_prefix_counts.py"],
        {
            "a-count-hides-what-the-group-has-changed": (
                "None if count is None or change_log.changed else",
                "None if count is None else",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/checkpoints.py",
        ["tests/interfaces/sqlite/test_store.py"],
        {
            "a-checkpoint-copies-much": (
                "        often = self._commits >= _COMMITS\n",
                "        often = False\n",
            ),
            "small-commits-each-pay-for-a-checkpoint": (
                "_LEAST_PAGES: Final = 250",
                "_LEAST_PAGES: Final = 25",
            ),
            "each-checkpoint-waits-for-a-slow-reader": (
                "if mode is None and self._unwaited_pages >= max(most // 2, self._patience_pages):",
                "if mode is None:",
            ),
            "a-reader-that-stays-is-waited-for-as-often": (
                "2 * max(self._unwaited_pages, most // 2) if busy else 0",
                "0",
            ),
            "who-was-slow-once-is-waited-for-less-for-ever": (
                "2 * max(self._unwaited_pages, most // 2) if busy else 0",
                "2 * max(self._unwaited_pages, most // 2)",
            ),
            "the-log-never-starts-over": (
                "                    mode = restarting\n",
                "                    pass\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/commit.py",
        ["tests/interfaces/sqlite/test_store.py", "tests/interfaces/sqlite/test_recovery.py"],
        {
            "a-failed-rollback-is-forgotten": (
                '                self.failure = "a transaction cannot be ended;'
                ' no more writes are taken"\n                return False',
                "                return False",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/queries.py",
        ["tests/interfaces/sqlite/test_queries.py"],
        {
            "a-page-of-the-log-is-read-without-a-snapshot": (
                "    with snapshot(connection):\n        newest",
                "    if True:\n        newest",
            ),
            "an-error-leaves-a-snapshot-open": (
                "    finally:\n        if connection.in_transaction:  # after",
                "    except ZeroDivisionError:\n        raise\n    else:\n"
                "        if connection.in_transaction:  # after",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/opening.py",
        ["tests/interfaces/sqlite/test_recovery.py"],
        {
            "a-log-is-declared-safe-before-it-was-rewritten": (
                "    left = None if mark",
                "    if mark is not None:\n        mark.wal_was_made_safe()\n    left = None if mark",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/queries.py",
        [
            "tests/interfaces/test_store.py::test_scanning_in_pieces",
            "tests/interfaces/test_store.py::test_scanning_values_of_all_sizes",
        ],
        {
            "a-chunk-may-exceed-the-bound": ("if size + held >= max_bytes:", "if False:"),
            "a-long-list-has-no-end-in-size": ("            size += held\n", ""),
            "a-larger-value-is-missing": (
                "            if value is None:\n",
                "            if False:\n",
            ),
            "the-items-before-a-larger-value-count-twice": (
                "left, limit, max_bytes - size)",
                "left, limit, max_bytes)",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/odd_rows.py",
        ["tests/interfaces/sqlite/test_odd_rows.py"],
        {
            "a-stored-type-is-not-checked": (
                "content_type if is_media_type(content_type) else OCTETS",
                "content_type or OCTETS",
            ),
            "an-id-of-any-text": ("and _ID.fullmatch(id_) is not None", "and True"),
            "a-version-of-any-type": ("and type(version) is int", "and True"),
            "an-expiry-of-any-time": (
                "and (expires_at is None or (type(expires_at) is float and expires_at <= MAX_TIME))\n",
                "",
            ),
            "a-value-of-any-type": ('"CAST(value AS BLOB)"', '"value"'),
            "a-text-is-taken-for-json": (
                "\"CASE typeof(value) WHEN 'blob' THEN content_type END\"",
                '"content_type"',
            ),
            "a-text-is-never-json": (
                "        content_type = _type_of(value)\n    return Entry",
                "        pass\n    return Entry",
            ),
            "bad-text-stays-allowed": ("connection.text_factory = str", "pass"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/odd_rows.py",
        ["tests/interfaces/sqlite/test_odd_rows.py"],
        {
            "a-key-that-is-not-text-is-listed": (
                "if not is_text(row[0]):",
                "if False:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/queries.py",
        ["tests/interfaces/sqlite/test_odd_rows.py"],
        {
            "an-illegal-line-is-an-event": ("if not is_legal_line(*line):", "if False:"),
        },
    ),
    **of(
        "tenantbase/process/maintenance.py",
        ["tests/cli/test_odd_backup.py"],
        {
            "an-odd-row-makes-backups-worthless": ("(check.contents if sealed else 0)", "0"),
            "a-row-that-may-be-damage-is-restored": (
                "(check.contents if sealed else 0)",
                "check.contents",
            ),
            "what-was-miscounted-stays-so": ("if checked.miscounted:", "if False:"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/rows.py",
        ["tests/interfaces/sqlite/test_odd_rows.py"],
        {"an-odd-row-stays-odd": ("if same and key not in self._odd:", "if same:")},
    ),
    **of(
        "tenantbase/interfaces/sqlite/plain_rows.py",
        ["tests/interfaces/sqlite/test_odd_rows.py"],
        {
            "a-text-is-listed-as-json": (" AND value >= x''", ""),
            "short-ids-are-listed": (" or len(ids) != _ID_BYTES * count - len(DIVIDER)", ""),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/driver_errors.py",
        ["tests/interfaces/sqlite/test_odd_rows.py"],
        {
            "bad-text-is-no-damage": (
                "    if is_bad_text(error):\n        return sqlite3.SQLITE_CORRUPT\n",
                "",
            )
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/queries.py",
        ["tests/interfaces/sqlite/test_plain_rows.py"],
        {"a-list-never-ends": ("return plain, following < high", "return plain, True")},
    ),
    **of(
        "tenantbase/interfaces/sqlite/remembered_pages.py",
        ["tests/interfaces/sqlite/test_remembered_pages.py"],
        {
            "a-page-outlives-a-change": ("dict.fromkeys(self._pages)  #", "self._pages  #"),
            "bytes-are-counted-after-all-is-forgotten": ("                self._bytes = 0\n", ""),
            "bytes-are-counted-after-a-page-is-forgotten": (
                "            self._bytes -= page.size",
                "            pass",
            ),
            "the-keys-of-a-page-count-as-ascii": ("map(getsizeof, (", "map(len, ("),
            "a-page-is-taken-for-one-of-another-range": (
                "(wanted, limit, max_bytes, render.form)",
                "(limit, max_bytes, render.form)",
            ),
            "a-page-is-taken-for-a-shorter-one": (
                "(wanted, limit, max_bytes, render.form)",
                "(wanted, max_bytes, render.form)",
            ),
            "a-page-is-taken-for-one-with-fewer-bytes": (
                "(wanted, limit, max_bytes, render.form)",
                "(wanted, limit, render.form)",
            ),
            "a-page-is-taken-for-one-of-another-form": (
                "(wanted, limit, max_bytes, render.form)",
                "(wanted, limit, max_bytes)",
            ),
            "a-page-is-remembered-at-once": (
                "_Page(items, more) if again else None",
                "_Page(items, more)",
            ),
            "a-page-is-never-remembered": ("_Page(items, more) if again else None", "None"),
            "remembered-pages-have-no-bound": (" or self._bytes > _MOST_BYTES", ""),
            "remembered-requests-have-no-bound": ("len(self._pages) > _MOST_PAGES or ", ""),
            "a-large-page-takes-all-the-room": (
                "page is not None and page.size > _LARGEST_BYTES",
                "False",
            ),
            "a-page-in-use-is-forgotten": ("                self._note(asked, page)\n", ""),
            "rows-that-expire-are-remembered": (
                "        if isinstance(items, PlainEntries):\n",
                "        if True:\n",
            ),
        },
    ),
    **of(
        "tenantbase/web/list_document.py",
        ["tests/interfaces/sqlite/test_remembered_pages.py"],
        {
            "a-later-page-is-taken-for-the-first-one": (
                "return self._plain.start, self.before",
                "return self._plain.start",
            )
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/plain_rows.py",
        [
            "tests/interfaces/test_store.py::test_scanning_values_of_all_sizes",
            "tests/interfaces/test_store.py::test_scanning_many_plain_entries_with_an_odd_one",
            "tests/interfaces/sqlite/test_plain_rows.py",
        ],
        {
            "an-expiry-is-not-looked-at-in-a-list": ("expires_at IS NULL AND ", ""),
            "a-media-type-is-not-looked-at-in-a-list": (" AND content_type = '{JSON}'", ""),
            "a-deleted-prefix-is-listed": (
                "    AND created > (SELECT coalesce(max(version), 0) FROM deleted_prefixes)\n",
                "",
            ),
            "a-row-that-is-not-plain-is-left-out-of-a-list": (
                "any(len(column) != count for column in columns) or ",
                "",
            ),
            "any-id-is-rendered-in-a-list": ("ids.translate(None, _ID_CHARACTERS)", "False"),
            "any-version-is-rendered-in-a-list": ("versions.translate(None, _DIGITS)", "False"),
            "the-last-rows-of-a-list-need-not-be-plain": (
                "key < ?2 AND {_IS_PLAIN}",
                "key < ?2",
            ),
            "plain-entries-may-exceed-the-bound": (
                "    if read.entries.value_bytes <= max_bytes:",
                "    if True:",
            ),
            "a-page-ends-one-entry-early": (
                "max_bytes) + 1\n",
                "max_bytes)\n",
            ),
        },
    ),
    **of(
        "tenantbase/documents.py",
        ["tests/test_documents.py"],
        {
            "a-scope-is-shown-in-a-list": (
                "hidden = _json(keys[0][: plain.start])[1:-1]",
                'hidden = b""',
            ),
            "large-documents-are-remembered": (
                "        if len(lookup.entry.value) <= DOCUMENT_BYTES:\n",
                "        if True:\n",
            ),
            "no-document-is-remembered": (
                "        if len(lookup.entry.value) <= DOCUMENT_BYTES:\n",
                "        if False:\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/queries.py",
        ["tests/web/transport/test_limits.py::test_a_bulk_read_stays_within_its_memory"],
        {
            "bulk-reads-have-no-bound": (
                "                if size > _READ_BYTES:",
                "                if False:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/large_values.py",
        ["tests/interfaces/sqlite/test_large_values.py"],
        {
            "a-large-value-is-bound-to-the-statement": (
                "    if large := [row for row in rows if len(row[_VALUE_AT]) > LARGE_BYTES]:",
                "    if large := []:",
            ),
            "a-large-value-is-read-as-a-column": (
                "CASE WHEN length(value) > {size} THEN",
                "CASE WHEN length(value) < 0 THEN",
            ),
            "a-large-value-stays-zeros": ("            blob.write(value)", "            pass"),
        },
    ),
    **of(
        "tenantbase/scope.py",
        ["tests/test_scope.py", "tests/test_database.py"],
        {
            "an-empty-prefix-is-of-all-tenants": (
                "return self.start + prefix",
                "return self.start + prefix if prefix else prefix",
            ),
            "a-prefix-may-be-of-another-tenant": (
                "self.start: Final = tenant + _SEPARATOR",
                "self.start: Final = tenant",
            ),
            "a-tenants-name-may-have-a-slash": ("[a-z0-9_-]{0,63}", "[a-z0-9_/-]{0,63}"),
        },
    ),
    **of(
        "tenantbase/database/watch.py",
        ["tests/test_database.py"],
        {
            "a-reset-names-more-than-is-watched": (
                "key = max(key, prefix, key=len)",
                "pass",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/opening.py",
        ["tests/interfaces/sqlite/test_migration.py"],
        {"a-migration-beside-others": ("if not mark.is_alone():", "if False:")},
    ),
    **of(
        "tenantbase/interfaces/sqlite/schema.py",
        ["tests/interfaces/sqlite/test_migration.py"],
        {
            "deleted-prefixes-stay-without-a-tenant": (
                "        \"UPDATE deleted_prefixes SET low = 'default/' || low,"
                " high = 'default/' || high\",\n",
                "",
            ),
            "a-migration-in-many-transactions": (
                "        for statement in statements:\n",
                "        for statement in statements:\n"
                '            connection.execute("COMMIT")\n'
                '            connection.execute("BEGIN IMMEDIATE")\n',
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/commit.py",
        ["tests/interfaces/sqlite/test_damaged_index.py"],
        {
            "a-damaged-index-stays": (
                "                self._rebuild_index(connection, seqlock)\n",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/salvage.py",
        ["tests/interfaces/sqlite/test_damaged_migration.py"],
        {
            "rows-after-the-damage-are-lost": (
                'for order in ("ASC", "DESC")',
                'for order in ("ASC",)',
            ),
            "what-is-lost-is-not-named": ("sound.lost.append(key)", "pass"),
            "a-damaged-index-is-dropped": (
                "DELETE FROM sqlite_master WHERE type = 'index' AND name = ?\", (name,)",
                'DROP INDEX entries_expiry"',
            ),
        },
    ),
    **of(
        "tenantbase/coherence/sealed_item.py",
        ["tests/interfaces/sqlite/test_migration.py"],
        {"items-of-schema-1-count": ('b"TBF\\x02"', 'b"TBF\\x01"')},
    ),
    **of(
        "tenantbase/coherence/tag_file.py",
        ["tests/interfaces/sqlite/test_migration.py"],
        {
            "a-lonely-process-shares-no-more": (
                "        while not _lock(self._fd, fcntl.LOCK_SH):\n",
                "        while False:\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/rows.py",
        [f"{_STORES}::test_values_that_are_too_large_together_are_not_returned"],
        {
            "returned-values-of-any-size": (
                "if self.returned_bytes > MAX_RETURNED_BYTES and any(map(returns, transaction)):",
                "if False:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/rows.py",
        [f"{_STORES}::test_a_deletion_returns_what_it_removed"],
        {"a-deletion-returns-no-value": ('self._look_up(returned, f", {VALUE}")', "pass")},
    ),
    **of(
        "tenantbase/interfaces/postgres/plan.py",
        [
            "tests/interfaces/postgres/test_plans.py::test_a_returned_entry_depends_on_the_versions_that_its_group_gives_out"
        ],
        {
            "a-returned-entry-depends-on-no-base": (
                "command.condition is not None or returns(command)",
                "command.condition is not None",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/pending.py",
        ["tests/coherence/test_write_queue.py"],
        {
            "returned-values-share-a-group": (
                "rows > LARGE_ROWS or held > LARGE_BYTES or returns",
                "rows > LARGE_ROWS or held > LARGE_BYTES",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/rows.py",
        _USAGE,
        {
            "a-replaced-value-still-counts": (
                "                else:\n                    size -= before\n",
                "",
            ),
            "a-replaced-row-counts-as-expired": (
                "if key in self.dead and key in self.sizes:  # replaced",
                "if False:",
            ),
            "each-transaction-counts-twice-beside-a-limit": (
                "        if not self._limited:  # no transaction",
                "        if True:  # no transaction",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/rows.py",
        _USAGE,
        {
            "an-expired-row-outlives-its-deletion": (
                "elif key in self.dead:  # set and deleted again",
                "elif False:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/rows.py",
        ["tests/interfaces/test_store.py::test_what_changes_with_a_value_is_stored"],
        {
            "a-new-expiry-is-not-stored": (
                "meta == (before.expires_at, before",
                "meta == (meta[0], before",
            ),
            "a-new-id-is-not-stored": ("before.id, before.content", "meta[1], before.content"),
            "a-new-media-type-is-not-stored": ("before.content_type)\n", "meta[2])\n"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/change_log.py",
        ["tests/interfaces/test_store.py::test_what_changes_with_a_value_is_stored"],
        {
            "the-media-type-of-a-change-is-lost": (
                "if content_type == JSON and expires_at is None:",
                "if content_type is not None and expires_at is None:",
            ),
            "the-expiry-of-a-change-is-lost": (
                "if content_type == JSON and expires_at is None:",
                "if content_type == JSON:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/plain_sets.py",
        _PLAIN_SETS,
        {
            "columns-replace-no-row": (" or _any_row(connection, keys):", ":"),
            "columns-have-no-limits": ("if not tenant.within(len(keys), size) or", "if"),
            "columns-do-not-count": ("    tenant.bytes += size\n", ""),
            "columns-come-first-in-the-log": (" or change_log.lines:", ":"),
            "a-large-value-is-bound": (" or max(sizes) > LARGE_BYTES", ""),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/change_log.py",
        _PLAIN_SETS,
        {
            "created-rows-share-versions": ("        self._first = end\n", ""),
            "created-rows-are-still-cached": ("        self._created += keys\n", ""),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/usage.py",
        _PLAIN_SETS,
        {
            "keys-are-counted-together-in-characters": (
                "size = len(joined) if joined.isascii() else len(joined.encode())",
                "size = len(joined)",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/sweep.py",
        _USAGE,
        {
            "swept-rows-still-count": (
                "            if tenant is not None:\n",
                "            if False:\n",
            ),
            "a-deleted-prefix-still-counts": ("    tenant.entries -= entries\n", ""),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/in_place.py",
        _store("test_a_copy_in_place_of_an_entry_grows_by_its_value"),
        {
            "a-replaced-key-counts-again": (
                "size -= tenant.key_bytes(command.to) + replaced.size",
                "size -= replaced.size",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/usage.py",
        _USAGE,
        {
            "expired-entries-take-room": ("self.entries - expired[0]", "self.entries"),
            "expired-bytes-take-room": ("self.bytes - expired[1]", "self.bytes"),
            "overwriting-is-refused-above-a-limit": (
                "and growth > 0 and living + growth",
                "and living + growth",
            ),
            "keys-are-counted-in-characters": (
                "return (len(key) if key.isascii() else len(key.encode())) - self._start_bytes",
                "return len(key) - self._start_bytes",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/apply.py",
        _USAGE,
        {
            "limits-in-a-group-are-those-before-it": (
                "            usage.settle()\n            try:\n",
                "            try:\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/access.py",
        _store("test_a_deleted_tenant_is_gone_at_once", "test_tenants_are_kept"),
        {
            "a-deleted-tenants-tokens-stay": (
                '    connection.execute("DELETE FROM tokens WHERE tenant = ?", (name,))\n',
                "",
            ),
            "a-new-limit-goes-unnoticed": (
                "    _changed(connection)\n    return Applied(created=before is None)\n",
                "    return Applied(created=before is None)\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/schema.py",
        ["tests/interfaces/sqlite/test_migration.py"],
        {
            "rows-under-a-deleted-prefix-are-counted": (
                "FROM entries WHERE NOT EXISTS (",
                "FROM entries WHERE 1 OR NOT EXISTS (",
            ),
        },
    ),
}
