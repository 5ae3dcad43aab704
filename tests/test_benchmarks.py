"""The verdicts of comparing two commits, and what the benchmarks take for a right answer."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import connections, mixed_load, sizes, steps, workers
from benchmarks.access import OPEN, TOKEN, rows
from benchmarks.against import AFTER, BEFORE, MIN_ROUNDS, compare, table, verdict
from benchmarks.cluster import COMPARISONS, NAIVE, NONE, SQLITE, STANDBY, TWO, ratios, render
from benchmarks.dialect import Answer, Etcd, Exchange, Nginx
from benchmarks.markdown import README, write_section
from benchmarks.mixed_load import CASES, MIX, Mix, Schedule, latencies
from benchmarks.summary import Loads, warning
from benchmarks.work import BULK_KEYS, CACHED_GET, DURABLE_SET, FEW, SMALL, Generated
from tenantbase.lookup import Lookup


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


def exchanges(work: str) -> list[Exchange]:
    return [Exchange(f"{work} {number}".encode(), 200, lambda answer: True) for number in range(7)]


MIXED = Mix({work.name: exchanges(work.name) for work in MIX})


def test_what_runs_beside_does_not_move_the_gets() -> None:
    schedules = [MIXED.schedule(case, 1_000.0, 20.0, b"delete") for case in CASES]
    gets = [
        [
            (due, request)
            for due, name, request in zip(each.dues, each.names, each.requests, strict=True)
            if name == CACHED_GET.name
        ]
        for each in schedules
    ]
    assert all(each == gets[0] for each in gets)
    for case, schedule in zip(CASES, schedules, strict=True):
        assert schedule.dues == sorted(schedule.dues)
        assert schedule.requests.count(b"delete") == schedule.names.count("") == case.deletes
        for work, share in MIX.items():
            wanted = share / 100 * 20_000 if work in case.work else 0
            assert schedule.names.count(work.name) == pytest.approx(wanted, rel=0.1)


def test_requests_that_were_due_during_a_deletion_are_told_apart() -> None:
    get, put = CACHED_GET.name, DURABLE_SET.name
    schedule = Schedule([b""] * 5, [0.0, 1.0, 1.5, 2.5, 3.5], [get, "", get, put, get])
    # In the order of the answers: the deletion, from 1.0 to 3.0, ends after two later requests.
    found, deletion = latencies(schedule, [0, 2, 3, 1, 4], [0.1, 0.2, 0.3, 2.0, 0.4])
    assert found == {
        (get, False): [0.1, 0.2, 0.4],
        (get, True): [0.2],
        (put, False): [0.3],
        (put, True): [0.3],
    }
    assert deletion == 2.0


def mixed_results(worst: float, others: float = 0.0) -> dict[str, Any]:
    """Three rounds, at a third of the speed each; beside lists, a get takes ``worst`` times as long."""
    loads = [
        {
            "round": number,
            "beside": case.name,
            "work": work.name,
            "requests": 1_000,
            "p50": 0.0001,
            "p99": 0.001 * speed * (worst if case.name == "sets, lists" else 1.5),
            "p99.9": 0.01,
            "late": 0.0,
            "deletion": 0.25 if case.deletes else 0.0,
            "others": others,
        }
        for number, speed in enumerate((1.0, 3.0, 9.0))
        for case in CASES
        for work in case.work[:2]
    ]
    return {
        "settings": {"rounds": 3, "seconds": 10.0, "keys": 100_000},
        "rate": 3_000.0,
        "loads": loads,
    }


def test_a_mixed_load_is_compared_within_rounds() -> None:
    results = mixed_results(worst=6.0)
    assert mixed_load.ratios(results["loads"], CACHED_GET.name, "sets, lists") == [4.0] * 3
    shown = mixed_load.render(results)
    assert "**Not reached: the goal is" in shown
    assert "At most, it was 4.0 times as long, beside: sets, lists.**" in shown
    assert "Deleting 100,000 keys by their prefix took 250 ms" in shown
    assert "measure again" not in shown
    assert "**Reached:" in mixed_load.render(mixed_results(worst=4.0))
    assert "used up to 40%" in mixed_load.render(mixed_results(worst=4.0, others=0.4))


def test_a_second_worker_is_compared_within_rounds() -> None:
    costs = {1: [20e-6, 40e-6, 30e-6], 2: [21e-6, 42e-6, 40e-6]}
    results: dict[str, Any] = {
        "settings": {"rounds": 3, "seconds": 2},
        "loads": [
            {"round": number, "workers": count, "cost": cost, "others": 0.0}
            for count, each in costs.items()
            for number, cost in enumerate(each)
        ],
    }
    shown = workers.render(results)
    cells = [tuple(map(str.strip, line.split("|")[1:-1])) for line in shown.splitlines()]
    assert ("1", "30.0 µs", "20.0 to 40.0") in cells
    assert ("2", "40.0 µs", "21.0 to 42.0") in cells
    assert "would answer 1.90 times as many" in shown and "(1.50 to 1.90," in shown
    assert "reached" in shown and "measure again" not in shown
    results["loads"][0]["others"] = 0.2
    assert "used up to 20%" in workers.render(results)


@pytest.mark.parametrize(("late", "said"), [(0.0004, False), (0.0008, True)])
def test_a_late_generator_is_reported(late: float, said: bool) -> None:
    assert bool(warning(0.0, [{"p99": 0.001, "late": late}])) == said


def size_results(bytes_each: int) -> dict[str, Any]:
    sizes = (1_000, 100_000)
    costs = {f"{name}_{what}": 2.0 for name in ("check", "backup") for what in ("seconds", "peak")}
    records = [
        {
            "entries": size,
            "import_rate": 1e5,
            "import_peak": 1e6,
            "database_bytes": size * bytes_each,
            "start_seconds": 0.3,
            **costs,
        }
        for size in sizes
    ]
    rates = {"cold": 2e4, "cached": 4e4, "sets": 1e4, "lists": 400.0, "others": 0.0}
    latency = {"p50": 0.001, "p99": 0.004, "p99.9": 0.01, "late": 0.0}
    loads = [
        {"round": number, "entries": size, **rates, **latency, "cold": rate * 1e6 / size}
        for number, rate in enumerate((1.0, 2.0, 9.0))
        for size in sizes
    ]
    return {"settings": {"rounds": 3, "seconds": 5}, "sizes": records, "loads": loads}


def test_growth_is_shown_from_the_smallest_to_the_largest() -> None:
    results = size_results(240)
    shown = sizes.render(results)
    (cold,) = (line for line in shown.splitlines() if line.startswith("| cold get"))
    assert cold.split() == [
        "|",
        "cold",
        "get",
        "|",
        "2,000",
        "/s",
        "|",
        "20",
        "/s",
        "|",
        "0.01",
        "|",
    ]
    assert "under 250 bytes for an entry (reached at all sizes)" in shown
    assert sizes.curves(results)["cold get (/s)"] == [(1_000, 2_000.0), (100_000, 20.0)]
    assert "(missed at 1,000, 100,000)" in sizes.render(size_results(300))


def test_entries_that_are_made_when_asked_for_are_the_same() -> None:
    assert dict(Generated(FEW)) == FEW.entries()


def test_events_are_judged_by_the_goal() -> None:
    idle = {"p99_alone": 0.001, "p99_beside": 0.002, "opening": 1e-4, "memory": 8192, "others": 0.0}
    ask = {"rate": 9_990.0, "cost": 2e-5, "p50": 1e-4, "p99": 1e-3, "p99.9": 2e-3, "late": 0.0}
    watch = [
        {
            "sent": sent,
            "events": 20,
            "cost": cost,
            "behind": 0.1,
            "set_p99": 0.01,
            "late": 0.0,
            "memory": 10_240,
        }
        for sent, cost in (("one at a time", 9e-6), ("100 a second", 5e-6))
    ]
    results = {
        "settings": {"rounds": 1, "connections": 10_000, "watchers": 5_000},
        "idle": [idle],
        "watch": [{**each, "others": 0.1} for each in watch],
        "ask": [{**ask, "others": 0.0}],
    }
    cells = {
        tuple(cell.strip() for cell in line.split("|")[1:-1])
        for line in connections.render(results).splitlines()
    }
    assert ("one at a time", "20", "9.0 µs", "no", "100 ms", "10.0 ms", "0.00 ms") in cells
    assert ("100 a second", "20", "5.0 µs", "yes", "100 ms", "10.0 ms", "0.00 ms") in cells
    assert ("memory of an idle connection, of 10,000", "8.0 KiB") in cells
    assert ("memory of a watcher, of 5,000", "10.0 KiB") in cells
    assert "used up to 10% of both cores" in connections.render(results)


def test_only_its_section_of_a_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    begin, end = "<!-- size: written by scripts/bench -->", "<!-- end of size -->"
    page.write_text(f"before\n{begin}\n\nold\n\n{end}\nafter\n")
    write_section("size", "scripts/bench", "new", page)
    assert page.read_text() == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"


@pytest.mark.parametrize(
    "part", [mixed_load.PART.name, connections.PART.name, "size", workers.PART.name]
)
def test_each_part_has_a_section(part: str) -> None:
    text = README.read_text()
    begin = text.index(f"<!-- {part}: written by scripts/bench --{part} --publish -->")
    assert begin < text.index(f"<!-- end of {part} -->")


def test_each_step_of_a_read_does_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that failed would seem to be fast."""
    done: list[Any] = []

    def once(work: Callable[[], object]) -> float:
        done.append(work())
        return 1.0

    monkeypatch.setattr(steps, "_least", once)
    records = steps.measure(tmp_path)
    assert {record["seconds"] for record in records} == {1.0 / BULK_KEYS}
    results = dict(zip((record["step"] for record in records), done, strict=True))
    end, missing = results["parsing memcached's answer"]
    assert end > BULK_KEYS * 100 and missing == 0
    opened = results["opening its item, MAC included"]
    assert all(isinstance(lookup, Lookup) and lookup.entry is not None for lookup in opened)
    again = results["the same, remembered"]
    assert [lookup.entry for lookup in again] == [lookup.entry for lookup in opened]
    documents = results["its JSON"]
    assert len(opened) == len(again) == len(documents) == BULK_KEYS
