"""Heads that are too long, or that are not plain although their request line is."""

from __future__ import annotations

import pytest

from tenantbase.web.fast_path.framing import frame
from tenantbase.web.fast_path.parser import GENERAL, RequestParser

LINE = b"GET /health-check HTTP/1.1\r\n"


@pytest.mark.parametrize("after", [b"", LINE, b"\r\n", LINE + b"Host: localhost\r\n\r\n"])
def test_a_head_without_fields_is_complete(after: bytes) -> None:
    """It is refused at once; the server does not wait for more."""
    assert RequestParser(lambda headers: True).parse(LINE + b"\r\n" + after) is GENERAL


@pytest.mark.parametrize("name", [b"Connection", b"Proxy-Connection"])
@pytest.mark.parametrize("value", [b"close", b"Close", b"upgrade", b"keep-alive, close", b""])
def test_a_connection_that_must_close_goes_to_the_general_path(name: bytes, value: bytes) -> None:
    """llhttp, which parses there, obeys either field."""
    head = b"%bHost: localhost\r\n%b: %b\r\n\r\n" % (LINE, name, value)
    assert RequestParser(lambda headers: True).parse(head) is GENERAL


@pytest.mark.parametrize(("fields", "plain"), [(600, True), (700, False)])
def test_a_head_has_64_kibibytes(fields: int, plain: bool) -> None:
    """The general parser limits each field, but not their total."""
    head = LINE + b"Host: localhost\r\n" + b"X: %b\r\n" % (b"x" * 95) * fields + b"\r\n"
    framed = frame(head)
    assert (framed is not None) == plain == (len(head) <= 65_536)
    assert framed is None or (framed.head_end, framed.body_length) == (len(head), 0)
