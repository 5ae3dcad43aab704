"""Framing: the end of a request is known only where it is unambiguous."""

from __future__ import annotations

import pytest

from tenantbase.web.fast_path.framing import frame
from tests.wire import request


def test_a_request_ends_with_its_body() -> None:
    data = request("PUT", "/v1/values/a", "hello")
    framed = frame(b"xx" + data + b"GET", 2)
    assert framed is not None
    assert framed.head_end + framed.body_length == 2 + len(data)
    for option in ("keep-alive", "close"):
        framed = frame(request("OPTIONS", "*", headers={"Connection": option}))
        assert framed is not None and framed.body_length == 0


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: keep-alive\r\nContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, upgrade\r\n\r\n",
    ],
)
def test_ambiguous_framing_is_left_to_the_general_path(head: str) -> None:
    assert frame(head.encode()) is None
