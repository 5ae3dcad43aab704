"""Imports of random lines against a plain model: what is stored, which error ends them, and where."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenantbase.cli import transfer
from tenantbase.commands import Set
from tenantbase.database import Database
from tenantbase.database.validation import set_command, set_commands
from tenantbase.entry import JSON, OCTETS, TEXT, Entry
from tenantbase.errors import Forbidden, InvalidRequest, TenantbaseError
from tenantbase.json_requests import SetValue
from tenantbase.listing import KeyRange
from tenantbase.process.config import Config
from tenantbase.process.wiring import open_database
from tenantbase.scope import Scope

pytestmark = pytest.mark.integration

NOW: Final = time.time()
LATER: Final = NOW + 1e6
BATCH: Final = 4
MAX_VALUE_BYTES: Final = 2_000

DEEP: Final = '{"key":"a","value":' + "[" * 513 + "]" * 513 + "}"

_KEYS: Final = st.sampled_from(["a", "b", "c", "d", "p/é", "p/\U0001f600"])
_FIELDS: Final = st.fixed_dictionaries(
    {"key": _KEYS, "value": st.sampled_from([1, "x:,\\{", None, {"key": [1, "key"]}])},
    optional={
        "id": st.just("an-id"),
        "version": st.just(7),
        "expires_at": st.sampled_from([None, 1.5, LATER]),
    },
)
_TEXTS: Final = st.fixed_dictionaries(
    {
        "key": _KEYS,
        "value": st.just("AAAA"),
        "encoding": st.sampled_from(["utf-8", "base64"]),
    },
    optional={"content_type": st.just("text/css")},
)
_GOOD: Final = st.one_of(_FIELDS, _FIELDS, _FIELDS, _TEXTS).map(json.dumps)
_BLANK: Final = st.sampled_from(["", " \r"])
_BAD: Final = st.sampled_from(
    [
        '{"key":"","value":1}',
        '{"key":"a","value":1,"value":2}',
        '{"key":"a","value":1,"id":"x","id":"y"}',
        '{"key":"a","value":1,"id":"xxxxxxxx","version":1,"version":2}',
        '{"key":"a","value":1}{"key":"b","value":1}',
        '{"key":"a","value":1,"if_absent":true}',
        '{"key":"a","value":1,"expires_at":1.5,"ttl":1}x',
        DEEP,
        '{"key":"a","value":"' + "x" * MAX_VALUE_BYTES + '"}',
        '{"key":"a","value":"*","encoding":"base64"}',
        '{"key":"\ud800","value":1}',
        '{"key":"a",',
        '"value":1}',
    ]
)
_LINES: Final = st.lists(st.one_of(*[_GOOD] * 12, _BLANK, _BAD), max_size=14)

Model = dict[str, dict[str, object]]


def _stored(model: Model, lines: Sequence[str]) -> None:
    for line in lines:
        if line.strip():
            fields = json.loads(line)
            if (fields.get("expires_at") or LATER) > NOW:
                model[fields["key"]] = fields


def _is_bad(line: str) -> bool:
    return bool(line.strip()) and line in _BAD.elements  # type: ignore[attr-defined]


def _encoded(lines: Sequence[str]) -> bytes:
    # An empty last line would be none without a line break of its own.
    end = "\n" if lines and not lines[-1] else ""
    return ("\n".join(lines) + end).encode(errors="surrogatepass")


async def _import(database: Database, scope: Scope, lines: Sequence[str]) -> str | None:
    try:
        async for _ in transfer.import_lines(database, scope, BytesIO(_encoded(lines))):
            pass
    except TenantbaseError as error:
        return str(error)
    return None


async def _contents(database: Database, scope: Scope) -> list[Entry]:
    found = []
    async for items, _ in database.scan(scope, KeyRange("")):
        found += [item for item in items if isinstance(item, Entry)]
    return found


def _as_model(entry: Entry, scope: Scope) -> tuple[object, ...]:
    return entry.key[scope.plain], entry.value, entry.content_type, entry.expires_at


def _expected(fields: dict[str, object]) -> tuple[object, ...]:
    value, content_type = json.dumps(fields["value"]).encode(), JSON
    if fields.get("encoding") == "utf-8":
        value, content_type = b"AAAA", TEXT
    elif "encoding" in fields:
        value, content_type = bytes(3), OCTETS
    given_type = fields.get("content_type", content_type)
    return fields["key"], value, given_type, fields.get("expires_at")


@settings(max_examples=120)
@given(files=st.lists(_LINES, min_size=1, max_size=3), limit=st.none() | st.integers(0, 6))
@example([['{"key":"a","value":1}'] * 2], None)
@example([[DEEP]], None)
@example([['{"key":"a","value":1,"id":"x","id":"y"}']], None)
@example([['{"key":"a","value":1}'], ['{"key":"b","value":1}', '{"key":"a","value":2}']], 1)
@example([['{"key":"a","value":1}'] * 4 + ['{"key":"b","value":1}', ""]], 1)
def test_what_is_stored_is_what_the_lines_say(files: list[list[str]], limit: int | None) -> None:
    async def run(directory: Path) -> None:
        scope = Scope("t")
        config = Config(database=directory / "x.db", max_value_bytes=MAX_VALUE_BYTES)
        async with open_database(config) as database:
            await database.put_tenant("t", max_entries=limit)
            model: Model = {}
            for lines in files:
                told = await _import(database, scope, lines)
                end = next((at for at, line in enumerate(lines) if _is_bad(line)), len(lines))
                expected = f"line {end + 1}: " if end < len(lines) else ""
                for at in range(0, end, BATCH):
                    after = dict(model)
                    batch = lines[at : min(at + BATCH, end)]
                    _stored(after, batch)
                    if limit is not None and len(after) > max(limit, len(model)):
                        expected = f"lines {at + 1} to {at + len(batch)}: "
                        break
                    model = after
                assert (told or "").startswith(expected) and bool(told) == bool(expected), told
                entries = await _contents(database, scope)
                assert [_as_model(entry, scope) for entry in entries] == [
                    _expected(model[key]) for key in sorted(model, key=str.encode)
                ]
                versions = {entry.version for entry in entries}
                assert len(versions) == len({entry.id for entry in entries}) == len(entries)
                (tenant,) = [each for each in await database.tenants() if each.name == "t"]
                assert (tenant.entries, tenant.bytes) == (
                    len(entries),
                    sum(len(each.key[scope.plain].encode()) + len(each.value) for each in entries),
                )

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "_BATCH_LINES", BATCH)
        asyncio.run(run(Path(directory)))


def _outcome(make: object) -> object:
    try:
        return list(make())  # type: ignore[operator]
    except (InvalidRequest, Forbidden) as error:
        return str(error), getattr(error, "field", None)


@given(st.lists(st.one_of(*[_GOOD] * 8, _BAD), max_size=5), st.sampled_from(["", "", "p/"]))
def test_many_commands_are_those_of_each(lines: list[str], allowed: str) -> None:
    scope = Scope("t", allowed=allowed)
    entries: list[SetValue] = []
    for line in lines:
        try:
            entries.append(transfer._LINE.decode(line.encode(errors="surrogatepass")))
        except InvalidRequest:
            continue

    def alone(each: SetValue) -> Set:
        return set_command(scope, each, NOW, MAX_VALUE_BYTES, condition=None, value=None)

    assert _outcome(lambda: set_commands(scope, entries, NOW, MAX_VALUE_BYTES)) == _outcome(
        lambda: map(alone, entries)
    )
