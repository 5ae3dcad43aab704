"""Lines of the log: their format, what they leave out, and how many there are."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tenantbase.errors import StoreFull
from tenantbase.process.log_limiter import BURST_LINES, PERIOD_SECONDS, Limiter
from tenantbase.process.logs import Output, log_loop_errors
from tenantbase.process.tracebacks import format_error
from tenantbase.request_context import CURRENT, RequestContext
from tenantbase.withheld import Withheld

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Lines:
    """A log whose lines can be read."""

    def __init__(self, *, as_json: bool = True, keys: bool = False) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self.output = Output(write, as_json=as_json, keys=keys)
        self.log = logging.Logger("tenantbase.test")
        self.log.addHandler(self.output)
        self._write = write

    @property
    def raw(self) -> str:
        """The lines since it was last asked."""
        try:
            return os.read(self._read, 1 << 16).decode("ascii")
        except BlockingIOError:
            return ""

    @property
    def parsed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw.splitlines()]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.close()


def test_a_line_of_json(lines: Lines) -> None:
    lines.log.warning("%s is %d", "it", 1, extra={"fields": {"route": "/x", "message": "not this"}})
    (line,) = lines.parsed
    assert list(line) == ["time", "level", "logger", "message", "pid", "route"]
    assert line["time"].endswith("Z") and len(line["time"]) == len("2026-11-26T12:00:00.123Z")
    assert line["level"] == "warning" and line["logger"] == "tenantbase.test"
    assert (line["message"], line["pid"], line["route"]) == ("it is 1", os.getpid(), "/x")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_client_cannot_make_up_a_line(as_json: bool) -> None:
    lines = Lines(as_json=as_json)
    lines.log.error("it said %s", "a\n{}\r\x1b[31m\x7f\x9b\u2028\u202eb\udcff\0")
    (line,) = lines.raw.splitlines()
    assert line.isprintable()
    lines.close()


def test_text_has_fields_and_the_request() -> None:
    lines = Lines(as_json=False)
    request = RequestContext(["id-1"], [TRACEPARENT])
    fields = {"route": "/a b", "waited_ms": {"queue": 1.5, "commit": 2}}
    lines.log.info("slow", extra={"request": request, "fields": fields})
    assert lines.raw.rstrip().endswith(
        f"{os.getpid()} INFO tenantbase.test: slow request_id=id-1"
        " trace_id=4bf92f3577b34da6a3ce929d0e0e4736 parent_id=00f067aa0ba902b7"
        ' route="/a b" waited_ms=queue:1.5,commit:2'
    )
    lines.close()


def test_a_line_names_the_request_that_its_task_works_for(lines: Lines) -> None:
    token = CURRENT.set(RequestContext(["id-1"]))
    lines.log.warning("a")
    CURRENT.reset(token)
    lines.log.warning("b")
    assert [line.get("request_id") for line in lines.parsed] == ["id-1", None]


@pytest.mark.parametrize("keys", [True, False])
def test_keys_are_shown_only_if_wanted(keys: bool) -> None:
    lines = Lines(keys=keys)
    lines.log.warning("the key %s is damaged", Withheld("user/1"))
    assert ("user/1" in lines.raw) == keys
    lines.close()


def test_a_faulty_log_call_is_told_of(lines: Lines) -> None:
    lines.log.warning("%d", "text")
    assert lines.raw == "a log line of tenantbase.test could not be made: TypeError\n"


def test_a_log_that_nobody_reads_fails_no_caller() -> None:
    read, write = os.pipe()
    os.close(read)
    log = logging.Logger("tenantbase.test")
    log.addHandler(Output(write, as_json=True, keys=False))
    log.warning("no reader")
    os.close(write)


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        try:
            int("hidden")
        except ValueError as inner:
            raise error from inner
    return caught.value


def test_texts_of_exceptions_that_may_quote_a_request_are_withheld() -> None:
    for quoting in (
        KeyError("hidden"),
        ValueError("hidden"),
        ExceptionGroup("hidden", [OSError()]),
    ):
        text = format_error(raised(quoting))
        assert "hidden" not in text.replace('int("hidden")', ""), text
        assert type(quoting).__name__ in text and 'int("hidden")' in text
        assert text.index("ValueError") < text.index("direct cause")
    for own in (StoreFull("the disk is full"), sqlite3.Error("no such table"), TypeError("an int")):
        assert f"{type(own).__name__}: {own}" in format_error(raised(own))


def test_an_exception_is_one_field(lines: Lines) -> None:
    lines.log.error("it failed", exc_info=raised(KeyError("hidden")))
    (line,) = lines.parsed
    assert line["exception"].startswith("Traceback (most recent call last):\n")


async def test_what_the_event_loop_reports_does_not_quote(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("asyncio"), "handlers", [lines.output])
    loop = asyncio.get_running_loop()
    log_loop_errors(loop)

    def fail(argument: str) -> None:
        raise KeyError(argument)

    loop.call_soon(fail, "hidden")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    (line,) = lines.parsed
    assert line["message"].startswith("Exception in callback") and "hidden" not in str(line)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def record(text: str = "it fails: %d", *arguments: object, **attributes: object) -> Any:
    made = logging.LogRecord("tenantbase.test", logging.WARNING, "x.py", 1, text, arguments, None)
    made.__dict__.update(attributes)
    return made


def test_of_one_kind_a_few_lines_a_minute_are_written() -> None:
    clock = Clock()
    limiter = Limiter(clock)
    assert [limiter.passes(record("it fails: %d", n)) for n in range(100)].count(
        True
    ) == BURST_LINES
    assert limiter.passes(record("another kind"))
    assert limiter.due() == PERIOD_SECONDS
    assert not list(limiter.summaries())
    clock.now += PERIOD_SECONDS
    (summary,) = limiter.summaries()
    assert summary.getMessage() == (
        f"{100 - BURST_LINES} more lines in 60 s like this one, the last of them: it fails: 99"
    )
    assert not limiter.passes(record("it fails: %d", 100)), "it lasts: one line a minute"
    clock.now += PERIOD_SECONDS
    assert [vars(each)["fields"] for each in limiter.summaries()] == [{"left_out": 1}]
    clock.now += PERIOD_SECONDS
    assert not list(limiter.summaries()) and limiter.due() is None
    assert limiter.passes(record("it fails: %d", 101)), "it was over"


def test_a_record_may_say_how_many_of_its_kind_there_may_be() -> None:
    limiter = Limiter(Clock())
    assert all(limiter.passes(record("request", burst=None)) for _ in range(1_000))
    assert sum(limiter.passes(record("slow request", burst=60)) for _ in range(100)) == 60


def test_errors_of_different_places_are_different_kinds() -> None:
    limiter = Limiter(Clock())

    def passes(error: Exception) -> bool:
        made = record("unexpected error")
        made.exc_info = (type(error), error, error.__traceback__)
        return limiter.passes(made)

    assert sum(passes(raised(KeyError("x"))) for _ in range(20)) == BURST_LINES
    assert passes(raised(ValueError("x")))
    assert limiter.passes(record("%s", "one")) and limiter.passes(record("%s", "two"))


def test_what_was_left_out_is_said_at_the_end(lines: Lines) -> None:
    for number in range(BURST_LINES + 3):
        lines.log.warning("it fails: %d", number)
    lines.output.summarise()
    assert len(lines.parsed) == BURST_LINES
    lines.output.summarise(all_of_them=True)
    assert [line["left_out"] for line in lines.parsed] == [3]
