"""The client: one method for each thing a server does."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import Any, Final, Literal, overload
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec

from tenantbase.client.errors import NoSuchKey
from tenantbase.client.exchange import Exchange
from tenantbase.client.results import (
    NOT_MODIFIED,
    Blob,
    Count,
    Entry,
    Event,
    Health,
    NotModified,
    Put,
    Written,
)
from tenantbase.client.watching import watch

_KEYS_A_REQUEST: Final = 1000
_PAGE: Final = 1000
_KEEPALIVE: Final = 15.0  # seconds; less than any server's, or requests meet closing connections
_JSON_BODY: Final = {"Content-Type": "application/json"}


class _Found(msgspec.Struct):
    key: str
    value: msgspec.Raw
    id: str
    version: int
    expires_at: float | None
    content_type: str = "application/json"
    encoding: Literal["base64"] | None = None

    def entry(self) -> Entry:
        raw = bytes(self.value)
        if self.encoding is not None:
            raw = msgspec.json.decode(raw, type=bytes)
        return Entry(self.key, raw, self.content_type, self.id, self.version, self.expires_at)


class _Page(msgspec.Struct):
    values: list[_Found]
    cursor: str | None = None


class _Key(msgspec.Struct):
    key: str


class _KeyPage(msgspec.Struct):
    values: list[_Key]
    cursor: str | None = None


class _WrittenMany(msgspec.Struct):
    values: list[Written]


class _Deleted(msgspec.Struct):
    deleted: int


class _Increment(msgspec.Struct, omit_defaults=True):
    key: str
    by: int
    initial: int
    ttl: float | None = None
    expires_at: float | None = None
    if_version: int | None = None


_found = msgspec.json.Decoder(_Found)
_page = msgspec.json.Decoder(_Page)
_key_page = msgspec.json.Decoder(_KeyPage)
_written = msgspec.json.Decoder(Written)
_written_many = msgspec.json.Decoder(_WrittenMany)
_deleted = msgspec.json.Decoder(_Deleted)
_count = msgspec.json.Decoder(Count)
_health = msgspec.json.Decoder(Health)


class Client:
    """A connection pool to one server.

    ::

        async with Client("http://127.0.0.1:8000") as client:
            await client.set("code", {"a": 1})
            entry = await client.get("code")

    Every method raises ``ClientError``; ``tenantbase.client.errors`` says which and what it means.
    Reads are sent again when they fail; writes only where it is certain that nothing was done.

    Args:
        url: the server's, such as ``http://127.0.0.1:8000``; a path in it is kept.
        session: connections to use instead of own ones; it is not closed.
        headers: sent with every request.
        timeout: seconds for one call, with all its repetitions.
        connect_timeout: seconds for making a connection.
        attempts: how often a request is sent at most.
        connections: how many are open at most; a watch needs one for itself.
    """

    def __init__(
        self,
        url: str,
        *,
        session: aiohttp.ClientSession | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        attempts: int = 5,
        connections: int = 100,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError("a URL looks like http://127.0.0.1:8000")
        if attempts < 1:
            raise ValueError("attempts is at least 1")
        self._base = url.rstrip("/")
        self._given = session
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._attempts = attempts
        self._connections = connections
        self._stack = AsyncExitStack()
        self._open: Exchange | None = None

    async def __aenter__(self) -> Client:
        session = self._given
        if session is None:
            session = await self._stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        limit=self._connections, keepalive_timeout=_KEEPALIVE
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            )
        self._open = Exchange(
            session,
            self._base,
            self._headers,
            timeout=self._timeout,
            connect_timeout=self._connect_timeout,
            attempts=self._attempts,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = None
        await self._stack.aclose()

    @property
    def _exchange(self) -> Exchange:
        if self._open is None:
            raise RuntimeError("use the client inside its block: async with Client(...) as client")
        return self._open
