"""The verdicts of comparing two commits, and what the benchmarks take for a right answer."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from benchmarks.access import OPEN, TOKEN, rows
from benchmarks.against import AFTER, BEFORE, MIN_ROUNDS, compare, table, verdict
from benchmarks.dialect import Answer, Etcd, Nginx
from benchmarks.summary import Loads
from benchmarks.work import DURABLE_SET, SMALL


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([1.02, 1.05, 1.03, 1.08, 1.02, 1.04], "faster"),
        ([0.98, 0.95, 0.97, 0.92, 0.98, 0.96], "slower"),
        ([1.30, 1.25, 0.99, 1.28, 1.31, 1.27], "no difference beyond noise"),  # rounds disagree
        ([1.002, 1.004, 1.001, 1.003, 1.002, 1.005], "no difference beyond noise"),  # too small
        ([1.30, 1.25, 1.28], "no difference beyond noise"),  # too few
    ],
)
def test_a_verdict_needs_all_rounds_to_agree(ratios: list[float], expected: str) -> None:
    assert verdict(ratios) == expected


def test_rounds_are_compared_pairwise() -> None:
    # The machine halves its speed after two rounds; the ratio within each round stays.
    loads: list[dict[str, Any]] = []
    for number in range(MIN_ROUNDS):
        speed = 1_000.0 if number < 2 else 500.0
        about = {"round": number, "work": "cached-get", "data": "small"}
        loads.append({**about, "peer": BEFORE, "rate": speed, "cost": 20e-6, "others": 0.0})
        others = 0.25 if number == 3 else 0.0
        loads.append({**about, "peer": AFTER, "rate": speed * 1.1, "cost": 18e-6, "others": others})
    (record,) = compare(loads)
    assert record["rate"] == pytest.approx([1.1] * MIN_ROUNDS)
    assert record["cost"] == pytest.approx([0.9] * MIN_ROUNDS)
    assert record["verdict"] == "faster"
    shown = table([record], "main")
    assert "| 1.100 | 1.100 to 1.100 | 0.900 | 0.900 to 0.900 | faster |" in shown
    assert "used up to 25% of the server's core" in shown
    assert "used" not in table([{**record, "others": 0.01}], "main")


def test_disturbed_lines_are_named() -> None:
    about = {"round": 0, "data": "small", "peer": "tenantbase", "rate": 1.0}
    loads = Loads(
        [
            {**about, "work": "cached-get", "others": 0.01},
            {**about, "work": "durable-set", "others": 0.4},
        ]
    )
    assert loads.disturbed() == {"durable-set": 0.4}


ENTRIES = {"key-1": "a", "key-2": "b"}


def answer(body: object) -> Answer:
    return Answer(200, {}, json.dumps(body).encode())


def pair(key: str, value: str) -> dict[str, str]:
    return {"key": b64encode(key.encode()).decode(), "value": b64encode(value.encode()).decode()}


def test_only_right_answers_of_etcd_count() -> None:
    etcd = Etcd(80)
    found = {"kvs": [pair("key-1", "a")], "count": "1"}
    assert etcd.get("key-1", "a").right(answer(found))
    assert not etcd.get("key-1", "b").right(answer(found))
    assert etcd.get("key-1", None).right(answer({"header": {}}))
    assert not etcd.get("key-1", "a").right(answer({"header": {}}))
    many = {"responses": [{"response_range": {"kvs": [pair(*each)]}} for each in ENTRIES.items()]}
    assert etcd.get_many(ENTRIES).right(answer(many))
    assert not etcd.get_many({**ENTRIES, "key-3": "c"}).right(answer(many))
    assert etcd.list(ENTRIES).right(answer({"kvs": [pair(*each) for each in ENTRIES.items()]}))


def test_a_service_that_cannot_write_takes_no_part_in_writing() -> None:
    assert DURABLE_SET.exchanges(Nginx(80), SMALL.entries()) == []
    assert Nginx(80).get("key-1", "a").right(Answer(200, {}, b"a"))
    assert not Nginx(80).get("key-1", "a").right(Answer(200, {}, b"b"))


def test_the_cost_of_access_is_compared_within_rounds() -> None:
    # The machine halves its speed in each round; a token costs 2 % in all of them.
    costs = [{OPEN.name: speed * 1e-6, TOKEN.name: speed * 1.02e-6} for speed in (10.0, 20.0, 40.0)]
    assert rows("cached-get", costs) == [
        "| cached-get | open | 20.00 µs | 1 | |",
        "| cached-get | a token | 20.40 µs | 1.020 | 1.020 to 1.020 |",
    ]
