"""Bodies of writes: a value read in pieces is the value read at once."""

from __future__ import annotations

from itertools import product

import pytest

from tenantbase import json_requests
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import SET_VALUE, SetValue, content, content_pieces
from tenantbase.json_text import parse


def outcome(given: SetValue, in_pieces: bool) -> object:
    try:
        return b"".join(content_pieces(given)) if in_pieces else content(given)
    except InvalidRequest as error:
        return error.detail, error.field


@pytest.mark.parametrize("media", ["", ',"content_type":"a/b"', ',"content_type":"a/b+json"'])
def test_base64_in_pieces(monkeypatch: pytest.MonkeyPatch, media: str) -> None:
    monkeypatch.setattr(json_requests, "_DECODED_BYTES", 4)
    groups = ["QUJD", "QUI=", "QQ==", "QQ=", "Q", "=", "====", r"\/\/QQ", r"\u0051QQQ", "Q-_D", "é"]
    for text in map("".join, (*product(groups, repeat=3), *product(groups, repeat=2), *groups, "")):
        body = f'{{"key":"k","value":"{text}","encoding":"base64"{media}}}'
        given = parse(SET_VALUE, body.encode())
        assert outcome(given, True) == outcome(given, False), text


@pytest.mark.parametrize("value", ["1", "null", "[]", "1234567890", "[12345678]", "{}", "true"])
def test_what_is_no_string_is_not_base64(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(json_requests, "_DECODED_BYTES", 4)
    given = parse(SET_VALUE, f'{{"key":"k","value":{value},"encoding":"base64"}}'.encode())
    assert outcome(given, True) == outcome(given, False) == ("expected a base64 string", "value")
