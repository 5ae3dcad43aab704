"""The rules for JSON from outside, against Python's own parser."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import SET_VALUE, read_many, split_many
from tenantbase.json_text import (
    MAX_DEPTH,
    Decoder,
    NotJson,
    Text,
    _depth,
    check_json,
    check_lone_list,
    check_names,
    check_utf8,
    parse,
)

# Text that could be mistaken for structure.
TEXT = some.text('ab"\\[]{},: \n\u00e9\U0001f600', max_size=8)
VALUES: some.SearchStrategy[Any] = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(-1e9, 1e9) | TEXT,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LAYOUTS = [(",", ":"), (", ", ": "), (" ,\n", "\t: ")]


def depth(value: object) -> int:
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


@given(VALUES, some.sampled_from(LAYOUTS), some.booleans())
def test_depth(value: object, layout: tuple[str, str], ascii_only: bool) -> None:
    text = json.dumps(value, separators=layout, ensure_ascii=ascii_only).encode()
    assert _depth(text) == _depth(memoryview(text)) == depth(value)


@pytest.mark.parametrize(
    "filler", ["", "x" * 65_530, '"' * 65_533, "\\" * 40_000, '[{\\"]' * 30_000]
)
def test_depth_of_long_texts(filler: str) -> None:
    value: object = filler
    for _ in range(50):
        value = [value, filler[:100]]
    assert _depth(json.dumps(value).encode()) == 50


@pytest.mark.parametrize("shift", range(5))
def test_escapes_across_pieces(shift: int) -> None:
    """Wherever a text is cut, a backslash belongs to what follows it."""
    text = b'[%b["%b", "]"]]' % (b" " * shift, rb"[\"\\" * 50_000)
    assert _depth(text) == _depth(memoryview(text)) == 2


@pytest.mark.parametrize("shift", range(4))
def test_characters_across_pieces(shift: int) -> None:
    text = b" " * shift + "é€😀".encode() * 30_000
    check_utf8(text, None)
    check_utf8(memoryview(text), None)
    for wrong, at in ((text[:-1], len(text) - 4), (text + b"\xff ", len(text))):
        for form in (wrong, memoryview(wrong)):
            with pytest.raises(NotJson, match=f"not valid UTF-8 at byte {at}$"):
                check_utf8(form, None)


@given(
    some.lists(some.tuples(some.sampled_from(["key", "value", "ttl", 'a"', ""]), VALUES)),
    some.sampled_from(LAYOUTS),
    some.booleans(),
    some.booleans(),
)
@example([("key", [1]), ("value", [1]), ("value", [1])], LAYOUTS[0], False, True)
@example([("value", [[1], 2]), ("value", [1])], LAYOUTS[0], False, True)
def test_a_name_given_twice_is_found(
    members: list[tuple[str, object]], layout: tuple[str, str], escaped: bool, known: bool
) -> None:
    def name(text: str) -> str:
        return "".join(f"\\u{ord(c):04x}" for c in text) if escaped else json.dumps(text)[1:-1]

    comma, colon = layout
    written = comma.join(
        f'"{name(key)}"{colon}{json.dumps(value, separators=layout)}' for key, value in members
    )
    text = f" {{{written}}}\n".encode()
    names = [key for key, _ in members]
    # Passing a value's text saves work but changes no result.
    value = None
    if known and len({key for key, value in members if isinstance(value, list | dict)}) == 1:
        large = next(key for key, value in members if isinstance(value, list | dict))
        last = [value for key, value in members if key == large][-1]
        value = json.dumps(last, separators=layout).encode()
    if len(set(names)) == len(names):
        check_names(text, value)
        check_names(memoryview(text), None if value is None else memoryview(value))
    else:
        with pytest.raises(InvalidRequest, match="given more than once") as caught:
            check_names(text, value)
        assert caught.value.field is not None and names.count(caught.value.field) > 1


@given(some.sampled_from(["key", "value", "ttl", "if_absent"]), TEXT, VALUES, some.booleans())
@example("key", "", 0, False)
@example("key", "", 0, True)
@example("value", "", 0, False)
@example("value", "kkkkkkkkkkkkkkkkkkkk", 0, True)
def test_every_short_cut_finds_a_field_given_twice(
    field: str, key: str, value: object, first: bool
) -> None:
    shortest = {"key": '""', "value": "0", "ttl": "1", "if_absent": "null"}
    body = f'"key":{json.dumps(key)},"value":{json.dumps(value)}'
    again = f'"{field}":{shortest[field]}'
    body = f"{again},{body}" if first else f"{body},{again}"
    if field not in ("key", "value"):
        parse(SET_VALUE, f"{{{body}}}".encode())
        body += f",{again}"
    with pytest.raises(InvalidRequest, match="given more than once") as caught:
        parse(SET_VALUE, f"{{{body}}}".encode())
    assert caught.value.field == field


ENTRY = b'{"key":"a","value":[1, {"key":2}]}'
LISTS = (b"", b" ", b"1", b"[]", b"12", b"1,2", ENTRY, ENTRY + b" ,\n" + ENTRY, b" [ ] , [[]] ")


@pytest.mark.parametrize("text", LISTS)
@pytest.mark.parametrize(
    "form", [b'{"values":[%b]}', b' { "values" : [ %b ] } ', b'{"values":[%b\n]\n}']
)
def test_a_list_given_once_is_not_mistaken_for_two(form: bytes, text: bytes) -> None:
    body = form % text
    values = msgspec.json.decode(body, type=Lists).values
    check_lone_list(body, [bytes(value) for value in values])
    check_lone_list(body, [memoryview(value) for value in values])


@pytest.mark.parametrize("second", LISTS)
@pytest.mark.parametrize("first", LISTS)
def test_a_list_given_twice_is_found(first: bytes, second: bytes) -> None:
    for name in (b"values", rb"\u0076alues"):
        body = b'{"%b":[%b], "values": [%b]}' % (name, first, second)
        values = msgspec.json.decode(body, type=Lists).values
        forms: list[list[Text]] = [[bytes(value) for value in values]]
        forms.append([memoryview(value) for value in values])
        for items in forms:
            with pytest.raises(InvalidRequest, match="'values' is given more than once") as caught:
                check_lone_list(body, items)
            assert caught.value.field == "values"


@pytest.mark.parametrize("last", ["1", "[1]", "[1,2]"])
def test_a_repeated_value_that_is_not_used_is_not_scanned(
    last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million brackets take a second."""

    def after_scalar(text: bytes, position: int) -> int:
        assert text[position : position + 1] not in (b"[", b"{")
        return position

    monkeypatch.setattr("tenantbase.json_text._after_value", after_scalar)
    for key in ("", '"key":"k",'):
        body = f'{{{key}"value":[1],"key":"k","value":{last}}}'
        with pytest.raises(InvalidRequest, match="given more than once"):
            parse(SET_VALUE, body.encode())
    parse(SET_VALUE, f'{{"value":{last},"key":"k","ttl":1,"expires_at":null}}'.encode())
    entry = f'{{"value":{last},"key":"k","ttl":1,"expires_at":null}}'
    assert list(read_many(split_many(f'{{"values":[{entry}]}}'.encode(), 1)))


