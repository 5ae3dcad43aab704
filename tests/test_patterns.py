"""Examining what a client sends takes time proportional to its length.

This test finds every regular expression of the package, and fails if one has no worst cases listed.
It measures processor time, not elapsed time, on inputs so long that anything worse than linear
exceeds the limit by orders of magnitude.
"""

from __future__ import annotations

import ast
import gc
import importlib
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from tenantbase.entry import is_json
from tenantbase.errors import TenantbaseError
from tenantbase.json_requests import SET_VALUE
from tenantbase.json_text import check_json, check_names, parse
from tenantbase.media_types import check_media_type, is_active
from tenantbase.web.guard import Guard
from tenantbase.web.handlers.lists import prefers_ndjson
from tenantbase.web.semantics.conditions import not_modified, range_applies, write_condition
from tenantbase.web.semantics.list_requests import place_of_cursor
from tenantbase.web.semantics.negotiation import accepted_coding
from tenantbase.web.semantics.ranges import requested
from tenantbase.web.semantics.targets import VALUES, path_key, query
from tests.service import web_settings
from tests.test_project import TREES

# Half the length would need a quarter of the limit to catch the same quadratic work.
LENGTH = 100_000
CPU_SECONDS = 0.5


class TookTooLong(BaseException):
    """The time limit is exceeded. Not an Exception: the code under test must not catch it."""


@contextmanager
def limited() -> Iterator[None]:
    """Limit this process's computing time inside the block."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    gc.disable()  # to look through what other tests have left may take longer
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, before)


@cache
def compiled() -> dict[str, re.Pattern[Any]]:
    """Every pattern of the package, named after the module that defines it and its own name."""
    patterns = {}
    for module, tree in TREES.items():
        if module.rpartition(".")[2] != "__main__":
            imported = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            members = vars(importlib.import_module(f"tenantbase.{module}".rstrip(".")))
            for name, pattern in members.items():
                if isinstance(pattern, re.Pattern) and name not in imported:
                    patterns[f"{module.rpartition('.')[2]}.{name}"] = pattern
    return patterns


def loose_calls(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of ``re`` that do not assign a pattern to a name of the module."""
    named = {id(node.value) for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
            and not (node.func.attr == "compile" and id(node) in named)
        ):
            yield node


def uses(name: str) -> set[str]:
    """How the package uses a pattern: the names of the methods it calls."""
    module, _, variable = name.rpartition(".")
    found = {
        node.attr
        for path, tree in TREES.items()
        if path.rpartition(".")[2] == module
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == variable
    }
    return found & {"match", "fullmatch", "search", "sub", "split", "finditer", "findall"}


