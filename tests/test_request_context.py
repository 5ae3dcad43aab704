"""Which ids and traces are taken over from clients."""

from __future__ import annotations

import pytest

from tenantbase.request_context import RequestContext, Trace, parse_traceparent

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("sent", ["a", "A-1_b.c~d:e/f+g=h@i", "x" * 128])
def test_safe_ids_are_taken_over(sent: str) -> None:
    assert RequestContext([sent]).id == sent


@pytest.mark.parametrize(
    "sent",
    [[""], ["x" * 129], ["a b"], ["a\n"], ["a\x1b[0m"], ["<a>"], ['"'], ["\xe9"], ["a", "b"]],
)
def test_other_ids_are_replaced(sent: list[str]) -> None:
    context = RequestContext(sent)
    assert len(context.id) == 32 and context.id == context.id not in sent
    assert context.echoed, "the client learns of it"


def test_generated_ids_differ() -> None:
    assert len({RequestContext().id for _ in range(1_000)}) == 1_000
    assert not RequestContext().echoed


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE_ID}-{PARENT_ID}-01", 1),
        (f"00-{TRACE_ID}-{PARENT_ID}-00", 0),
        (f"cc-{TRACE_ID}-{PARENT_ID}-ff", 255),
        (f"01-{TRACE_ID}-{PARENT_ID}-01-what-comes-later", 1),
    ],
)
def test_valid_traceparents(text: str, flags: int) -> None:
    assert parse_traceparent(text) == Trace(TRACE_ID, PARENT_ID, flags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01-more",
        f"01-{TRACE_ID}-{PARENT_ID}-01more",
        f"00-{TRACE_ID}-{PARENT_ID}",
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-1",
        f" 00-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01\n",
    ],
)
def test_invalid_traceparents_are_ignored(text: str) -> None:
    assert parse_traceparent(text) is None


def test_two_traceparents_count_as_none() -> None:
    one = f"00-{TRACE_ID}-{PARENT_ID}-01"
    assert RequestContext((), [one]).trace is not None
    assert RequestContext((), [one, one]).trace is None
