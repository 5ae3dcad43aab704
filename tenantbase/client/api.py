"""``Client``: one method for each operation of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from ssl import SSLContext
from types import TracebackType
from typing import Any, Final, overload

import aiohttp

from tenantbase.client.administration import Administration
from tenantbase.client.bulk import Bulk
from tenantbase.client.errors import NoSuchKey, UnexpectedAnswer
from tenantbase.client.exchange import Exchange, post
from tenantbase.client.identity import header_fields
from tenantbase.client.lists import Lists
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
from tenantbase.client.retrying import Answer
from tenantbase.client.session import open_session
from tenantbase.client.settings import Settings
from tenantbase.client.targets import PATH_SAFE, expiry_query, quoted
from tenantbase.client.watching import watch
from tenantbase.client.wire import (
    FoundEntry,
    Increment,
    PutRaw,
    Rename,
    check_finite,
    check_keys,
    exact,
    json_body,
    parse,
    put_body,
)
from tenantbase.entry import OCTETS

_NO_LIMIT: Final = 0  # to aiohttp


class Client(Bulk, Lists, Administration):
    """A connection pool to one server.

    ::

        async with Client("http://127.0.0.1:8000") as client:
            await client.set("code", {"a": 1})
            entry = await client.get("code")

    Every method raises ``ClientError``; see ``tenantbase.client.errors``. Failed reads are retried;
    writes only when it is certain that nothing was written.

    Args:
        url: the server's URL, such as ``http://127.0.0.1:8000``; it may have a path.
            ``unix:PATH``: a Unix socket that speaks plain HTTP.
        token: sent to this server alone, as ``Authorization: Bearer``.
        tenant: the tenant to work on; None: that of the token, or ``default`` for an ``admin``.
        session: the session to use instead of a new one. It is not closed.
        ssl: how to verify a server with an https URL; None: with this machine's certificate
            authorities, or those in the file that ``SSL_CERT_FILE`` names. Not for a ``session``.
        headers: sent with every request.
        timeout: seconds for one call, including its retries; for a list, for each page.
        connect_timeout: seconds for opening a connection.
        attempts: how often a request is sent at most, not counting refusals by a limit that are
            waited for.
        wait_when_limited: seconds that a call may wait, in all and within ``timeout``, when the
            tenant has made too many requests, or the server has too many in flight or too many
            connections; 0: RateLimited at once, and Unavailable after ``attempts``.
        connections: how many connections may be open. Each watch opens one more of its own, unless
            you give a ``session``.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        tenant: str | None = None,
        session: aiohttp.ClientSession | None = None,
        ssl: SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        attempts: int = 5,
        wait_when_limited: float = 0.0,
        connections: int = 100,
    ) -> None:
        if session is not None and ssl is not None:
            raise ValueError("give session or ssl, not both: a session has its own ssl")
        if session is not None and url.startswith("unix:"):
            raise ValueError("give a session that connects to the socket, and an http url")
        self._settings = Settings(
            url=url.rstrip("/"),
            headers=header_fields(headers, token, tenant),
            timeout=timeout,
            connect_timeout=connect_timeout,
            attempts=attempts,
            wait_when_limited=wait_when_limited,
            connections=connections,
        )
        self._given = session
        self._ssl = ssl
        self._stack = AsyncExitStack()
        self._open: Exchange | None = None

    async def __aenter__(self) -> Client:
        session = watching = self._given
        if session is None or watching is None:
            session, watching = [
                await self._stack.enter_async_context(
                    open_session(limit, self._ssl, self._settings.socket)
                )
                for limit in (self._settings.connections, _NO_LIMIT)
            ]
        self._open = Exchange(session, watching, self._settings)
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
            raise RuntimeError("use the client inside: async with Client(...) as client")
        return self._open

    async def _read_one(
        self, target: str, if_none_match: int | None, fresh: bool
    ) -> Answer | NotModified | None:
        headers = {} if if_none_match is None else {"If-None-Match": f'"{if_none_match}"'}
        if fresh:
            headers["Cache-Control"] = "no-cache"
        try:
            answer = await self._exchange.read("GET", target, headers=headers)
        except NoSuchKey:
            return None
        return NOT_MODIFIED if answer.status == 304 else answer

    def _entry(self, key: str, answer: Answer) -> Entry:
        entry = parse(answer.body, FoundEntry).entry()
        check_keys((key,), (entry.key,))
        return entry

    async def _write_one(self, path: str, key: str, body: object) -> Written:
        written = parse(await post(self._exchange, path, json_body(body)), Written)
        check_keys((key,), (written.key,))
        return written

    # One entry

    @overload
    async def get(self, key: str, *, fresh: bool = ...) -> Entry | None: ...

    @overload
    async def get(
        self, key: str, *, if_none_match: int, fresh: bool = ...
    ) -> Entry | NotModified | None: ...

    async def get(
        self, key: str, *, if_none_match: int | None = None, fresh: bool = False
    ) -> Entry | NotModified | None:
        """Read an entry; None if the key does not exist.

        Args:
            if_none_match: the version that you have. If it is still the newest, the result is
                ``NOT_MODIFIED`` and the value is not transferred.
            fresh: read from the database, not from memcached, and refresh the copy there.
        """
        answer = await self._read_one(f"/get-value?key={quoted(key)}", if_none_match, fresh)
        if answer is None or isinstance(answer, NotModified):
            return answer
        return self._entry(key, answer)

    async def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_version: int | None = None,
    ) -> Written:
        """Store a value: anything that JSON can express, or ``msgspec.Raw`` with its exact text.

        Args:
            ttl: seconds until it expires.
            expires_at: when it expires, in Unix seconds.
            keep_ttl: an existing entry keeps its expiry.
            if_absent: only if the key does not exist; otherwise ConditionFailed.
            if_version: only if the entry has this version; otherwise ConditionFailed.

        Raises:
            TypeError, ValueError: JSON cannot express the value, or a time is not finite. Nothing
                was sent.
        """
        put = Put(
            key=key,
            value=value,
            ttl=ttl,
            expires_at=expires_at,
            keep_ttl=keep_ttl,
            if_absent=if_absent,
            if_version=if_version,
        )
        return await self._write_one("/set-value", key, put_body(put))

    async def delete(self, key: str, *, if_version: int | None = None) -> None:
        """Delete a key. Deleting an absent key does nothing.

        Args:
            if_version: only if the entry has this version; otherwise ConditionFailed.
        """
        condition = "" if if_version is None else f"&if_version={if_version}"
        await self._exchange.write("DELETE", f"/delete-value?key={quoted(key)}{condition}")

    async def increment(
        self,
        key: str,
        by: int = 1,
        *,
        initial: int = 0,
        ttl: float | None = None,
        expires_at: float | None = None,
        if_version: int | None = None,
    ) -> Count:
        """Add to an integer, atomically. The first call stores ``initial + by``.

        Without ``ttl`` and ``expires_at``, the counter keeps its expiry.

        Raises:
            WrongType: the entry is not an integer.
        """
        check_finite(ttl=ttl, expires_at=expires_at)
        body = Increment(key, by, initial, ttl, expires_at, if_version)
        count = parse(await post(self._exchange, "/increment-value", json_body(body)), Count)
        check_keys((key,), (count.key,))
        return count

    async def touch(
        self,
        key: str,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        if_version: int | None = None,
    ) -> Written:
        """Change only when an entry expires: without ``ttl`` and ``expires_at``, never.

        Raises:
            NoSuchKey: there is no entry.
        """
        check_finite(ttl=ttl, expires_at=expires_at)
        body: dict[str, object] = {"key": key, "if_version": if_version}
        body |= {"expires_at": expires_at} if ttl is None else {"ttl": ttl}
        if ttl is not None and expires_at is not None:
            raise ValueError("give ttl or expires_at, not both")
        return await self._write_one("/touch-value", key, body)

    async def rename(
        self,
        key: str,
        to: str,
        *,
        copy: bool = False,
        replace: bool = False,
        if_version: int | None = None,
    ) -> Written:
        """Move an entry to another key, atomically, with its type and expiry.

        Args:
            copy: the entry also stays at ``key``.
            replace: replace an entry at ``to``; without this, ConditionFailed if there is one.
            if_version: only if the entry at ``key`` has this version; otherwise ConditionFailed.

        Returns: what is stored at ``to``.

        Raises:
            NoSuchKey: there is no entry at ``key``.
        """
        return await self._write_one(
            "/rename-value", to, Rename(key, to, copy, replace, if_version)
        )

    @overload
    async def get_raw(self, key: str, *, fresh: bool = ...) -> Blob | None: ...

    @overload
    async def get_raw(
        self, key: str, *, if_none_match: int, fresh: bool = ...
    ) -> Blob | NotModified | None: ...

    async def get_raw(
        self, key: str, *, if_none_match: int | None = None, fresh: bool = False
    ) -> Blob | NotModified | None:
        """Read a value's exact bytes and media type; otherwise like ``get``."""
        in_path = PATH_SAFE.fullmatch(key)
        target = f"/v1/values/{key}" if in_path else f"/get-value?key={quoted(key)}"
        answer = await self._read_one(target, if_none_match, fresh)
        if answer is None or isinstance(answer, NotModified):
            return answer
        if not in_path:
            entry = self._entry(key, answer)
            return Blob(exact(entry, answer.body), entry.content_type, entry.version)
        version = answer.headers.get("ETag", "").strip('"')
        if not version.isdecimal():
            raise UnexpectedAnswer("the answer is not from a tenantbase server: it has no ETag")
        return Blob(answer.body, answer.headers.get("Content-Type", OCTETS), int(version))

    async def put_raw(
        self,
        key: str,
        content: bytes,
        content_type: str = OCTETS,
        *,
        ttl: float | None = None,
        expires_at: float | None = None,
        keep_ttl: bool = False,
        if_absent: bool = False,
        if_version: int | None = None,
    ) -> Written:
        """Store bytes as they are, with their media type; otherwise like ``set``."""
        check_finite(ttl=ttl, expires_at=expires_at)
        if not PATH_SAFE.fullmatch(key):
            body = PutRaw(
                key,
                content,
                content_type,
                ttl,
                expires_at,
                keep_ttl,
                if_absent,
                if_version,
                "base64",
            )
            return await self._write_one("/set-value", key, body)
        headers = {"Content-Type": content_type}
        if if_absent:
            headers["If-None-Match"] = "*"
        if if_version is not None:
            headers["If-Match"] = f'"{if_version}"'
        target = f"/v1/values/{key}{expiry_query(ttl, expires_at, keep_ttl)}"
        answer = await self._exchange.write("PUT", target, content, headers)
        written = parse(answer.body, Written)
        check_keys((key,), (written.key,))
        return written

    # The server

    def watch(self, prefix: str = "", *, after: int | None = None) -> AsyncGenerator[Event, None]:
        """The changes of keys with the prefix.

        The stream survives lost connections and restarts of the server, without a gap: it yields
        either every change, in order, or a ``Reset`` that says to read everything under its prefix
        again. It ends only with an error: the server refuses, or cannot be reached at the start.

        Args:
            after: resume after this version, such as that of the last event you have seen; None
                starts now.
        """
        return watch(self._exchange, prefix, after)

    async def health(self) -> Health:
        """The server's health, even if that is ``unavailable``."""
        answer = await self._exchange.read("GET", "/health-check", also=503)
        return parse(answer.body, Health)
