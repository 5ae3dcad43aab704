"""Addresses of memcached as users write them."""

from __future__ import annotations

import pytest

from tenantbase.interfaces.memcached.address import MemcacheAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:11211", MemcacheAddress(host="localhost", port=11211)),
        ("127.0.0.1:1", MemcacheAddress(host="127.0.0.1", port=1)),
        ("cache-1.example.com.:65535", MemcacheAddress(host="cache-1.example.com.", port=65535)),
        ("[::1]:11211", MemcacheAddress(host="::1", port=11211)),
        ("unix:/run/memcached.sock", MemcacheAddress(path="/run/memcached.sock")),
        ("unix:relative path", MemcacheAddress(path="relative path")),
        ("unix:/" + "x" * 102, MemcacheAddress(path="/" + "x" * 102)),
    ],
)
def test_valid_addresses(text: str, address: MemcacheAddress) -> None:
    assert MemcacheAddress.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither HOST:PORT nor unix:PATH"),
        ("localhost", "neither HOST:PORT nor unix:PATH"),
        (":11211", "neither HOST:PORT nor unix:PATH"),
        ("a b:11211", "neither HOST:PORT nor unix:PATH"),
        ("localhost\n:11211", "neither HOST:PORT nor unix:PATH"),
        ("http://localhost:11211", "an IPv6 address is written in brackets"),
        ("a..b:11211", "neither HOST:PORT nor unix:PATH"),
        (".".join(["x" * 63] * 4) + ":11211", "neither HOST:PORT nor unix:PATH"),
        ("x" * 64 + ":11211", "neither HOST:PORT nor unix:PATH"),
        ("::1:11211", "an IPv6 address is written in brackets"),
        ("[localhost]:11211", "no IPv6 address between the brackets"),
        ("[]:11211", "no IPv6 address between the brackets"),
        ("localhost:", "a port is a number from 1 to 65535"),
        ("localhost:0", "a port is a number from 1 to 65535"),
        ("localhost:65536", "a port is a number from 1 to 65535"),
        ("localhost:-1", "a port is a number from 1 to 65535"),
        ("localhost:1e3", "a port is a number from 1 to 65535"),
        ("localhost:\u0661", "a port is a number from 1 to 65535"),
        ("localhost:11211\n", "a port is a number from 1 to 65535"),
        ("unix:", "1 to 103 bytes"),
        ("unix:/a\0b", "1 to 103 bytes"),
        ("unix:/" + "\u00e9" * 60, "1 to 103 bytes"),
        ("unix:/" + "x" * 103, "1 to 103 bytes"),
    ],
)
def test_invalid_addresses(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MemcacheAddress.parse(text)