# For each pattern, a near miss for each of its repetitions: a long text that it can match in many
# ways, followed by text that it cannot match. Each consists of a head, a part that is repeated, and
# a tail.
Case = tuple[str, str, str]
NEAR_MISSES: Mapping[str, list[Case]] = {
    "cutting._LAST": [
        ("", "\r\nupgrade", ""),
        ("", " HTTP/1.0\r", ""),
        ("\r\nconnection:", " ", ""),
        ("", "\r\nconnection: keep-alive", " \r\n"),
        ("\r\nconnection: keep-alive", " ", "\r\n"),
    ],
    "cutting._LENGTH": [
        ("\r\ncontent-length:", " ", "x"),
        ("\r\ncontent-length:1", " ", "x"),
        ("", "\r\ncontent-length:1", ""),
    ],
    "targets.PATH_SAFE": [("", "a", "/"), ("a", ".", "/")],
    "arguments._NEGATIVE": [("-", "1", "x"), ("-1.", "1", "x"), ("-1e", "1", "x")],
    "environment._INJECTED": [
        ("", "A_", "x"),
        ("", "PORT_", "-"),
        ("", "SERVICE_PORT_", "-"),
        ("PORT_", "1", "x"),
        ("", "PORT_1_TCP_", "-"),
        ("ENV_", "A", "-"),
    ],
    "environment._INJECTED_ADDRESS": [("tcp://", "a", " "), ("", "tcp://", " ")],
    "confirmation._CANDIDATE": [
        ("", " ", "("),
        ("FIRST", " ", "x"),
        ("1 (", " ", "x y"),
        ('"', '""', ""),
        ("", "a", "*"),
    ],
    "conditions._GAP": [("", " ", "x"), ("", ", ", "x"), (" ", ",", "x")],
    "conditions._TAG": [('W/"', "a", "\n"), ('"', "W/", ""), ("W/", '"', " ")],
    "conditions._VERSION": [("", "1", "x"), ("", "0", "")],
    "administration._UUID": [("", "0", ""), ("00000000", "-0000", "x")],
    "odd_rows._ID": [("", "0", ""), ("00000000", "-0000", "x")],
    "row_rules._UUID": [("", "0", ""), ("00000000", "-0000", "x")],
    "row_rules._TYPES": [("", "text ", ""), ("text integer ", "null ", "")],
    "forwarding._FORWARDED_FOR": [
        ("", "\r\n", "X"),
        ("\r\nX-Forwarded-For:", " ", "\n"),
        ("", "\r\nX-Forwarded-For:", ""),
    ],
    "forwarding._WITH_PORT": [("[", "0", ""), ("[", ":", "]x"), ("", "1", ":"), ("", ".", "x")],
    "page._CODE": [("", "`", ""), ("`", "a", ""), ("", "`a", ""), ("", "a`", "")],
    "framing._FIELD": [("", "a", ""), ("a:", " ", "\n"), ("", "a:", "\n")],
    "framing._LENGTH": [("", "1", "x")],
    "framing._LINE": [("", "A", ""), ("GET ", "a", ""), ("GET ", "a HTTP/1.1", "x")],
    "guard._END_OF_AUTHORITY": [("", "a", ""), ("", "/", "")],
    "guard._HOST": [
        ("", "a", "@"),
        ("", "a.", ":x"),
        ("", ".", "/"),
        ("[", ":", "x"),
        ("[", "0.", "]x"),
        ("a:", "1", "x"),
        ("a", ":", ""),
    ],
    "joining._APPLICATION": [
        ("", "application_name ", ""),
        ("", "application_name='", ""),
        ("application_name", " ", ""),
        ("application_name='", "\\'", ""),
    ],
    "joining._ESCAPED": [("", "\\", "")],
    "json_requests._BEFORE_VALUE": [
        ("", " ", "x"),
        ("{", " ", "x"),
        ('{"key"', " ", "x"),
        ('{"key":', " ", ""),
        ('{"key":"', "a", ""),
        ('{"key":"', "\\a", ""),
        ('{"key":', "1", " x"),
        ('{"key":1', " ", "x"),
        ('{"key":1,', " ", "x"),
        ('{"key":1,"value"', " ", "x"),
    ],
    "json_requests._AFTER_VALUE": [
        ("", " ", "x"),
        (",", " ", "x"),
        (',"id"', " ", "x"),
        (',"id":', " ", ""),
        (',"id":"', "a", ""),
        (',"id":"', "\\a", ""),
        (',"id":', "1", " x"),
        (',"id":1', " ", "x"),
        ("", ',"id":1', "}"),
        ("}", " ", "x"),
    ],
    "json_text._FLAT": [('"', "\\", ""), ('"', '\\"', ""), ("", '""', '"'), ("", ', "a"', '"')],
    "json_text._END": [("", " ", "x"), ("] ", " ", "x"), ("]}", " ", "x")],
    "json_text._GAP": [("", " ", "x"), ("", ", ", "x")],
    "json_text._MEMBER": [
        ("", " ", "x"),
        ("", "{,", "x"),
        ('"', "\\a", ""),
        ('"', 'a"', ""),
        ('"a"', " ", "x"),
        ('"a":', " ", ""),
        ('"a":"', "\\\\", ""),
        ('"a":', "1", '"'),
    ],
    "json_text._NAMED": [
        ("Object contains unknown field `", "`", "x"),
        ("Object contains unknown field `", "a\n", ""),
        ("", "Object contains unknown field `", ""),
    ],
    "json_text._PAIR": [("", "\\ud83d", ""), ("", "\\ud83d\\u", ""), ("", "\\", "")],
    "json_text._SURROGATE": [("", "\\ud83", ""), ("", "\\u", ""), ("", "\\", "")],
    "media_types._MEDIA_TYPE": [
        ("a/b", ";  ", "@"),
        ("a/b", " ", "@"),
        ("a/b", " ;", "@"),
        ("a/b", ";\t", "\n"),
        ("a/b", ";a=b ", "@"),
        ("a/b", ";a=b", ";a=@"),
        ('a/b;a="', "\\a", ""),
        ('a/b;a="', "\\", ""),
        ("a/b", ';a="b" ', "@"),
        ("", "a", ""),
        ("a/", "a", "/"),
    ],
    "address._HOST": [("", "a", "!"), ("", "a.", "."), ("", "a" * 63, "."), ("", ".", "")],
    "address._PORT": [("", "1", "x")],
    "protocol._BEGUN_LINE": [
        ("VA ", "1", "x"),
        ("VA ", " ", "\n"),
        ("HD c", "c", "\n"),
        ("", "A", ""),
        ("", "\r", ""),
    ],
    "protocol._LINE": [
        ("VA ", "1", " "),
        ("VA 1 c", "1", "\r"),
        ("HD c", "1", "\n"),
        ("", "HD ", ""),
        ("", "EN\r", ""),
    ],
    "logs._UNSAFE": [("", "a", ""), ("", "\n", "")],
    "request_context._ID": [("", "a", " ")],
    "request_context._TRACEPARENT": [
        ("00-", "0", ""),
        ("01-" + "1" * 32 + "-" + "1" * 16 + "-00-", "a", "\n"),
        ("", "00-", ""),
    ],
    "negotiation._SECONDS": [("", "1", "x")],
    "negotiation._WEIGHT": [
        ("", ";", ""),
        ("", "; ", "x"),
        (";", " ", "x"),
        (";q=1", " ", "x"),
        ("", ";q=1 ", "x"),
        ("", ";q=", ""),
        (";q=1.", "0", "x"),
    ],
    "option_types._HOST": [("", "a", " ")],
    "option_types._INTEGER": [("", "1", "x")],
    "option_types._MODE": [("", "7", "x")],
    "option_types._ORIGIN": [
        ("http://", "a", "@"),
        ("http://[", ":", ""),
        ("http://a:", "1", "x"),
        ("http://a", "/", ""),
    ],
    "option_types._SIZE": [("", "1", "x"), ("1", " ", ""), ("1k", "i", "")],
    "parser._FIELD": [
        ("\r\na: ", "a", "\n"),
        ("\r\na: a", " ", "\n"),
        ("\r\na: ", "a ", "\n"),
        ("\r\n", "a", ""),
        ("\r\na:", " ", ""),
    ],
    "parser._HALF_ESCAPE": [("", "%41", ""), ("", "%", "41"), ("", "a", "%")],
    "parser._LENGTH": [("", "1", "x")],
    "parser._LINE": [
        ("GET /get-value?key=", "a", ""),
        ("GET /v1/values/", "a/", ""),
        ("POST /set-value", " ", ""),
    ],
    "outcomes._INTEGER": [("", "1", "x"), ("-", "0", ""), ("", "-", "")],
    "processors._OCTAL": [("", "\\0", ""), ("", "\\", "")],
    "ranges._RANGE": [("bytes=", " ", "x"), ("bytes=1-1", " ", "x"), ("bytes=", "1", "-")],
    "scope._TENANT": [("", "a", "/"), ("", "a-", "A")],
    "secret._BEARER": [("", "a", " "), ("a", "=", " "), ("", "a=", "")],
    "targets._BROKEN_ESCAPE": [("", "%a", ""), ("", "%aa", "")],
    "targets._INTEGER": [("", "1", "x")],
    "targets._NUMBER": [("", "1", "x"), ("1.", "1", "x"), ("", "1.", "")],
    "watch._VERSION": [("", "1", "x")],
}


