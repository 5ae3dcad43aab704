"""Sentry and OpenTelemetry, with their real libraries, against a receiver on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.app_server import AppServer
from tests.certificates import Authority
from tests.process.receiver import Receiver
from tests.servers import poll

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"

# A service with a bug: reads through aiohttp fail, with the key in the exception.
BUGGY = """if True:
    from tenantbase.database import Database
    from tenantbase.main import main
    async def get(self, scope, key, **options):
        variable = key
        raise KeyError(variable)
    Database.get = get
    main()
"""
# A service whose workers fail.
# Since Python 3.13, a report quotes the lines of such a program, so they do not have the whole word.
FAILING = """if True:
    from tenantbase.process import worker
    from tenantbase.main import main
    def create_app(*args, **options):
        raise KeyError("hid" + "den-key")
    worker.create_app = create_app
    main()
"""
# A service whose /livez lists the modules of the two libraries.
LISTING = """if True:
    import json, sys
    {before}
    from tenantbase.main import main
    from tenantbase.web.handlers.health import Health
    from tenantbase.web.responses import state
    async def alive(self, request):
        wanted = ("sentry_sdk", "opentelemetry", "prometheus_pb2", "google.protobuf", "requests")
        return state(json.dumps([name for name in sys.modules if name.startswith(wanted)]).encode())
    Health.alive = alive
    main()
"""
MISSING = 'sys.modules["sentry_sdk"] = sys.modules["opentelemetry"] = None'


class Changed(AppServer):
    """A server whose program was changed."""

    def __init__(self, database: Path, program: str, *options: str, **environment: str) -> None:
        super().__init__(database, "--memcached", "off", *options, environment=environment)
        self.program = ("-c", program)


def wanting(receiver: Receiver) -> dict[str, str]:
    """The variables that turn both on."""
    return {
        "SENTRY_DSN": f"http://public@127.0.0.1:{receiver.port}/7",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


def events(receiver: Receiver) -> list[dict[str, Any]]:
    """The errors that were reported, from Sentry's envelopes."""
    lines = [body.split(b"\n") for body in receiver.bodies("/envelope")]
    return [json.loads(each[2]) for each in lines if b'"event"' in each[1]]


def spans(receiver: Receiver) -> Iterator[Span]:
    for body in receiver.bodies("/v1/traces"):
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                yield from scope.spans


