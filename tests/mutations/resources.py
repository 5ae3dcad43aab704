"""Mistakes with resources: threads, processes, files, disk space."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/coherence/filler.py",
        ["tests/coherence/test_filler.py"],
        {
            "an-entry-between-batches-is-lost": ("begin, held = at, 0", "begin, held = at + 1, 0"),
            "a-batch-of-any-size": (" or held + size > _BATCH_BYTES", ""),
            "a-batch-of-any-number": ("at - begin >= _BATCH_ITEMS or ", ""),
            "the-loop-seals-heavy-entries": (
                "await asyncio.to_thread(self._seal, batch)",
                "self._seal(batch)",
            ),
            "a-failing-cache-is-not-counted": (
                "self._figures[CACHE_FAILURES[error.reason]] += 1",
                "pass",
            ),
            "an-error-in-filling-is-forgotten": ("raise ended", "pass"),
            "one-heavy-entry-is-sealed-by-the-loop": (
                " and _value_bytes(fills) <= HEAVY_BYTES",
                "",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/tag_file.py",
        ["tests/coherence/test_replaced_tag_file.py"],
        {
            "a-removed-file-is-used": (
                " and _is_at(fd, path) and _is_complete(fd)",
                " and _is_complete(fd)",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/sizes.py",
        ["tests/interfaces/sqlite/test_space.py"],
        {"a-full-disk-flaps": (" if below else 0", " if not size else 0")},
    ),
    **of(
        "tenantbase/interfaces/sqlite/copying.py",
        ["tests/interfaces/sqlite/test_copying.py"],
        {
            "a-copy-is-synced-in-the-end-only": (
                "self._written - self._synced >= due_bytes(self._written)",
                "False",
            ),
            "a-sync-follows-each-step": ("            self._synced = self._written\n", ""),
            "a-copy-is-made-without-pauses": ("            self._pace.rest()\n", ""),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/pacing.py",
        ["tests/interfaces/sqlite/test_copying.py"],
        {
            "a-copy-is-synced-in-one-piece": (
                "range(0, size, _PIECE_BYTES)",
                "range(0, size, size)",
            ),
            "syncs-do-not-get-rarer": (
                "max(_LEAST_DUE_BYTES, size // _DUE_SHARE)",
                "_LEAST_DUE_BYTES",
            ),
        },
    ),
    **of(
        "tenantbase/process/sweeper.py",
        ["tests/process/test_sweeper.py"],
        {
            "after-trouble-there-is-more": (
                "            more = False\n",
                "            more = True\n",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/store.py",
        ["tests/interfaces/sqlite/test_readers.py"],
        {
            "lists-occupy-readers-of-keys": ("self._listers.call(", "self._readers.call("),
            "a-hanging-list-is-over-with-a-read": (
                "elif not any(pool.hang for pool in pools):",
                "else:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/readers.py",
        [
            "tests/interfaces/sqlite/test_readers.py",
            "tests/interfaces/sqlite/test_endless_reads.py",
        ],
        {
            "what-expired-in-the-queue-is-run": (
                "            if call.future.done():\n                continue",
                "            if False:\n                continue",
            ),
            "those-that-come-back-stay": (
                "if len(self._readers) > self._count and",
                "if False and",
            ),
            "lists-have-the-usual-priority": ("        os.nice(_LOWER)", "        pass"),
            "readers-without-end": ("len(self._readers) + self._opening < MOST_READERS", "True"),
            "opened-once-and-never-more": ("self._opening -= 1", "pass"),
            "a-hanging-reader-takes-the-next-call": (
                "if not self._opening and all(reader.hangs",
                "if False and all(reader.hangs",
            ),
            "a-check-asks-one-connection": (
                "if len(calls) < _PROBES else None",
                "if False else None",
            ),
            "a-check-notes-no-hanging-reader": ("self._note_silent(function)", "pass"),
            "a-query-without-end-is-left": (
                "if reader.call is call and reader.aside:",
                "if False:",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/reserve.py",
        ["tests/interfaces/sqlite/test_reserve.py"],
        {
            "an-empty-file-of-others-is-removed": (
                "if os.pread(fd, MARK_BYTES, 0) == RESERVE_IN_EMPTY_MARK:",
                "if False:",
            ),
            "a-foreign-file-is-a-full-disk": (
                "        except CannotOpen:\n            return True",
                "        except CannotOpen:\n            return False",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/reserve.py",
        ["tests/interfaces/sqlite/test_full_reserve.py"],
        {
            "a-full-disk-is-none": (
                "return error.errno not in _NO_ROOM",
                "return True",
            ),
            "all-of-the-room-or-nothing": ("while step >= _LEAST_STEP_BYTES:", "while False:"),
            "the-reserve-goes-though-there-is-no-room": (
                "if self.free_bytes() < 2 * self._target:",
                "if False:",
            ),
            "the-reserve-is-as-large-as-the-disk": (
                "min(RESERVE_BYTES, disk.",
                "max(RESERVE_BYTES, disk.",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/reserve.py",
        ["tests/faults/test_small_disk.py"],
        {
            "the-reserve-takes-all-there-is": (
                "(held + self.free_bytes()) * 3 // 4",
                "held + self.free_bytes()",
            ),
            "the-log-gets-no-room": ("size = min(self.log_bytes, max(", "size = min(0, max("),
        },
    ),
    **of(
        "tenantbase/interfaces/memcached/private.py",
        [
            "tests/interfaces/memcached/test_private_program.py",
            "tests/interfaces/memcached/test_private.py",
        ],
        {
            "a-forked-worker-keeps-it": (
                "after_in_child=_after_fork_in_child",
                "after_in_child=lambda: None",
            ),
            "its-socket-is-for-all": ('"-a", "0600"', '"-a", "0666"'),
            "a-hangup-ends-its-guard": ("trap '' HUP\ntrap end", "trap end"),
            "items-are-rounded-down": (
                "-(-max_item_bytes // _MEBIBYTE)",
                "max_item_bytes // _MEBIBYTE",
            ),
            "a-path-is-relative-to-the-guard": ("os.path.abspath(found)", "found"),
            "what-does-not-work-is-started-for-ever": ('    [ -S "$socket" ] || end\n', ""),
        },
    ),
    **of(
        "tenantbase/owned_files.py",
        ["tests/test_owned_files.py"],
        {
            "what-could-not-be-marked-is-left": (
                "    except BaseException:\n        path.unlink(missing_ok=True)\n",
                "    except BaseException:\n",
            ),
            "a-file-is-made-in-no-directory": ("for _ in range(_TRIES):", "while True:"),
            "our-files-can-be-run": (" & 0o666", ""),
        },
    ),
    **of(
        "tenantbase/offload/child.py",
        ["tests/offload/test_boundaries.py", "tests/offload/test_runner.py"],
        {
            "a-lost-child-lives-on": ("    signal.alarm(seconds)", "    pass"),
            "values-lie-on-each-other": ("                    at += len(piece)\n", ""),
            "half-of-a-body-is-a-body": ("if len(data) != size:", "if False:"),
        },
    ),
    **of(
        "tenantbase/offload/runner.py",
        ["tests/offload/test_boundaries.py", "tests/offload/test_runner.py"],
        {
            "many-at-a-time": (
                "asyncio.timeout(_TIMEOUT_SECONDS), self._turn:",
                "asyncio.timeout(_TIMEOUT_SECONDS):",
            ),
            "a-thread-is-not-waited-for": ("while not work.done():", "while False:"),
            "ctrl-c-ends-the-child": ("        start_new_session=True,\n", ""),
        },
    ),
}