class Lists(msgspec.Struct):
    """As the body of ``set-values``."""

    values: list[msgspec.Raw]


def test_names_inside_a_value_may_repeat() -> None:
    body = b'{"key":"k","ttl":5,"value":{"a":1,"a":{"key":2,"key":[{"key":3}]}},"if_version":7}'
    assert bytes(parse(SET_VALUE, body).value) == body[27:-16]


@pytest.mark.parametrize("text", [r'"\ud83d"', r'["\\\ud83d"]', r'"\udc00 "', r'"\uDBFF\u0041"'])
def test_a_lone_surrogate_is_named(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"lone surrogate, \\u[dD]") as caught:
        check_json(text.encode(), "value")
    assert not isinstance(caught.value, NotJson)
    assert caught.value.field == "value"


@pytest.mark.parametrize("text", [r'"\ud83d\ude00"', r'"\\ud83d"', r'"\\\\udc00"'])
def test_text_that_looks_like_a_lone_surrogate_is_allowed(text: str) -> None:
    check_json(text.encode(), "value")
    with pytest.raises(NotJson, match="not valid JSON"):
        check_json(text.encode()[:-1], "value")


@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a[":', b"}")])
def test_the_deepest_value(begin: bytes, end: bytes) -> None:
    check_json(begin * MAX_DEPTH + b"0" + end * MAX_DEPTH, None)
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InvalidRequest, match="nested too deeply") as caught:
            check_json(begin * levels + b"0" + end * levels, None)
        assert not isinstance(caught.value, NotJson)


