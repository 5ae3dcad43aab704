"""Mistakes around the coherence protocol; its own rules are broken in ``tests/faults/planted.py``."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

MUTATIONS: Final = {
    **of(
        "tenantbase/coherence/opening.py",
        ["tests/coherence/test_policy.py::test_large_values_that_are_remembered_are_opened_once"],
        {
            "items-opened-in-a-thread-are-forgotten": (
                "self._sealer.remember(slot, answer, tag, lookup)",
                "pass",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/reading.py",
        ["tests/coherence/test_policy.py::test_large_values_that_are_remembered_are_opened_once"],
        {
            "remembered-items-are-sent-again": (
                "[None if last is None else last.cas for last in known]",
                "[None for last in known]",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/reading.py",
        ["tests/coherence/test_remembered.py"],
        {
            "outdated-items-are-asked-about": (
                "if (last := slot.remembered) is not None and last.tag == tag else None",
                "if (last := slot.remembered) is not None else None",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/opening.py",
        ["tests/coherence/test_remembered.py"],
        {
            "remembered-items-count-under-any-tag": (
                "if last.tag == tag and last.expires_at > now:",
                "if last.expires_at > now:",
            ),
            "remembered-entries-never-expire": (
                "if last.tag == tag and last.expires_at > now:",
                "if last.tag == tag:",
            ),
            "remembered-entries-live-through-their-last-moment": (
                "if last.tag == tag and last.expires_at > now:",
                "if last.tag == tag and last.expires_at >= now:",
            ),
            "an-outdated-item-is-asked-about-for-ever": (
                "if lookup is REJECTED and slot.remembered is last:",
                "if False:",
            ),
            "what-memcached-has-lost-is-remembered": (
                "            if answer is UNCHANGED and fresh:\n",
                "            if last is not None and not isinstance(answer, Fetched) and fresh:\n",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/opening.py",
        ["tests/coherence/test_read_index.py"],
        {
            "stale-hits-are-called-fresh": (
                "found[slot.key] = lookup if fresh else Lookup(entry, hit)",
                "found[slot.key] = lookup",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/reading.py",
        ["tests/coherence/test_read_index.py"],
        {
            "stale-reads-need-every-byte": (
                "        known = [slot.remembered for slot in slots]\n        answers = await",
                "        known = [None for slot in slots]\n        answers = await",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/tag_seqlock.py",
        ["tests/coherence/test_tag_seqlock.py"],
        {
            "an-odd-bucket-is-settled-downwards": (
                "after[bucket] = odd + 1",
                "after[bucket] = odd - 1 if before % 2 else odd + 1",
            ),
            "a-commit-is-not-counted": ("        self._tags.count_commit()\n", ""),
            "any-key-spares-the-last-bucket": ("range(BUCKETS) if", "range(BUCKETS - 1) if"),
            "doubt-is-forgotten": (
                "                in_doubt.add(bucket)\n",
                "                pass\n",
            ),
            "a-thread-that-cannot-start-leaves-a-descriptor": (
                "    except RuntimeError as error:\n        os.close(fd)\n",
                "    except RuntimeError as error:\n",
            ),
            "the-waiting-thread-leaves-a-descriptor": (
                "    finally:\n        os.close(fd)\n",
                "    finally:\n        pass\n",
            ),
            "a-failed-lock-is-taken": (
                "        taken.set_exception(error)",
                "        taken.set_result(None)",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/tag_file.py",
        ["tests/coherence/test_tag_file.py"],
        {
            "the-last-one-out-leaves-the-files": (
                "            _remove(self._fd, self.path, was_empty)\n",
                "            pass\n",
            ),
            "the-companions-are-left": (
                "                remove_marked(path)\n",
                "                pass\n",
            ),
            "a-successors-file-is-removed": (
                "if _lock(self._fd, fcntl.LOCK_EX) and _is_at(self._fd, self.path):",
                "if _lock(self._fd, fcntl.LOCK_EX):",
            ),
            "a-file-in-use-is-removed": (
                "if _lock(self._fd, fcntl.LOCK_EX) and _is_at(self._fd, self.path):",
                "if _is_at(self._fd, self.path):",
            ),
            "an-incomplete-file-is-used": (
                " and _is_at(fd, path) and _is_complete(fd)",
                " and _is_at(fd, path)",
            ),
            "locked-for-ever": ("if waited > _PATIENCE_SECONDS:", "if False:"),
            "a-log-with-an-unfinished-commit-is-safe": (
                " and not any(each & 1 for each in self.sequences)",
                "",
            ),
            "a-log-is-safe-from-the-start": ("bool(self._words[_WAL_SAFE]) and", ""),
            "an-incomplete-file-is-complete": ("os.fstat(fd).st_size == _SIZE_BYTES and ", ""),
        },
    ),
    **of(
        "tenantbase/coherence/batcher.py",
        ["tests/coherence/test_batcher.py"],
        {
            "a-batch-too-heavy": (
                "if batch and total > self._limit:",
                "if batch and total > self._limit + 1:",
            ),
            "a-heavy-item-waits-for-ever": (
                "if batch and total > self._limit:",
                "if total > self._limit:",
            ),
            "batches-take-one-lane-after-the-other": (
                "batch.append(left.take(weight))",
                "batch.append(left.take(0))",
            ),
            "one-batch-too-many": (
                "while self._waiting and len(self._tasks) < self._parallel:",
                "while self._waiting and len(self._tasks) <= self._parallel:",
            ),
            "any-number-of-batches-in-their-second-step": (
                " and len(self._finishing) >= self._max_finishing:",
                " and False:",
            ),
            "drained-with-slow-batches": (
                "while self._waiting or self._tasks or self._finishing:",
                "while self._waiting or self._tasks:",
            ),
            "drained-with-waiting-items": (
                "while self._waiting or self._tasks or self._finishing:",
                "while self._tasks or self._finishing:",
            ),
            "what-waits-is-not-sent-when-a-batch-ends": (
                "        self._finishing.discard(task)\n        self._send()",
                "        self._finishing.discard(task)",
            ),
            "a-slow-batch-is-never-forgotten": (
                "        self._finishing.discard(task)\n        self._send()",
                "        self._send()",
            ),
        },
    ),
    **of(
        "tenantbase/waits.py",
        ["tests/test_waits.py"],
        {
            "a-result-is-received-twice": (
                "receive, self._receive = self._receive, None",
                "receive = self._receive",
            ),
            "a-write-that-was-given-up-waited-for-nothing": (
                "    timing.note(stage, submitted)\n",
                "",
            ),
            "a-delivery-ends-in-silence": (
                "            self._at_end.pop()()",
                "            self._at_end.pop()",
            ),
            "a-delivery-ends-twice": ("self._at_end.pop()()", "self._at_end[0](); break"),
        },
    ),
    **of(
        "tenantbase/shared_timer.py",
        ["tests/test_shared_timer.py"],
        {
            "no-timer-after-a-pause": (
                "        self._timer = None\n        now =",
                "        now =",
            ),
            "no-timer-for-the-rest": (
                "        if watched:\n            self._timer = loop.call_at",
                "        if False:\n            self._timer = loop.call_at",
            ),
            "what-is-done-expires": (
                "            if not result.done():\n                self._expired",
                "            if True:\n                self._expired",
            ),
            "what-is-done-waits-for-its-time": (
                "while watched and watched[0][2].done():",
                "while False:",
            ),
        },
    ),
}
