"""What an answer to a list says of each key, and which answers are impossible."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from tests.faults.client import Client, Config, keys_of
from tests.faults.excuses import Excuses
from tests.faults.history import Operation
from tests.faults.http_client import NoAnswer
from tests.faults.judge import Judge
from tests.faults.lists import KeyList, drawn
from tests.faults.referee import check_history
from tests.wire import Answer, fields

KEYS = [f"r0/{n}" for n in range(4)]


def entry(key: str, value: str = "v 0 ", version: int = 1) -> dict[str, Any]:
    return {"key": key, "value": value, "id": key, "version": version, "expires_at": None}


def document(*keys: str, cursor: str | None = None) -> Answer:
    body = json.dumps({"values": [entry(key) for key in keys], "cursor": cursor})
    return Answer(200, fields(()), body.encode())


def lines(*keys: str, link: str = "") -> Answer:
    headers = fields((("Link", link),) if link else ())
    return Answer(200, headers, "".join(f"{json.dumps(entry(key))}\n" for key in keys).encode())


def seen(asked: KeyList, answer: Answer) -> dict[str, bool]:
    """The keys that an answer is about: whether it shows them."""
    return {key: found is not None for key, found in asked.shown(answer).items()}


def test_a_whole_list_shows_which_keys_are_absent() -> None:
    expected = {"r0/0": False, "r0/1": True, "r0/2": False, "r0/3": True}
    for limit in (None, 2):
        asked = KeyList("r0/", KEYS, limit=limit)
        assert seen(asked, document("r0/1", "r0/3")) == expected
        assert asked.following(document("r0/1", "r0/3")) is None
    assert seen(KeyList("r0/", KEYS, lines=True), lines("r0/1", "r0/3")) == expected


def test_a_page_says_nothing_of_the_keys_behind_it() -> None:
    asked = KeyList("r0/", KEYS, limit=1)
    assert seen(asked, document("r0/1", cursor="c")) == {"r0/0": False, "r0/1": True}
    following = asked.following(document("r0/1", cursor="c"))
    assert following is not None
    assert following.keys == KEYS[2:] and "cursor=c" in following.target
    assert seen(following, document()) == {"r0/2": False, "r0/3": False}
    with pytest.raises(ValueError):
        following.shown(document("r0/1"))
    backwards = KeyList("r0/", KEYS[::-1], limit=1, descending=True)
    assert seen(backwards, document("r0/2", cursor="c")) == {"r0/3": False, "r0/2": True}


def test_a_page_of_lines_says_nothing_of_the_keys_behind_it() -> None:
    asked = KeyList("r0/", KEYS, limit=1, lines=True)
    assert seen(asked, lines("r0/0", link="<?cursor=c>")) == {"r0/0": True}
    assert seen(asked, lines(link="<?cursor=c>")) == {}
    assert asked.following(lines("r0/0", link="<?cursor=c>")) is None


IMPOSSIBLE = {
    "a key twice": document("r0/1", "r0/1"),
    "out of order": document("r0/2", "r0/1"),
    "beyond its range": document("r0/9"),
    "too long": document("r0/0", "r0/1", "r0/2", "r0/3"),
    "not JSON": Answer(200, fields(()), b'{"values": ['),
}


@pytest.mark.parametrize("answer", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_list_is_refused(answer: Answer) -> None:
    with pytest.raises(ValueError):
        KeyList("r0/", KEYS, limit=3).shown(answer)


class Telling:
    """A server that gives the same answer again and again, or none."""

    port = 1

    def __init__(self, answer: Answer | None) -> None:
        self._answer = answer

    async def ask(self, *request: object) -> Answer:
        if self._answer is None:
            raise NoAnswer
        return self._answer


async def history(answer: Answer | None, *before: Operation) -> list[Operation]:
    """The operations before, and those of a client that gets this answer to a list."""
    config = Config("c", [1], 1, 1, 0, 0.0, 1.0, 1.0, 1.0)
    client = Client(config, 0, {})
    await client.list_page(Telling(answer), KeyList("r0/", KEYS))  # type: ignore[arg-type]
    return [*before, *client.done]


def wrote(key: str, version: int) -> Operation:
    """A write that was acknowledged before the list was asked for."""
    now = time.monotonic_ns()
    return Operation(
        key, "set", now - version, now - version, value="v", version=version, id=key, created=True
    )


async def test_a_list_is_judged_as_reads_of_its_keys() -> None:
    before = [wrote("r0/0", 1), wrote("r0/2", 1)]
    assert check_history(await history(document("r0/0", "r0/2"), *before), False) == []
    (missing,) = check_history(await history(document("r0/2"), *before), False)
    assert missing.startswith("r0/0: ") and "get 'r0/0' in a list" in missing
    (phantom,) = check_history(await history(document("r0/0", "r0/1", "r0/2"), *before), False)
    assert "a value that was never written" in phantom
    assert phantom.startswith("r0/1: ")


async def test_a_deleted_key_must_not_be_listed_nor_an_old_value() -> None:
    written = wrote("r0/0", 1)
    now = time.monotonic_ns()
    deleted = Operation("r0/0", "delete", now, now)
    assert check_history(await history(document(), written, deleted), False) == []
    assert len(check_history(await history(document("r0/0"), written, deleted), False)) == 1
    newer = Operation("r0/0", "set", now, now, value="w", version=2, id="r0/0")
    (stale,) = check_history(await history(document("r0/0"), written, newer), False)
    assert "a newer version was seen before this began" in stale


@pytest.mark.parametrize("answer", [document("r0/1", "r0/1"), IMPOSSIBLE["not JSON"]])
async def test_an_impossible_list_is_a_violation(answer: Answer) -> None:
    found = check_history(await history(answer, *map(wrote, KEYS, range(1, 5))), False)
    assert len(found) == len(KEYS)


async def test_a_list_that_fails_needs_an_excuse() -> None:
    judge = Judge(Excuses(), slowest_allowed=1.0)
    for operation in await history(None):
        judge.hear(operation)
    assert judge.operations == {("list", "failed"): len(KEYS)}
    assert len(judge.broken) == len(KEYS)


def test_lists_that_are_drawn_name_the_keys_that_they_may_show() -> None:
    chance = random.Random(1)
    keys = keys_of(7)
    everything = {key for kind in keys.values() for key in kind}
    lists = [drawn(chance, keys) for _ in range(500)]
    for asked in lists:
        assert [*asked.keys] == sorted(
            (
                key
                for key in everything
                if key.startswith(asked.prefix)
                and asked.start <= key
                and (not asked.end or key < asked.end)
            ),
            reverse=asked.descending,
        )
    usual = {asked.target for asked in lists if asked.limit is None and not asked.start}
    assert "/get-values?prefix=r7%2F" in usual
    assert {asked.accept for asked in lists} == {"", "application/x-ndjson"}
