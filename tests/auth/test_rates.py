"""Token buckets: what they admit, in one process and in several."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tenantbase.auth.rates import Rates


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def admitted(rates: Rates, tenant: str, rate: int, asked: int) -> int:
    bucket = rates.bucket(tenant, rate)
    return sum(not bucket.take() for _ in range(asked))


@pytest.mark.parametrize("rate", [1, 2, 99, 100, 1_000, 12_345])
def test_a_second_admits_the_rate(rate: int) -> None:
    clock = Clock()
    rates = Rates(clock)
    assert admitted(rates, "a", rate, 2 * rate) == rate
    assert admitted(rates, "a", rate, 5) == 0
    clock.now += 1
    assert admitted(rates, "a", rate, 2 * rate) == rate
    clock.now += 3_600
    assert admitted(rates, "a", rate, 2 * rate) == rate, "what was not used does not add up"


def test_it_says_when_the_next_one_is_admitted() -> None:
    clock = Clock()
    rates = Rates(clock)
    bucket = rates.bucket("a", 4)
    assert [bucket.take() for _ in range(4)] == [0] * 4
    wait = bucket.take()
    assert wait == pytest.approx(0.25)
    clock.now += wait + 1e-6
    assert bucket.take() == 0 and bucket.take() > 0


def test_tenants_have_buckets_of_their_own() -> None:
    rates = Rates(Clock())
    assert admitted(rates, "a", 3, 9) == 3
    assert [admitted(rates, f"t{n}", 3, 9) for n in range(1_000)] == [3] * 1_000
    assert admitted(rates, "a", 3, 9) == 0


def test_another_rate_does_not_refill_the_bucket() -> None:
    rates = Rates(Clock())
    assert admitted(rates, "a", 3, 9) == 3
    assert admitted(rates, "a", 300, 9) == 0
    assert admitted(rates, "b", 300, 100) == 100
    assert admitted(rates, "b", 5, 100) == 5, "200 were left, of which a lower rate keeps its own"


def test_what_was_taken_in_advance_is_given_back() -> None:
    clock = Clock()
    rates = Rates(clock)
    bucket = rates.bucket("a", 1_000)
    assert bucket.take() == 0, "one of ten that were taken in advance"
    assert admitted(another_worker(rates), "a", 1_000, 2_000) == 990
    clock.now += 0.0201
    assert bucket.take() == 0, "the nine that were left, and ten of the twenty-nine then"
    assert admitted(another_worker(rates), "a", 1_000, 2_000) == 19


def another_worker(rates: Rates) -> Rates:
    """The same memory, as another worker sees it."""
    view = object.__new__(Rates)
    view.__dict__.update(rates.__dict__, _buckets={})
    return view


def test_what_is_given_back_is_admitted_again() -> None:
    rates = Rates(Clock())
    bucket = rates.bucket("a", 1)
    assert bucket.take() == 0
    bucket.give_back()
    assert bucket.take() == 0 and bucket.take() > 0


def test_processes_share_a_bucket_and_a_killed_one_leaves_no_lock() -> None:
    rates = Rates()
    began = time.monotonic()
    pids = []
    pipes = []
    for _ in range(3):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            count = admitted(rates, "a", 500, 5_000)
            os.write(write, count.to_bytes(4, "little"))
            while True:  # until it is killed, perhaps with the lock
                rates.bucket("b", 10**9).take()
                rates._buckets.clear()
        os.close(write)
        pids.append(pid)
        pipes.append(read)
    try:
        total = sum(int.from_bytes(os.read(pipe, 4), "little") for pipe in pipes)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    assert 500 <= total <= 500 * (1 + seconds) + 3 * 5
    assert rates.bucket("b", 1).take() >= 0, "no lock is left"
