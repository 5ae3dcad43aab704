"""The verdicts of comparing two commits, and what the benchmarks take for a right answer."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from benchmarks.access import OPEN, TOKEN, rows
from benchmarks.against import AFTER, BEFORE, MIN_ROUNDS, compare, table, verdict
from benchmarks.cluster import COMPARISONS, NAIVE, NONE, SQLITE, STANDBY, TWO, ratios, render
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


def test_a_cluster_is_compared_within_rounds() -> None:
    # The machine halves its speed in each round; a node does 0.8 of the SQLite node in all of them.
    rates = {SQLITE: 1.0, STANDBY: 0.8, NONE: 0.9, NAIVE: 0.2, TWO: 0.76}
    records: list[dict[str, Any]] = [
        {
            "round": number,
            "work": wanted,
            "service": service,
            "rate": rate * speed,
            "cost": 1e-6 / speed,
            "primary": (50e-6 if service == NAIVE else 2e-6) / speed,
            "load_busy": 0.5,
            "others": 0.0,
        }
        for number, speed in enumerate((8_000.0, 4_000.0, 2_000.0))
        for wanted in ("cached-get", "durable-set")
        for service, rate in rates.items()
    ]
    found = {each: ratios(records, each) for each in COMPARISONS}
    assert all(len(each) == 3 for each in found.values())
    assert found[COMPARISONS[0]] == pytest.approx([0.8] * 3)
    (asked,) = (
        each for each in COMPARISONS if each.figure == "primary" and each.service == STANDBY
    )
    assert found[asked] == pytest.approx([0.04] * 3)
    shown = render(records)
    assert "| cached-get | throughput of node, standby / SQLite node | 0.800 |" in shown
    assert "| durable-set | naive on PostgreSQL | 800 |" in shown
    assert "measure again" not in shown and "was the limit" not in shown


def cluster_records(load_busy: float, others: float) -> list[dict[str, Any]]:
    """One round, in which the naive service had these figures."""
    same = {"round": 0, "rate": 1.0, "cost": 1.0, "primary": 1.0}
    return [
        {
            **same,
            "work": work,
            "service": service,
            "load_busy": load_busy if service == NAIVE else 0.5,
            "others": others if service == NAIVE else 0.0,
        }
        for work in ("cached-get", "durable-set")
        for service in (SQLITE, STANDBY, NONE, NAIVE, TWO)
    ]


def test_a_run_of_a_cluster_says_what_limited_it() -> None:
    assert "was the limit for: naive on PostgreSQL." in render(cluster_records(0.99, 0.0))
    assert "was the limit" not in render(cluster_records(0.9, 0.0))


def test_a_disturbed_run_of_a_cluster_says_so() -> None:
    shown = render(cluster_records(0.99, 0.4))
    assert "Other programs used up to 40% of both cores" in shown
    assert "was the limit" not in shown  # it may have been the others
