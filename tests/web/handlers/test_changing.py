"""``touch-value`` and ``rename-value``, and ``keep_ttl`` in writes."""

from __future__ import annotations

import json

import pytest

from tests.service import Server
from tests.web.matchers import MOMENT, VERSION
from tests.web.table import Ask, Row, invalid, name_of, problem, put, shown, written

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAR = 4_000_000_000
TEXT = {"Content-Type": "text/plain"}


def touch(key: str, **more: object) -> Ask:
    return Ask("POST", "/touch-value", json.dumps({"key": key, **more}))


def rename(key: str, to: str, **more: object) -> Ask:
    return Ask("POST", "/rename-value", json.dumps({"key": key, "to": to, **more}))


def store(key: str, value: object = 1, **more: object) -> Ask:
    return Ask("POST", "/set-value", json.dumps({"key": key, "value": value, **more}))


def get(key: str) -> Ask:
    return Ask("GET", f"/get-value?key={key}")


def failed(key: str) -> dict[str, object]:
    return {**problem("condition-failed", 412), "key": key, "version": VERSION}


ABSENT = problem("no-such-key", 404)

ROWS = [
    Row(
        "touch with ttl",
        touch("t1", ttl=60.5),
        200,
        written("t1", created=False, expires_at=MOMENT),
        {"content-type": "application/json", "cache-control": "no-cache", "x-cache": None},
        [put("t1")],
        (get("t1"), 200, shown("t1", "old", expires_at=MOMENT)),
    ),
    Row(
        "touch with a moment",
        touch("t2", expires_at=FAR),
        200,
        written("t2", created=False, expires_at=FAR),
        given=[put("t2")],
    ),
    Row(
        "touch for ever",
        touch("t3", expires_at=None),
        200,
        written("t3", created=False),
        given=[store("t3", ttl=60)],
        then=(get("t3"), 200, shown("t3", 1)),
    ),
    Row(
        "a touched value keeps its bytes and its type",
        touch("t4", ttl=60),
        200,
        given=[Ask("PUT", "/v1/values/t4", b"caf\xe9", TEXT)],
        then=(Ask("GET", "/v1/values/t4"), 200, b"caf\xe9"),
    ),
    Row("touch what is absent", touch("t5", ttl=60), 404, ABSENT, then=(get("t5"), 404, ABSENT)),
    Row("touch without an expiry", touch("t6"), 400, invalid("ttl"), given=[put("t6")]),
    Row("touch with ttl null", touch("t6", ttl=None), 400, invalid("ttl"), given=[put("t6")]),
    Row("touch with ttl 0", touch("t6", ttl=0), 400, invalid("ttl"), given=[put("t6")]),
    Row("touch with both", touch("t6", ttl=1, expires_at=FAR), 400, invalid("expires_at")),
    Row("touch an illegal key", touch("", ttl=1), 400, invalid("key")),
    Row("touch an unknown field", touch("t6", ttl=1, value=2), 400, invalid("value")),
    Row(
        "touch if the version is right",
        Ask("POST", "/touch-value", '{"key": "t7", "ttl": 60}', {"If-Match": '"$V"'}),
        200,
        given=[put("t7")],
    ),
    Row(
        "touch if the version is wrong",
        touch("t8", ttl=60, if_version=10**12),
        412,
        failed("t8"),
        given=[put("t8")],
        then=(get("t8"), 200, shown("t8", "old")),
    ),
    Row(
        "rename",
        rename("r1", "r1/new"),
        200,
        written("r1/new", expires_at=FAR),
        {"content-type": "application/json", "cache-control": "no-cache", "x-cache": None},
        [store("r1", {"a": 1.0}, expires_at=FAR)],
        (get("r1/new"), 200, shown("r1/new", {"a": 1.0}, expires_at=FAR)),
    ),
    Row(
        "what was renamed is gone",
        rename("r2", "r2/new"),
        200,
        given=[put("r2")],
        then=(get("r2"), 404, ABSENT),
    ),
    Row(
        "copy",
        rename("r3", "r3/new", copy=True),
        200,
        written("r3/new"),
        given=[put("r3")],
        then=(get("r3"), 200, shown("r3", "old")),
    ),
    Row(
        "a renamed value keeps its bytes and its type",
        rename("r4", "r4/new"),
        200,
        given=[Ask("PUT", "/v1/values/r4", b"caf\xe9", TEXT)],
        then=(Ask("GET", "/v1/values/r4/new"), 200, b"caf\xe9"),
    ),
    Row(
        "rename onto another",
        rename("r5", "r5/new"),
        412,
        failed("r5/new"),
        given=[put("r5"), put("r5/new", '"there"')],
        then=(get("r5/new"), 200, shown("r5/new", "there")),
    ),
    Row(
        "rename and replace",
        rename("r6", "r6/new", replace=True),
        200,
        written("r6/new", created=False),
        given=[put("r6"), put("r6/new", '"there"')],
        then=(get("r6/new"), 200, shown("r6/new", "old")),
    ),
    Row("rename what is absent", rename("r7", "r7/new"), 404, ABSENT),
    Row("rename to itself", rename("r8", "r8"), 400, invalid("to"), given=[put("r8")]),
    Row("rename to an illegal key", rename("r8", ""), 400, invalid("to"), given=[put("r8")]),
    Row(
        "rename without a target", Ask("POST", "/rename-value", '{"key":"r8"}'), 400, invalid("to")
    ),
    Row(
        "rename if the version is wrong",
        rename("r9", "r9/new", if_version=10**12),
        412,
        failed("r9"),
        given=[put("r9")],
        then=(get("r9"), 200, shown("r9", "old")),
    ),
    Row(
        "a write that keeps the expiry",
        store("k1", 2, keep_ttl=True),
        200,
        written("k1", created=False, expires_at=FAR),
        given=[store("k1", expires_at=FAR)],
    ),
    Row("an absent key has no expiry", store("k2", keep_ttl=True), 200, written("k2")),
    Row(
        "a write without it",
        store("k3", 2, keep_ttl=False),
        200,
        written("k3", created=False),
        given=[store("k3", expires_at=FAR)],
    ),
    Row("keep_ttl and ttl", store("k4", ttl=1, keep_ttl=True), 400, invalid("keep_ttl")),
    Row(
        "bytes that keep the expiry",
        Ask("PUT", "/v1/values/k5?keep_ttl=true", b"2"),
        200,
        written("k5", created=False, expires_at=FAR),
        given=[store("k5", expires_at=FAR)],
    ),
    Row(
        "keep_ttl of another kind",
        Ask("PUT", "/v1/values/k5?keep_ttl=1", b"2"),
        400,
        invalid("keep_ttl"),
    ),
    Row(
        "many that keep their expiry",
        Ask(
            "POST",
            "/set-values",
            '{"values": [{"key": "k6", "value": 2, "keep_ttl": true}, {"key": "k7", "value": 2}]}',
        ),
        200,
        {"values": [written("k6", created=False, expires_at=FAR), written("k7", created=False)]},
        given=[store("k6", expires_at=FAR), store("k7", expires_at=FAR)],
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=name_of)
async def test_table(server: Server, row: Row) -> None:
    await row.check(server)


async def test_a_touched_or_renamed_value_is_never_read_from_an_old_copy(server: Server) -> None:
    await store("old").send(server, "")
    assert (await get("old").send(server, "")).json["expires_at"] is None  # cached
    await touch("old", expires_at=FAR).send(server, "")
    assert (await get("old").send(server, "")).json["expires_at"] == FAR
    assert (await get("old/new").send(server, "")).status == 404  # cached
    await rename("old", "old/new").send(server, "")
    assert (await get("old/new").send(server, "")).json["value"] == 1
    assert (await get("old").send(server, "")).status == 404
