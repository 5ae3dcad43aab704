"""The rules for keys, times and types."""

from __future__ import annotations

import math

import pytest

from tenantbase.entry import (
    JSON,
    MAX_KEY_BYTES,
    MAX_TIME,
    Entry,
    check_key,
    check_keys,
    expiry,
    is_json,
)
from tenantbase.errors import InvalidRequest
from tenantbase.scope import ScopedKey


@pytest.mark.parametrize("key", ["k", "k" * MAX_KEY_BYTES, "é" * (MAX_KEY_BYTES // 2), "\x01 /"])
def test_keys(key: str) -> None:
    assert check_key(key) == key
    assert check_keys([key, "x"], "keys") == [key, "x"]


@pytest.mark.parametrize(
    "key",
    ["", "\0", "a\0", "k" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2) + "k", "\ud83d"],
)
def test_illegal_keys(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_key(key, "f")
    assert caught.value.field == "f"
    with pytest.raises(InvalidRequest) as caught:
        check_keys(["a", key, "b"], "keys")
    assert caught.value.field == "keys[1]"


def test_an_entry_is_absent_from_the_moment_that_it_expires() -> None:
    entry = Entry(ScopedKey("k"), b"1", JSON, "0" * 36, 1, 10.0)
    assert entry.alive(9.999) and not entry.alive(10.0)
    assert Entry(ScopedKey("k"), b"1", JSON, "0" * 36, 1, None).alive(MAX_TIME)


def test_when_an_entry_expires() -> None:
    assert expiry(100.0, None, None) is None
    assert expiry(100.0, 0.5, None) == 100.5
    assert expiry(100.0, None, 100.5) == 100.5
    assert expiry(100.0, MAX_TIME - 100.0, None) == expiry(100.0, None, MAX_TIME) == MAX_TIME


@pytest.mark.parametrize(
    ("ttl", "expires_at", "field"),
    [
        (0.0, None, "ttl"),
        (-1.0, None, "ttl"),
        (math.inf, None, "ttl"),
        (math.nan, None, "ttl"),
        (MAX_TIME, None, "ttl"),
        (None, 100.0, "expires_at"),
        (None, math.nan, "expires_at"),
        (None, MAX_TIME + 1, "expires_at"),
        (1.0, 200.0, "expires_at"),
    ],
)
def test_invalid_expiries(ttl: float | None, expires_at: float | None, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        expiry(100.0, ttl, expires_at)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("content_type", "json"),
    [
        (JSON, True),
        ("Application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("application/LD+JSON ; a=b", True),
        ("text/json", False),
        ("application/jsonx", False),
        ("text/plain; a=application/json", False),
    ],
)
def test_what_is_json(content_type: str, json: bool) -> None:
    assert is_json(content_type) is json
