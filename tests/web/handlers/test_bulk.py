"""The routes for many values."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping

import pytest

from tenantbase.database.bulk_read import CHUNK_KEYS
from tenantbase.figures import HITS
from tenantbase.web.transport.turns import PIECE_SHARE
from tests.service import Server, web_settings
from tests.web.conftest import Start
from tests.web.matchers import VERSION
from tests.web.table import Ask, Row, invalid, name_of, problem, put, shown, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def post(route: str, **document: object) -> Ask:
    return Ask("POST", f"/{route}-values", json.dumps(document))


def values(*entries: Mapping[str, object], **headers: str) -> Ask:
    return Ask("POST", "/set-values", json.dumps({"values": entries}), headers)


GET = [
    Row(
        "in the order asked for, each once",
        post("get", keys=["g2", "no", "g1", "g2", "no"]),
        200,
        {"values": [shown("g2"), shown("g1")], "missing": ["no"]},
        {
            "content-type": "application/json",
            "cache-control": "no-cache",
            "vary": "Accept-Encoding",
            "etag": None,
        },
        [put("g1"), put("g2")],
    ),
    Row("none", post("get", keys=[]), 200, {"values": [], "missing": []}),
    Row("all missing", post("get", keys=["no"]), 200, {"values": [], "missing": ["no"]}),
    Row(
        "bytes",
        post("get", keys=["g3"]),
        200,
        {
            "values": [
                shown("g3", "/w==", encoding="base64", content_type="application/octet-stream")
            ],
            "missing": [],
        },
        given=[Ask("PUT", "/v1/values/g3", b"\xff")],
    ),
    Row("an illegal key", post("get", keys=["a", ""]), 400, invalid("keys[1]")),
    Row("a key that is a number", post("get", keys=["a", 1]), 400, invalid("keys[1]")),
    Row("no keys", post("get"), 400, invalid("keys")),
    Row("keys as text", post("get", keys="a"), 400, invalid("keys")),
    Row("unknown field", post("get", keys=[], key="a"), 400, invalid("key")),
    Row("no body", Ask("POST", "/get-values"), 400, invalid()),
    Row("a parameter", Ask("POST", "/get-values?key=a", "{}"), 400, invalid("key")),
    Row(
        "too many",
        post("get", keys=["a"] * 10_001),
        413,
        problem("too-large", 413, field="keys"),
    ),
]

SET = [
    Row(
        "many",
        values({"key": "s1", "value": 1}, {"key": "s2", "value": "/w==", "encoding": "base64"}),
        200,
        {"values": [written("s1"), written("s2")]},
        {"content-type": "application/json", "cache-control": "no-cache"},
        then=(Ask("GET", "/v1/values/s2"), 200, b"\xff"),
    ),
    Row("none", values(), 200, {"values": []}),
    Row(
        "a key twice",
        values({"key": "s3", "value": 1}, {"key": "s3", "value": 1}),
        400,
        invalid("values[1].key"),
        then=(Ask("GET", "/v1/values/s3"), 404, None),
    ),
    Row(
        "one of them is illegal",
        values({"key": "s4", "value": 1}, {"key": "s5", "value": 1, "ttl": 0}),
        400,
        invalid("values[1].ttl"),
        then=(Ask("GET", "/v1/values/s4"), 404, None),
    ),
    Row(
        "a field of another type",
        values({"key": "s", "value": 1, "ttl": "x"}),
        400,
        invalid("values[0].ttl"),
    ),
    Row("a field missing", values({"key": "s"}), 400, invalid("values[0].value")),
    Row("an unknown field", values({"key": "s", "value": 1, "x": 1}), 400, invalid("values[0].x")),
    Row(
        "conditions that hold",
        values({"key": "s6", "value": 1, "if_absent": True}, {"key": "s7", "value": 1}),
        200,
    ),
    Row(
        "one condition fails: none is set",
        values({"key": "s8", "value": 1}, {"key": "s9", "value": 1, "if_absent": True}),
        412,
        problem("condition-failed", 412, key="s9", version=VERSION),
        given=[put("s9")],
        then=(Ask("GET", "/v1/values/s8"), 404, None),
    ),
    Row(
        "if_version",
        Ask("POST", "/set-values", '{"values":[{"key":"s10","value":1,"if_version":$V}]}'),
        200,
        {"values": [written("s10", created=False)]},
        given=[put("s10")],
    ),
    Row(
        "a header is a condition on each",
        values({"key": "s11", "value": 1}, {"key": "s12", "value": 1}, **{"If-None-Match": "*"}),
        412,
        problem("condition-failed", 412, key="s12", version=VERSION),
        given=[put("s12")],
        then=(Ask("GET", "/v1/values/s11"), 404, None),
    ),
    Row(
        "one value too large",
        values({"key": "s13", "value": 1}, {"key": "s14", "value": "x" * (1 << 20)}),
        413,
        problem("too-large", 413, field="values[1].value"),
        then=(Ask("GET", "/v1/values/s13"), 404, None),
    ),
    Row(
        "too many",
        values(*[{"key": "s", "value": 1}] * 10_001),
        413,
        problem("too-large", 413, field="values"),
    ),
    Row(
        "a body too large",
        Ask("POST", "/set-values", b" " * ((8 << 20) + 1)),
        413,
        problem("too-large", 413),
    ),
]

NOTHING_RETURNED = {"deleted": 0, "values": []}
DELETE = [
    Row(
        "keys",
        post("delete", keys=["d1", "no", "d2", "d1"]),
        200,
        {"deleted": 2},
        given=[put("d1"), put("d2")],
        then=(Ask("GET", "/v1/values/d1"), 404, None),
    ),
    Row(
        "a prefix is literal",
        post("delete", prefix="d%_/"),
        200,
        {"deleted": 2},
        given=[put("d%25_/1"), put("d%25_/2"), put("dxx/3")],
        then=(Ask("GET", "/v1/values/dxx/3"), 200, b'"old"'),
    ),
    Row("no keys", post("delete", keys=[]), 200, {"deleted": 0}),
    Row("both", post("delete", keys=["d"], prefix="d"), 400, invalid("prefix")),
    Row(
        "entries",
        post("delete", entries=[{"key": "e1"}, {"key": "no"}]),
        200,
        {"deleted": 1},
        given=[put("e1")],
        then=(Ask("GET", "/get-value?key=e1"), 404, None),
    ),
    Row(
        "entries with their versions",
        Ask("POST", "/delete-values", '{"entries":[{"key":"e2","if_version":$V}]}'),
        200,
        {"deleted": 1},
        given=[put("e2")],
    ),
    Row(
        "entries with a wrong version",
        Ask(
            "POST",
            "/delete-values",
            '{"entries":[{"key":"e3"},{"key":"e4","if_version":999999999}]}',
        ),
        412,
        given=[put("e3"), put("e4")],
        then=(Ask("GET", "/v1/values/e3"), 200, b'"old"'),
    ),
    Row(
        "entries twice",
        post("delete", entries=[{"key": "e5"}, {"key": "e5", "if_version": 1}]),
        400,
        invalid("entries"),
    ),
    Row(
        "nothing to return", post("delete", keys=["no"], return_values=True), 200, NOTHING_RETURNED
    ),
    Row("no keys to return", post("delete", keys=[], return_values=True), 200, NOTHING_RETURNED),
    Row(
        "nothing to return, null", post("delete", keys=[], return_values=None), 200, {"deleted": 0}
    ),
    Row(
        "a prefix is not returned",
        post("delete", prefix="r1", return_values=True),
        400,
        invalid("return_values"),
        given=[put("r1")],
        then=(Ask("GET", "/v1/values/r1"), 200, b'"old"'),
    ),
    Row("keys and entries", post("delete", keys=[], entries=[]), 400, invalid("entries")),
    Row("entries of texts", post("delete", entries=["e6"]), 400, invalid("entries[0]")),
    Row("neither", post("delete"), 400, invalid("keys")),
    Row("prefix null", post("delete", prefix=None), 400, invalid("keys")),
    Row("an illegal key", post("delete", keys=["d", "\0"]), 400, invalid("keys[1]")),
    Row("an illegal prefix", post("delete", prefix="\0"), 400, invalid("prefix")),
    Row(
        "a condition on each key",
        Ask("POST", "/delete-values", '{"keys":["d3","d4"]}', {"If-Match": "*"}),
        412,
        problem("condition-failed", 412, key="d4"),
        given=[put("d3")],
        then=(Ask("GET", "/v1/values/d3"), 200, b'"old"'),
    ),
    Row(
        "a condition on a prefix",
        Ask("POST", "/delete-values", '{"prefix":"d"}', {"If-Match": "*"}),
        400,
        invalid("prefix"),
    ),
    Row(
        "too many",
        post("delete", keys=["a"] * 10_001),
        413,
        problem("too-large", 413, field="keys"),
    ),
]


@pytest.mark.parametrize("row", GET, ids=name_of)
async def test_get(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", SET, ids=name_of)
async def test_set(server: Server, row: Row) -> None:
    await row.check(server)


@pytest.mark.parametrize("row", DELETE, ids=name_of)
async def test_delete(server: Server, row: Row) -> None:
    await row.check(server)


async def test_an_empty_prefix_deletes_everything(start: Start) -> None:
    async with start() as server:
        for key in ("a", "ü", "\U0010ffff"):
            await server.ask("POST", "/set-value", json.dumps({"key": key, "value": 1}))
        answer = await server.ask("POST", "/delete-values", '{"prefix":""}')
        assert answer.json == {"deleted": 3}
        assert (await server.ask("GET", "/get-values")).json == {"values": [], "cursor": None}


async def test_deleted_entries_are_returned_as_they_were(server: Server) -> None:
    await server.ask(
        "PUT", "/v1/values/w/json?ttl=60", " 1.0\n", {"Content-Type": "application/json"}
    )
    await server.ask("PUT", "/v1/values/w/bytes", b"\xff", {"Content-Type": "image/png"})
    await server.ask("PUT", "/v1/values/w/text", "é", {"Content-Type": "text/plain"})
    keys = ["w/text", "w/no", "w/json", "w/bytes"]
    before = await server.ask("POST", "/get-values", json.dumps({"keys": keys}))
    version = before.json["values"][0]["version"]
    entries = [{"key": key} for key in keys]
    entries[0]["if_version"] = version + 1_000
    asked = post("delete", entries=entries, return_values=True)
    assert (await asked.send(server, "")).status == 412
    entries[0]["if_version"] = version
    answer = await post("delete", entries=entries, return_values=True).send(server, "")
    assert answer.status == 200 and b'"value": 1.0\n,"id"' in answer.body
    assert answer.json == {"deleted": 3, "values": before.json["values"]}
    after = await server.ask("POST", "/get-values", json.dumps({"keys": keys}))
    assert after.json == {"values": [], "missing": keys}


async def test_large_deleted_entries_are_returned_in_pieces(start: Start) -> None:
    async with start() as server:
        given = [{"key": f"k{index}", "value": str(index) * 900_000} for index in range(8)]
        for entry in given:
            assert (await values(entry).send(server, "")).status == 200
        keys = [entry["key"] for entry in given]
        answer = await post("delete", keys=keys, return_values=True).send(server, "")
        assert answer.headers["transfer-encoding"] == "chunked"
        found = [{name: each[name] for name in ("key", "value")} for each in answer.json["values"]]
        assert found == given
        # Too much to return: nothing is deleted.
        for index in range(10):
            entry = {"key": f"k{index}", "value": "x" * 900_000}
            assert (await values(entry).send(server, "")).status == 200
        keys = [f"k{index}" for index in range(10)]
        answer = await post("delete", keys=keys, return_values=True).send(server, "")
        assert answer.status == 413 and answer.json["field"] == "return_values"
        assert (await post("delete", keys=keys).send(server, "")).json == {"deleted": 10}


async def test_bulk_reads_use_the_cache(server: Server) -> None:
    if not server.cached:
        return
    await server.ask("PUT", "/v1/values/hit", "x")
    before = server.cache.figures[HITS]
    await server.ask("POST", "/get-values", '{"keys":["hit"]}')
    assert server.cache.figures[HITS] == before + 1


async def test_large_answers_come_in_pieces_and_compressed_if_wanted(start: Start) -> None:
    # More values than are read at a time, or than fit into an answer that is sent in one piece.
    async with start(web_settings(max_value_bytes=32 << 20, max_request_bytes=64 << 20)) as server:
        entries = [{"key": f"k{index}", "value": "x" * 100_000} for index in range(20)]
        assert (await values(*entries).send(server, "")).status == 200
        keys = [str(entry["key"]) for entry in entries]
        ask = json.dumps({"keys": ["no", *keys, "none"]})
        plain = await server.ask("POST", "/get-values", ask)
        assert plain.headers["transfer-encoding"] == "chunked"
        assert plain.headers["vary"] == "Accept-Encoding"
        assert "content-encoding" not in plain.headers
        assert plain.json["missing"] == ["no", "none"]
        assert [entry["key"] for entry in plain.json["values"]] == keys
        packed = await server.ask("POST", "/get-values", ask, {"Accept-Encoding": "br, gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert len(packed.body) < len(plain.body) // 10
        assert gzip.decompress(packed.body) == plain.body


async def test_limits_are_those_of_the_settings(start: Start) -> None:
    settings = web_settings(max_value_bytes=10, max_request_bytes=200, max_batch_entries=2)
    async with start(settings) as server:
        entries = [{"key": str(index), "value": 1} for index in range(3)]
        assert (await values(*entries).send(server, "")).json["field"] == "values"
        assert (await values(*entries[:2]).send(server, "")).status == 200
        assert (await post("get", keys=["a", "b", "c"]).send(server, "")).json["field"] == "keys"
        long = {"key": "a", "value": "x" * 9}
        assert (await values(long).send(server, "")).json["field"] == "values[0].value"
        assert (await server.ask("POST", "/set-values", " " * 201)).status == 413


def shares(turns: list[tuple[str, float]]) -> list[float]:
    return [share for _, share in turns]


async def test_large_bulk_writes_take_turns(
    server: Server, turns_taken: list[tuple[str, float]]
) -> None:
    """Others are served while thousands of entries are prepared, and their results rendered."""
    count = 3_000
    entries = [{"key": f"many/{number:04}", "value": number} for number in range(count)]
    answer = await server.ask("POST", "/set-values", json.dumps({"values": entries}))
    assert [each["key"] for each in answer.json["values"]] == [each["key"] for each in entries]
    assert shares(turns_taken).count(1.0) >= count // 256 + count // 512
    again = await server.ask("POST", "/set-values", json.dumps({"values": [*entries, entries[5]]}))
    assert again.json == invalid(f"values[{count}].key")


async def test_bulk_reads_of_large_values_take_turns(
    server: Server, turns_taken: list[tuple[str, float]]
) -> None:
    keys = [f"large/{number}" for number in range(64)]
    for key in keys:
        answer = await server.ask("PUT", f"/v1/values/{key}", b"x" * (64 << 10))
        assert answer.status in (200, 201)
    turns_taken.clear()
    for _ in range(2):  # the second time, it is known how large they are
        answer = await server.ask("POST", "/get-values", json.dumps({"keys": keys}))
        assert [each["key"] for each in answer.json["values"]] == keys
    assert shares(turns_taken).count(1.0) >= 64 // 4 - 1, "a chunk has 256 KiB"
    assert shares(turns_taken).count(PIECE_SHARE) > shares(turns_taken).count(1.0)


async def test_bulk_reads_of_many_keys_begin_in_a_turn(
    server: Server, turns_taken: list[tuple[str, float]]
) -> None:
    # After one key without a value, chunks are as large as they can be.
    for count, turns in ((1, 0), (CHUNK_KEYS, 0), (CHUNK_KEYS + 1, 2)):
        keys = [f"none/{number}" for number in range(count)]
        turns_taken.clear()
        answer = await server.ask("POST", "/get-values", json.dumps({"keys": keys}))
        assert len(answer.json["missing"]) == count
        assert count == 1 or shares(turns_taken).count(1.0) == turns
