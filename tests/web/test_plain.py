"""What is recognised as a plain request, and what is not."""

from __future__ import annotations

import pytest

from tenantbase.web.plain import GENERAL, INCOMPLETE, MAX_BODY, MAX_HEAD, Other, Recogniser, Route
from tests.web.corpus import PLAIN, RARE
from tests.web.wire import request


@pytest.mark.parametrize("name", PLAIN)
def test_plain_requests_are_recognised(name: str) -> None:
    found = Recogniser(lambda headers: True).recognise(PLAIN[name])
    assert not isinstance(found, Other)
    assert found.size == len(PLAIN[name])


@pytest.mark.parametrize("name", RARE)
def test_rare_requests_are_left_to_the_general_parser(name: str) -> None:
    """Those that are wrong only in their JSON, or whose Host is refused, look plain at first."""
    looks_plain = {
        "foreign host",
        "set, no JSON",
        "set, no value",
        "set, unknown field",
        "set, condition fails",
    }
    found = Recogniser(lambda headers: True).recognise(RARE[name])
    assert (found is GENERAL) == (name not in looks_plain)


@pytest.mark.parametrize("name", PLAIN)
def test_every_beginning_of_a_plain_request_is_incomplete(name: str) -> None:
    whole = PLAIN[name]
    recogniser = Recogniser(lambda headers: True)
    for cut in range(1, len(whole)):
        assert recogniser.recognise(whole[:cut]) is INCOMPLETE, whole[:cut]


def test_an_endless_head_or_body_is_not_waited_for() -> None:
    recognise = Recogniser(lambda headers: True).recognise
    endless = b"GET /get-value?key=" + b"k" * MAX_HEAD
    assert recognise(endless) is GENERAL
    assert recognise(request("POST", "/set-value", b"x" * (MAX_BODY + 1))) is GENERAL


def test_a_head_is_judged_by_what_allows_it_each_time_it_differs() -> None:
    asked = []

    def allowed(headers: object) -> bool:
        asked.append(headers)
        return len(asked) == 1

    recognise = Recogniser(allowed).recognise
    good, bad = PLAIN["value"], PLAIN["absent"]
    for _ in range(3):
        assert getattr(recognise(good), "route", None) is Route.GET_VALUE
        assert recognise(bad) is GENERAL
    assert len(asked) == 2