def test_errors_and_requests_are_reported_without_what_clients_sent(tmp_path: Path) -> None:
    with Receiver() as receiver:
        with Changed(tmp_path / "x.db", BUGGY, **wanting(receiver)) as server:
            fields = {
                "X-Request-ID": "request-1",
                "traceparent": TRACEPARENT,
                "Authorization": "Bearer tb_hidden",
            }
            answer = server.ask("GET", "/get-value", b'{"key": "hidden-key"}', fields)
            assert answer.status == 500
            server.ask("POST", "/set-value", b'{"key": "hidden-k", "value": "hidden-v"}', fields)
            server.ask("GET", "/get-value?key=hidden-k", headers=fields)
            poll(lambda: len(events(receiver)) == 1, "the error is reported")
            # The first request fails at once; the others have two spans below their own.
            poll(lambda: len([*spans(receiver)]) == 1 + 3 + 3, "spans are exported")
            stderr = server.stderr
    (event,) = events(receiver)
    (error,) = event["exception"]["values"]
    assert error["type"] == "KeyError" and "withheld" in error["value"]
    assert error["stacktrace"]["frames"][-1]["function"] == "get"
    assert event["tags"] == {"request_id": "request-1"}
    assert all("vars" not in frame for frame in error["stacktrace"]["frames"])
    assert not event.keys() & {"request", "extra", "breadcrumbs", "user", "modules"}

    (line,) = [json.loads(each) for each in stderr.splitlines()]
    assert (line["level"], line["request_id"], line["trace_id"]) == ("error", "request-1", TRACE_ID)
    assert "KeyError" in line["exception"]

    found = list(spans(receiver))
    requests = {each.name: each for each in found if each.kind == Span.SPAN_KIND_SERVER}
    assert set(requests) == {"GET /get-value", "POST /set-value"}
    for each in requests.values():
        assert (each.trace_id.hex(), each.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    children = {
        name: {each.name for each in found if each.parent_span_id == parent.span_id}
        for name, parent in requests.items()
    }
    assert children == {
        "GET /get-value": {"queue", "database"},
        "POST /set-value": {"queue", "commit"},
    }

    everything = b"".join(body for _, body in receiver.received) + stderr.encode()
    assert b"hidden" not in everything


def test_what_ends_a_worker_is_reported(tmp_path: Path) -> None:
    with Receiver() as receiver:
        server = Changed(tmp_path / "x.db", FAILING, **wanting(receiver))
        server.spawn()
        try:
            poll(lambda: bool(events(receiver)), "the failure is reported")
            assert server.wait() == 1  # and the supervisor does not report it again
        finally:
            server.close()
    (event,) = events(receiver)
    assert event["logentry"] == {"message": "the worker has failed"}
    assert [each["type"] for each in event["exception"]["values"]] == ["KeyError"]
    assert b"hidden" not in b"".join(body for _, body in receiver.received)


@pytest.mark.parametrize("before", ["", MISSING], ids=["off", "missing"])
def test_nothing_is_imported_unless_it_is_asked_for(tmp_path: Path, before: str) -> None:
    with Receiver() as receiver:
        environment = wanting(receiver) if before else {"OTEL_TRACES_EXPORTER": "none"}
        program = LISTING.format(before=before)
        with Changed(tmp_path / "x.db", program, **environment) as server:
            listed = server.ask("GET", "/livez").json
            told = [json.loads(each)["message"] for each in server.stderr.splitlines()]
    if before:
        assert ["tenantbase[sentry]" in told[0], "tenantbase[otel]" in told[1]] == [True, True]
    else:
        assert (listed, told) == ([], [])


class Reporting(AppServer):
    """A server that reports its errors to a receiver."""

    def __init__(self, database: Path, receiver: Receiver, *options: str) -> None:
        environment = {"SENTRY_DSN": f"http://public@127.0.0.1:{receiver.port}/7"}
        super().__init__(database, "--memcached", "off", *options, environment=environment)


def messages(receiver: Receiver) -> list[str]:
    return [each["logentry"]["message"] for each in events(receiver)]


def test_a_worker_that_was_killed_is_reported_once(tmp_path: Path) -> None:
    """By a process of its own, because the supervisor has no threads."""
    with Receiver() as receiver:
        with Reporting(tmp_path / "x.db", receiver) as server:
            (first,) = server.workers
            os.kill(first, signal.SIGKILL)
            poll(lambda: bool(events(receiver)), "the death is reported")
            # The process that reported has ended, too.
            poll(lambda: len(server.workers) == 1 and server.workers != [first], "another worker")
            # Soon after the first, so it is the same trouble.
            os.kill(server.workers[0], signal.SIGKILL)
            poll(lambda: server.stderr.count("starting another in") == 2, "it is in the log")
            assert server.stop() == 0
            lines = [json.loads(each) for each in server.stderr.splitlines()]
    assert [(each["level"], "was killed by SIGKILL" in each["message"]) for each in lines] == [
        ("error", True)
    ] * 2
    (event,) = events(receiver)
    assert event["logentry"]["message"] == "a worker was killed by SIGKILL"
    assert (event["level"], event["logger"]) == ("error", "tenantbase.supervisor")
    assert not event.keys() & {"request", "extra", "breadcrumbs", "user", "modules"}


def test_a_stuck_worker_is_reported(tmp_path: Path) -> None:
    with Receiver() as receiver:
        with Reporting(tmp_path / "x.db", receiver, "--watchdog-seconds", "1.5") as server:
            os.kill(server.workers[0], signal.SIGSTOP)
            poll(lambda: bool(events(receiver)), "it is reported")
            assert server.stop() == 0
    assert messages(receiver) == ["a worker was killed: its event loop was blocked"]


def test_a_worker_that_cannot_serve_is_reported(tmp_path: Path) -> None:
    (tmp_path / "hidden.db").write_bytes(b"hidden, and not a database" * 400)
    with Receiver() as receiver:
        server = Reporting(tmp_path / "hidden.db", receiver)
        server.spawn()
        try:
            assert server.wait() == 1
        finally:
            server.close()
    assert messages(receiver) == ["a worker cannot serve; the log says why"]
    assert b"hidden" not in b"".join(body for _, body in receiver.received)


def test_certificates_that_cannot_be_reloaded_are_reported(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue()
    options = issued.options
    with Receiver() as receiver:
        with Reporting(tmp_path / "x.db", receiver, *options) as server:
            issued.certificate.write_text("hidden")
            server.signal(signal.SIGHUP)
            poll(lambda: bool(events(receiver)), "it is reported")
            assert server.stop() == 0
    (event,) = events(receiver)
    assert event["logger"] != "tenantbase.supervisor"
    assert b"hidden" not in b"".join(body for _, body in receiver.received)


def test_nothing_waits_for_a_receiver_that_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dsn = f"http://public@127.0.0.1:{silent.getsockname()[1]}/7"
        options = ("--memcached", "off")
        with AppServer(tmp_path / "x.db", *options, environment={"SENTRY_DSN": dsn}) as server:
            (first,) = server.workers
            os.kill(first, signal.SIGKILL)
            poll(lambda: "starting another in" in server.stderr, "it is in the log")
            assert server.ask("GET", "/livez").status == 200
            assert server.stop() == 0
