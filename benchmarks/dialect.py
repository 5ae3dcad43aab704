"""Requests in each service's dialect, byte for byte, and the correct answer to each."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol


@dataclass(frozen=True)
class Answer:
    """An answer; names of header fields are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Exchange:
    """A request and its expected answer.

    Attributes:
        request: its bytes.
        status: the status of the correct answer.
        right: tells whether an answer with that status is correct.
        source: the expected ``X-Cache``. A few answers may differ, because any cache may evict.
    """

    request: bytes
    status: int
    right: Callable[[Answer], bool]
    source: str | None = None


class Dialect(Protocol):
    """The requests for one service. Values are strings, sent as JSON."""

    def get(self, key: str, value: str | None) -> Exchange:
        """Read a key that has this value; None: a key that does not exist."""

    def set(self, key: str, value: str) -> Exchange | None:
        """Store a value, durably; None if the service cannot."""

    def get_many(self, entries: Mapping[str, str]) -> Exchange | None:
        """Read these entries in one request; None if the service cannot."""

    def list(self, entries: Mapping[str, str]) -> Exchange | None:
        """Read these entries, which follow each other in order of keys; None if the service cannot."""


class Routes:
    """The routes of the naive services: a part of tenantbase's."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, key: str, value: str | None) -> Exchange:
        request = _request(self._port, "GET", f"/get-value?key={key}")
        if value is None:
            return Exchange(request, 404, lambda answer: True)
        return Exchange(request, 200, lambda answer: bool(answer.json["value"] == value))

    def set(self, key: str, value: str) -> Exchange:
        request = _request(self._port, "POST", "/set-value", _json({"key": key, "value": value}))
        return Exchange(request, 200, lambda answer: True)

    def get_many(self, entries: Mapping[str, str]) -> Exchange | None:
        return None

    def list(self, entries: Mapping[str, str]) -> Exchange:
        request = _request(
            self._port, "GET", f"/get-values?start={_first(entries)}&limit={len(entries)}"
        )
        return Exchange(request, 200, lambda answer: _values(answer) == entries)


class Tenantbase(Routes):
    """All of tenantbase's routes.

    Args:
        port: where it listens.
        source: the expected ``X-Cache`` of every read.
    """

    def __init__(self, port: int, source: str) -> None:
        super().__init__(port)
        self._source = source

    def get(self, key: str, value: str | None) -> Exchange:
        return replace(super().get(key, value), source=self._source)

    def get_many(self, entries: Mapping[str, str]) -> Exchange:
        request = _request(self._port, "POST", "/get-values", _json({"keys": list(entries)}))
        return Exchange(request, 200, lambda answer: _values(answer) == entries)

    def set_many(self, entries: Mapping[str, str]) -> Exchange:
        """Store these entries in one transaction."""
        values = [{"key": key, "value": value} for key, value in entries.items()]
        request = _request(self._port, "POST", "/set-values", _json({"values": values}))
        return Exchange(request, 200, lambda answer: len(answer.json["values"]) == len(values))

    def delete_prefix(self, prefix: str, count: int) -> Exchange:
        """Delete the keys that begin with a prefix; there are this many."""
        request = _request(self._port, "POST", "/delete-values", _json({"prefix": prefix}))
        return Exchange(request, 200, lambda answer: bool(answer.json == {"deleted": count}))

    def count(self, prefix: str, count: int) -> Exchange:
        """Count the keys that begin with a prefix; there are this many."""
        request = _request(self._port, "GET", f"/v1/count?prefix={prefix}")
        return Exchange(request, 200, lambda answer: bool(answer.json["count"] == count))

    def list_prefix(self, prefix: str, entries: Mapping[str, str]) -> Exchange:
        """List everything under a prefix: these entries."""
        request = _request(self._port, "GET", f"/get-values?prefix={prefix}")
        return Exchange(request, 200, lambda answer: _values(answer) == entries)

    def watch(self, prefix: str) -> bytes:
        """The request for changes under a prefix; its answer does not end."""
        return _request(self._port, "GET", f"/v1/watch?prefix={prefix}")


class Constant(Routes):
    """The same requests; the answer does not depend on the request."""

    def get(self, key: str, value: str | None) -> Exchange:
        request = super().get(key, value).request
        return Exchange(request, 200, lambda answer: "value" in answer.json)

    def list(self, entries: Mapping[str, str]) -> Exchange:
        request = super().list(entries).request
        return Exchange(request, 200, lambda answer: len(_values(answer)) == len(entries))


class Webdis:
    """Redis commands as paths, values as bodies."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, key: str, value: str | None) -> Exchange:
        request = _request(self._port, "GET", f"/GET/{key}")
        return Exchange(request, 200, lambda answer: bool(answer.json == {"GET": value}))

    def set(self, key: str, value: str) -> Exchange:
        request = _request(self._port, "PUT", f"/SET/{key}", value)
        return Exchange(request, 200, lambda answer: bool(answer.json == {"SET": [True, "OK"]}))

    def get_many(self, entries: Mapping[str, str]) -> Exchange:
        request = _request(self._port, "GET", "/".join(["/MGET", *entries]))
        values = list(entries.values())
        return Exchange(request, 200, lambda answer: bool(answer.json == {"MGET": values}))

    def list(self, entries: Mapping[str, str]) -> Exchange | None:
        return None


