"""Tables of requests and their answers: one row per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.service import Server
from tests.web.matchers import ID, TEXT, VERSION
from tests.wire import Answer, Headers


@dataclass(frozen=True)
class Ask:
    """A request. ``$V`` in it stands for the version in the last ``ETag`` seen in the row."""

    method: str
    target: str
    body: str | bytes | None = None
    headers: Headers = ()

    async def send(self, server: Server, version: str) -> Answer:
        pairs = self.headers.items() if isinstance(self.headers, Mapping) else self.headers
        headers = [(name, value.replace("$V", version)) for name, value in pairs]
        body = self.body.replace("$V", version) if isinstance(self.body, str) else self.body
        return await server.ask(self.method, self.target.replace("$V", version), body, headers)


def put(key: str, value: str = '"old"') -> Ask:
    """Store a JSON value."""
    return Ask("PUT", f"/v1/values/{key}", value, {"Content-Type": "application/json"})


def written(key: str, created: bool = True, **more: object) -> dict[str, object]:
    """What a write answers: an entry without its value, and without expiry unless it is given."""
    entry = {"key": key, "id": ID, "version": VERSION, "created": created, "expires_at": None}
    return {**entry, **more}


def shown(key: str, value: object = "old", **more: object) -> dict[str, object]:
    """What a read answers: an entry, without expiry unless it is given."""
    return {"key": key, "value": value, "id": ID, "version": VERSION, "expires_at": None, **more}


@dataclass(frozen=True)
class Row:
    """A case.

    Attributes:
        given: earlier requests, which succeed.
        status, body, headers: what the answer to ``ask`` must be. A body that is bytes is compared
            as it is, any other as JSON. Only these headers are checked; None: it must be absent.
            ``x-cache`` applies while the cache is on, and ``cache-control: no-cache`` without a token.
        then: a further request, and the JSON of its answer.
    """

    name: str
    ask: Ask
    status: int
    body: Any = None
    headers: Mapping[str, object] = field(default_factory=dict)
    given: Sequence[Ask] = ()
    then: tuple[Ask, int, Any] | None = None

    async def check(self, server: Server) -> None:
        version = "0"
        for ask in self.given:
            answer = await ask.send(server, version)
            assert answer.status < 300, answer
            version = answer.headers.get("etag", f'"{version}"').strip('"')
        answer = await self.ask.send(server, version)
        assert answer.status == self.status, answer
        for name, expected in self.headers.items():
            if name == "x-cache" and expected is not None and not server.cached:
                expected = "BYPASS"
            if (name, expected) == ("cache-control", "no-cache") and server.token is not None:
                expected = "private, no-cache"
            if isinstance(expected, str):
                expected = expected.replace("$V", version)
            assert answer.headers.get(name) == expected, (name, answer)
        _compare(answer, self.body)
        if self.then is not None:
            ask, status, body = self.then
            later = await ask.send(server, version)
            assert later.status == status, later
            _compare(later, body)


def name_of(row: Row) -> str:
    """The id of a case in pytest's output."""
    return row.name


def _compare(answer: Answer, expected: Any) -> None:
    assert answer.whole, answer
    if isinstance(expected, bytes):
        assert answer.body == expected, answer
    elif expected is not None:
        assert answer.json == expected, answer


def problem(name: str, status: int, **more: object) -> dict[str, object]:
    """A problem document with any title and detail."""
    return {
        "type": f"urn:tenantbase:problem:{name}",
        "title": TEXT,
        "status": status,
        "detail": TEXT,
        **more,
    }


def invalid(field: str | None = None) -> dict[str, object]:
    """The problem document of a 400."""
    return problem("invalid-request", 400, **({"field": field} if field else {}))