def filled(case: Case) -> str:
    head, part, tail = case
    return head + part * (LENGTH // len(part)) + tail


def test_every_pattern_has_its_worst_cases() -> None:
    assert compiled().keys() == NEAR_MISSES.keys()


def test_no_group_is_possessive() -> None:
    """Python 3.11.2, which is Debian's, matches such groups wrongly."""
    possessive = r"\)(?:[*+?]|\{[0-9,]+\})\+"
    for name, pattern in compiled().items():
        text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
        assert not re.search(possessive, text), name


def test_every_pattern_has_a_name() -> None:
    """Patterns belong in a module, where they are compiled once and the test above finds them."""
    calls = {name: [call.lineno for call in loose_calls(tree)] for name, tree in TREES.items()}
    assert {name: lines for name, lines in calls.items() if lines} == {}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_no_pattern_takes_more_than_linear_time(name: str) -> None:
    pattern = compiled()[name]
    for case in NEAR_MISSES[name]:
        text: Any = filled(case)
        if isinstance(pattern.pattern, bytes):
            text = text.encode()
        for use in uses(name) or {"match", "fullmatch", "search"}:
            arguments = (text[:0], text) if use == "sub" else (text,)
            with limited():
                getattr(pattern, use)(*arguments)


def test_the_limit_catches_superlinear_patterns() -> None:
    with pytest.raises(TookTooLong), limited():
        re.compile("a*a*b").match("a" * LENGTH)


def test_routes_are_matched_by_patterns_that_cannot_backtrack() -> None:
    """aiohttp compiles the patterns in paths."""
    paths = [
        node.value
        for name in TREES
        if name.startswith("web")
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    patterns = {match[1] for path in paths if (match := re.fullmatch(r"/\S*\{\w+:(.*)\}", path))}
    assert patterns == {r"[\s\S]*"}


# --- Code that reads headers, targets and bodies, with patterns or without.


def request(headers: Mapping[str, str], target: str = "/") -> web.Request:
    return make_mocked_request("PUT", target, CIMultiDict(headers))


def check(header: str) -> Callable[[str], object]:
    """The guard, which sees every request, on one header."""
    guard = Guard(web_settings(cors_origins=frozenset({"https://app.example"})))

    def use(text: str) -> object:
        headers = CIMultiDict({"Host": "localhost", header: text})
        guard.may_see(headers)
        guard.preflight("OPTIONS", headers)
        guard.check("PUT", "/", headers)
        return None

    return use


def absolute(text: str) -> None:
    Guard(web_settings()).check("GET", text, CIMultiDict({"Host": "localhost"}))


LISTS = [
    "1",
    ",",
    ", ",
    '"1",',
    'W/"1" ,',
    '"',
    "W/",
    ";",
    ";q=",
    "a;q=1;",
    "a,b;",
    " ",
    "\t,",
    "\\",
]
NAMES = ["a", ".", ":", "[", "]", "@", "//", "a.", "1.", "%", "\udcff", "xn--", "0", "http://"]

READERS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "If-Match": (lambda text: write_condition(request({"If-Match": text})), LISTS),
    "If-None-Match": (lambda text: not_modified(request({"If-None-Match": text}), "k", 1), LISTS),
    "If-Range": (lambda text: range_applies(request({"If-Range": text}), 1), LISTS),
    "Range": (lambda text: requested("bytes=" + text, 100), ["0", "0-", "-", "1-1,", " ", "\t"]),
    "Accept": (prefers_ndjson, LISTS),
    "Accept-Encoding": (lambda text: accepted_coding(text), LISTS),
    "Content-Type": (lambda text: check_media_type("a/b;" + text, "t"), LISTS),
    "Content-Type, stored": (lambda text: (is_active("a/b;" + text), is_json(text)), LISTS),
    **{
        header: (check(header), NAMES + LISTS)
        for header in ("Host", "Origin", "Content-Encoding", "Transfer-Encoding", "Expect")
    },
    "the absolute form": (absolute, NAMES),
    "the absolute form, with a scheme": (lambda text: absolute("http://" + text), NAMES),
    "a query": (
        lambda text: query(request({}, "/?" + text), frozenset({"a"})),
        ["a", "&", "=", "%", "%41", "+", "a=1&", "#", "&&"],
    ),
    "a key in a path": (lambda text: path_key(request({}, VALUES + text)), ["a", "/", "%", "%2f"]),
    "a cursor": (place_of_cursor, ["A", "=", "-", "\n"]),
    "JSON": (
        lambda text: check_json(text.encode(), "value"),
        ["[", "{", "[]", '"', "\\ud83d", "\\"],
    ),
    "a JSON string": (
        lambda text: check_json(b'"%b"' % text.encode(), "value"),
        ["\\ud83d", "\\\\", "\\u", "[", '\\"', "\\ud83d\\ude00"],
    ),
    "an object": (
        lambda text: check_names(b"{%b}" % text.encode()),
        ['"a":1,', '"a":[{', '"a', "[", "]", '"\\"":[],', "\\", '"\\', ":", "{", " "],
    ),
    "an unknown field": (
        lambda text: parse(SET_VALUE, b'{"%b":1}' % text.encode()),
        [" - at `$", "`", "\\n", " - at `$\\n", "$"],
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_takes_more_than_linear_time(reader: str) -> None:
    use, parts = READERS[reader]
    for part in parts:
        for tail in ("", "x", "@", "\n"):
            text = part * (LENGTH // len(part)) + tail
            with limited():
                try:
                    use(text)
                except (TenantbaseError, UnicodeEncodeError):
                    pass


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(TenantbaseError) as caught:
        parse(SET_VALUE, b'{"%b":1}' % (b"x" * LENGTH))
    assert len(str(caught.value)) < 300 and "unknown field `xxx" in str(caught.value)
