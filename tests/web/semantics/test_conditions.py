"""Parsing conditions. The tests of the routes check that they are applied."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from tenantbase.commands import Condition
from tenantbase.database.validation import combined
from tenantbase.errors import ConditionFailed, InvalidRequest
from tenantbase.web.semantics.conditions import (
    Tags,
    header_condition,
    not_modified,
    parse_tags,
    range_applies,
    write_condition,
)


def request(**headers: str) -> Any:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return SimpleNamespace(headers=CIMultiDict(named))


@pytest.mark.parametrize(
    ("text", "strong", "every"),
    [
        ('"7"', {7}, {7}),
        (' "7" , W/"8",,"9" ', {7, 9}, {7, 8, 9}),
        ('W/"7"', set(), {7}),
        ('"0"', {0}, {0}),
        ('"07", "x", "", "9223372036854775807"', {9223372036854775807}, {9223372036854775807}),
    ],
)
def test_lists_of_tags(text: str, strong: set[int], every: set[int]) -> None:
    assert parse_tags(text, "f") == Tags(False, frozenset(strong), frozenset(every))


@pytest.mark.parametrize("text", ["", " , ", "7", '"7" "8"', '"7', 'w/"7"', '*, "7"', '"a b"'])
def test_malformed_lists_of_tags(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_tags(text, "f")
    assert caught.value.field == "f"


def test_conditions_in_the_headers_of_a_write() -> None:
    assert header_condition(None, None) is None
    star, weak = parse_tags("*", "f"), parse_tags('W/"7", "8"', "f")
    assert header_condition(star, None) == Condition(exists=True)
    assert header_condition(None, star) == Condition(absent=True)
    assert header_condition(weak, None) == Condition(versions=frozenset({8}))
    assert header_condition(None, weak) == Condition(not_versions=frozenset({7, 8}))


def test_the_headers_and_the_body_of_a_write_must_both_hold() -> None:
    headers = write_condition(request(If_Match='"7", "8"', If_None_Match='"9"'))
    both = combined(headers, 8, True)
    eight, nine = frozenset({8}), frozenset({9})
    assert both == Condition(absent=True, versions=eight, not_versions=nine)
    neither = combined(headers, 9, False)
    assert neither == Condition(versions=frozenset(), not_versions=nine)
    star = combined(Condition(exists=True), 7, False)
    assert star == Condition(exists=True, versions=frozenset({7}))
    kept = combined(Condition(absent=True), 7, False)
    assert kept == Condition(absent=True, versions=frozenset({7}))
    assert combined(None, None, False) is None


def test_a_read_is_unchanged_for_weak_tags_and_fails_for_them() -> None:
    assert not_modified(request(If_None_Match='W/"7"'), "k", 7)
    assert not_modified(request(If_None_Match="*"), "k", 7)
    assert not not_modified(request(If_None_Match='"8"'), "k", 7)
    assert not not_modified(request(), "k", 7)
    assert not not_modified(request(If_Match='"7"'), "k", 7)
    assert not not_modified(request(If_Match="*"), "k", 7)
    for failing in ('W/"7"', '"8"'):
        with pytest.raises(ConditionFailed):
            not_modified(request(If_Match=failing, If_None_Match="*"), "k", 7)


def test_if_range_requires_exactly_this_version() -> None:
    assert range_applies(request(), 7) and range_applies(request(If_Range=' "7" '), 7)
    for other in ('W/"7"', '"8"', '"7", "8"', "Thu, 26 Nov 2026 00:00:00 GMT"):
        assert not range_applies(request(If_Range=other), 7)
