"""Mistakes in the authority over a database that several machines share."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_TABLE: Final = ["tests/coherence/test_change_table.py"]
_INDEX: Final = ["tests/coherence/test_read_index.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/coherence/change_table.py",
        _TABLE,
        {
            "a-copy-just-below-the-last-change": (
                "return current[1] <= position <= bound",
                "return current[1] <= position + 1 <= bound + 1",
            ),
            "a-copy-of-a-lost-change": (
                "return current[1] <= position <= bound and",
                "return current[1] <= position and",
            ),
            "a-verdict-that-changes": (" and current[0] == newest", ""),
            "a-deposed-servers-answer": (
                "        if any(term.epoch == terms[0].epoch for term in self.terms):\n"
                "            return False\n",
                "",
            ),
            "an-answer-that-begins-too-late": ("if after > self.position:", "if False:"),
            "what-was-trimmed-is-forgotten": (
                "            self._floor = self.position = index.trimmed",
                "            self.position = index.trimmed",
            ),
            "any-key-is-no-key": (
                "                self._floor = max(self._floor, commit.position)\n",
                "                pass\n",
            ),
            "a-later-change-is-undone": (
                "last[bucket] = max(last[bucket], commit.position)",
                "last[bucket] = commit.position",
            ),
            "a-short-answer-is-complete": (
                "                self._floor = max(self._floor, index.position)\n",
                "                pass\n",
            ),
            "the-position-goes-back": (
                "            self.position = max(self.position, index.position)\n",
                "            self.position = index.position\n",
            ),
            "only-the-next-term-bounds": (
                "bound = min(bound, term.inherited)",
                "bound = term.inherited if bound == _NO_BOUND else bound",
            ),
            "a-late-page-takes-the-table-back": (
                "self.position = max(self.position, index.commits[-1].position)",
                "self.position = index.commits[-1].position",
            ),
            "what-concerned-every-bucket-outlives-its-loss": (
                "self.position = self._floor = 0\n            self._last",
                "self.position = 0\n            self._last",
            ),
            "a-table-that-knows-too-much-is-kept": (
                "if self.position > bounds.get(self._judged[0], _NOT_OF_THIS_HISTORY):",
                "if False:",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/read_index.py",
        _INDEX,
        {
            "an-older-answers-time": ("if sent_at >= self._sent_at:", "if True:"),
            "the-age-counts-from-the-answer": (
                "self._question, self._sent_at = number, sent_at",
                "self._question, self._sent_at = number, self._monotonic()",
            ),
            "always-remembered": ("if self._monotonic() - self._sent_at > max_age:", "if False:"),
            "polled-although-asked": (
                "if self._monotonic() - self._sent_at > _POLL_SECONDS:",
                "if True:",
            ),
            "never-polled": (
                "if self._monotonic() - self._sent_at > _POLL_SECONDS:",
                "if False:",
            ),
            "time-stands-still": (
                "return self._now + self._monotonic() - self._now_at",
                "return self._now",
            ),
            "what-is-remembered-is-of-no-question": (
                "self.now(), self._question)",
                "self.now(), 0)",
            ),
            "what-is-remembered-is-as-old-as-its-answer": (
                "self._table.tags(buckets), self.now(), ",
                "self._table.tags(buckets), self._now, ",
            ),
            "the-age-shown-counts-from-the-answer": (
                "round(sent_at * SECOND)",
                "round(self._now_at * SECOND)",
            ),
            "drained-with-a-question-in-flight": (
                "        await self._questions.drained()\n",
                "        pass\n",
            ),
            "a-node-far-behind-reads-everything": ("shorten=pages >= _PAGES", "shorten=False"),
        },
    ),
    **of(
        "tenantbase/coherence/loading.py",
        _INDEX,
        {
            "a-load-is-shared-by-any-question": (
                "flight = (*load, question)",
                "flight = (*load, 0)",
            ),
            "a-fill-under-the-earlier-tag": (
                "self._filler.offer(fills, flight[0], tag or flight[1], entry, now)",
                "self._filler.offer(fills, flight[0], flight[1], entry, now)",
            ),
        },
    ),
    **of(
        "tenantbase/coherence/loading.py",
        ["tests/coherence/test_loading.py"],
        {
            "one-key-that-fails-fails-those-that-joined": (
                "            except StoreError as error:\n                loaded[key] = error\n",
                "            except ZeroDivisionError:\n                raise\n",
            ),
            "a-mistake-leaves-its-load-behind": (
                "except Exception as error:  # of any kind",
                "except StoreError as error:  # of any kind",
            ),
            "queries-of-any-number-of-keys": (
                'BATCH_KEYS, attrgetter("weight")',
                "BATCH_KEYS, lambda wanted: 1",
            ),
            "queries-in-order-of-arrival": ('attrgetter("lane")', 'lambda wanted: ""'),
        },
    ),
    **of(
        "tenantbase/coherence/shared.py",
        _INDEX,
        {"loads-and-lists-by-the-nodes-clock": ("=index.now, ", '=__import__("time").time, ')},
    ),
    **of(
        "tenantbase/coherence/reading.py",
        _INDEX,
        {
            "expiry-by-the-nodes-clock": (
                "tags, now, question = await answer\n",
                "tags, _, question = await answer\n",
            ),
            "a-failed-question-leaves-its-request-behind": (
                "await asyncio.wait([fetching])",
                "pass",
            ),
            "a-question-without-a-deadline": (
                "            self._loader.limit(answer)\n            direct",
                "            direct",
            ),
        },
    ),
}