class Redis(Routes):
    """The same requests, and bulk reads; Redis has no order to list keys in."""

    def get_many(self, entries: Mapping[str, str]) -> Exchange:
        request = _request(self._port, "POST", "/get-values", _json({"keys": list(entries)}))
        return Exchange(request, 200, lambda answer: _values(answer) == entries)

    def list(self, entries: Mapping[str, str]) -> None:
        return None


class Nginx:
    """Keys as paths. nginx reads values from memcached, and cannot write them."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, key: str, value: str | None) -> Exchange:
        request = _request(self._port, "GET", f"/{key}")
        if value is None:
            return Exchange(request, 404, lambda answer: True)
        return Exchange(request, 200, lambda answer: answer.body == value.encode())

    def set(self, key: str, value: str) -> None:
        return None

    def get_many(self, entries: Mapping[str, str]) -> None:
        return None

    def list(self, entries: Mapping[str, str]) -> None:
        return None


class Etcd:
    """etcd's JSON gateway: keys and values are in base64."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, key: str, value: str | None) -> Exchange:
        expected = {} if value is None else {key: value}
        request = self._ask("range", {"key": _base64(key)})
        return Exchange(request, 200, lambda answer: _pairs(answer.json) == expected)

    def set(self, key: str, value: str) -> Exchange:
        request = self._ask("put", {"key": _base64(key), "value": _base64(value)})
        return Exchange(request, 200, lambda answer: "header" in answer.json)

    def get_many(self, entries: Mapping[str, str]) -> Exchange:
        wanted = [{"requestRange": {"key": _base64(key)}} for key in entries]
        request = self._ask("txn", {"success": wanted})

        def right(answer: Answer) -> bool:
            found: dict[str, str] = {}
            for each in answer.json["responses"]:
                found |= _pairs(each["response_range"])
            return found == entries

        return Exchange(request, 200, right)

    def list(self, entries: Mapping[str, str]) -> Exchange:
        start, end = _base64(_first(entries)), _base64("\0")
        wanted = {"key": start, "range_end": end, "limit": len(entries)}
        return Exchange(self._ask("range", wanted), 200, lambda got: _pairs(got.json) == entries)

    def _ask(self, operation: str, body: object) -> bytes:
        return _request(self._port, "POST", f"/v3/kv/{operation}", _json(body))


def _first(entries: Mapping[str, str]) -> str:
    """The first of these keys."""
    return next(iter(entries))


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _pairs(found: Mapping[str, Any]) -> dict[str, str]:
    """The keys and values of an answer of etcd."""
    return {
        b64decode(each["key"]).decode(): b64decode(each["value"]).decode()
        for each in found.get("kvs", ())
    }


def _values(answer: Answer) -> dict[str, str]:
    return {entry["key"]: entry["value"] for entry in answer.json["values"]}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _request(port: int, method: str, target: str, body: str | None = None) -> bytes:
    """A request with the header fields that wrk would send, and those for a body."""
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    length = len(body.encode())
    return (
        f"{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}".encode()
    )
