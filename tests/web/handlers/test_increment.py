"""``increment-value``."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.service import Server
from tests.web.matchers import MOMENT, VERSION
from tests.web.table import Ask, Row, invalid, name_of, problem, put, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

HUGE = 10**40


def by(key: str, **more: object) -> Ask:
    return Ask("POST", "/increment-value", json.dumps({"key": key, **more}))


def counted(key: str, value: int, created: bool = False, **more: object) -> dict[str, object]:
    return written(key, created, value=value, **more)


ROWS = [
    Row(
        "the first",
        by("i1"),
        200,
        counted("i1", 1, created=True),
        {
            "content-type": "application/json",
            "cache-control": "no-cache",
            "x-cache": None,
        },
        then=(Ask("GET", "/v1/values/i1"), 200, b"1"),
    ),
    Row("a further one", by("i2"), 200, counted("i2", 6), given=[put("i2", "5")]),
    Row("backwards", by("i3", by=-7), 200, counted("i3", -2), given=[put("i3", " 5\n")]),
    Row("from an initial value", by("i4", by=5, initial=37), 200, counted("i4", 42, created=True)),
    Row(
        "beyond 64 bits", by("i5", by=HUGE), 200, counted("i5", 2 * HUGE), given=[by("i5", by=HUGE)]
    ),
    Row("by 0", by("i6", by=0), 200, counted("i6", 0, created=True)),
    Row("ttl", by("i7", ttl=60), 200, counted("i7", 1, created=True, expires_at=MOMENT)),
    Row(
        "without ttl the expiry stays",
        by("i8"),
        200,
        counted("i8", 2, expires_at=4_000_000_000),
        given=[by("i8", expires_at=4_000_000_000)],
    ),
    Row("text", by("i9"), 409, problem("wrong-type", 409), given=[put("i9", '"1"')]),
    Row("a fraction", by("i10"), 409, problem("wrong-type", 409), given=[put("i10", "1.0")]),
    Row("bytes", by("i11"), 409, given=[Ask("PUT", "/v1/values/i11", "1")]),
    Row("by a fraction", by("i", by=1.0), 400, invalid("by")),
    Row("by null", by("i", by=None), 400, invalid("by")),
    Row("initial as text", by("i", initial="1"), 400, invalid("initial")),
    Row(
        "more digits than anybody counts",
        Ask("POST", "/increment-value", '{"key":"i","by":%s}' % ("9" * 5000)),
        400,
        invalid("by"),
    ),
    Row("no key", Ask("POST", "/increment-value", "{}"), 400, invalid("key")),
    Row("an illegal key", by(""), 400, invalid("key")),
    Row("an unknown field", by("i", amount=1), 400, invalid("amount")),
    Row("ttl and expires_at", by("i", ttl=1, expires_at=4e9), 400, invalid("expires_at")),
    Row("if_absent", by("i12", if_absent=True), 412, given=[by("i12")]),
    Row(
        "if_version",
        Ask("POST", "/increment-value", '{"key":"i13","if_version":$V}'),
        200,
        counted("i13", 2),
        given=[by("i13")],
    ),
    Row(
        "If-Match",
        Ask("POST", "/increment-value", '{"key":"i14"}', {"If-Match": '"1"'}),
        412,
        problem("condition-failed", 412, key="i14", version=VERSION),
        given=[by("i14")],
        then=(Ask("GET", "/v1/values/i14"), 200, b"1"),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_increment(server: Server, row: Row) -> None:
    await row.check(server)


async def test_the_answer_is_exact(server: Server) -> None:
    await server.ask("POST", "/increment-value", '{"key":"exact","by":%d}' % 2**64)
    answer = await server.ask("POST", "/increment-value", '{"key":"exact"}')
    assert b'"value":%d,' % (2**64 + 1) in answer.body
    assert answer.headers["etag"] == f'"{answer.json["version"]}"'


async def test_no_count_is_lost(server: Server) -> None:
    answers = await asyncio.gather(*(by("many").send(server, "") for _ in range(50)))
    assert sorted(answer.json["value"] for answer in answers) == list(range(1, 51))
    assert len({answer.json["version"] for answer in answers}) == 50