def test_long_values_that_are_not_deep() -> None:
    check_json(b"[" + b",".join([b"[{}]"] * 10_000) + b"]", None)
    check_json(b'"' + b"[" * 10_000 + b'"', None)


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: int


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: list[_Inner]
    name: str = ""


@pytest.mark.parametrize(
    ("body", "detail", "field"),
    [
        (b"[]", "expected `object`, got `array`", None),
        (b"{}", "object missing required field `inner`", "inner"),
        (b'{"inner":[],"x":1}', "object contains unknown field `x`", "x"),
        (b'{"inner":[],"name":1}', "expected `str`, got `int`", "name"),
        (b'{"inner":[{}]}', "object missing required field `count`", "inner[0].count"),
        (
            b'{"inner":[{"count":1},{"count":1,"x":1}]}',
            "object contains unknown field `x`",
            "inner[1].x",
        ),
        (b'{"inner":[{"count":"1"}]}', "expected `int`, got `str`", "inner[0].count"),
    ],
)
def test_errors_name_the_field(body: bytes, detail: str, field: str | None) -> None:
    """The field comes from the text of msgspec's error. If this fails after an update, msgspec
    words its errors differently, and ``_invalid`` must be adapted."""
    with pytest.raises(InvalidRequest) as caught:
        parse(Decoder(_Outer), body)
    assert (caught.value.detail, caught.value.field) == (detail, field)


@pytest.mark.parametrize(
    ("body", "detail"),
    [(b"{", "truncated"), (b"{]", r"\(byte 1\)"), (b'{"inner":[]}x', r"\(byte 13\)")],
)
def test_errors_of_grammar_say_where(body: bytes, detail: str) -> None:
    """As above, for the error texts that ``_not_json`` passes on."""
    with pytest.raises(NotJson, match=f"^the body is not valid JSON: .*{detail}"):
        parse(Decoder(_Outer), body)


def test_depth_is_counted_over_all_of_a_long_text() -> None:
    half = MAX_DEPTH // 2
    gap = b" " * (1 << 17)
    legal = b"[" * half + gap + b"[" * half + b"]" * half + gap + b"]" * half
    check_json(legal, None)
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        check_json(
            b"[" * half + gap + b"[" + legal[half + len(gap) : -half] + b"]" * (half + 1), None
        )


class _One(msgspec.Struct, forbid_unknown_fields=True):
    a: int


def test_the_only_field_given_twice() -> None:
    assert Decoder(_One).decode(b'{"a": 1}').a == 1
    with pytest.raises(InvalidRequest, match="'a' is given more than once"):
        Decoder(_One).decode(b'{"a": 1, "a": 2}')


def test_a_long_name_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Decoder(_One).decode(b'{"a": 1, "%b": 2}' % (b"x" * 10_000))
    assert len(caught.value.detail) < 200 and len(caught.value.field or "") < 200


def test_a_value_is_utf_8() -> None:
    with pytest.raises(NotJson, match="not valid UTF-8 at byte 1"):
        check_json(b'"\xff"', "value")
