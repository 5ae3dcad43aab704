"""The operations of the command line, done by a server over HTTP."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Final

import aiohttp
import msgspec

from tenantbase.entry import JSON, is_json
from tenantbase.errors import TenantbaseError

_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_NDJSON: Final = {"Accept": "application/x-ndjson"}


class _Problem(msgspec.Struct):
    detail: str


class _Found(msgspec.Struct):
    value: msgspec.Raw
    encoding: str | None = None
    content_type: str = JSON


class Remote:
    """Does what ``direct.Direct`` does, with the same results.

    Every method raises TenantbaseError when the server cannot be reached or refuses.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def set(
        self,
        key: str,
        value: bytes,
        content_type: str,
        *,
        ttl: float | None,
        if_absent: bool,
        if_version: int | None,
    ) -> bytes:
        stated = {"ttl": ttl, "if_absent": if_absent or None, "if_version": if_version}
        body: dict[str, object] = {"key": key}
        body |= {name: given for name, given in stated.items() if given is not None}
        if is_json(content_type):
            body["value"] = msgspec.Raw(value)
        else:
            body["value"] = base64.b64encode(value).decode()
            body |= {"encoding": "base64", "content_type": content_type}
        async with self._answer("POST", "/set-value", body=msgspec.json.encode(body)) as answer:
            return await answer.read()

    async def get(self, key: str) -> tuple[bytes, str] | None:
        async with self._answer("GET", "/get-value", {"key": key}, expected=404) as answer:
            if answer.status == 404:
                return None
            found = msgspec.json.decode(await answer.read(), type=_Found)
        if found.encoding == "base64":
            return base64.b64decode(msgspec.json.decode(found.value, type=str)), found.content_type
        return bytes(found.value), found.content_type

    async def delete(self, key: str, *, if_version: int | None) -> None:
        query = {"key": key}
        if if_version is not None:
            query["if_version"] = str(if_version)
        async with self._answer("DELETE", "/delete-value", query):
            pass

    async def lines(self, prefix: str, limit: int | None) -> AsyncGenerator[bytes, None]:
        query = {"prefix": prefix}
        if limit is not None:
            query["limit"] = str(limit)
        async with self._answer("GET", "/v1/values", query, headers=_NDJSON) as answer:
            async for piece in answer.content.iter_any():
                yield piece

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expected: int = 200,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The server's answer, if it is a success or has the status ``expected``."""
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=query,
                data=None if body is None else BytesIO(body),
                headers=headers,
            ) as answer:
                if answer.status >= 400 and answer.status != expected:
                    raise TenantbaseError(await _problem(answer))
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise TenantbaseError(f"{self._url} does not answer: {reason}") from error
        except msgspec.MsgspecError as error:
            raise TenantbaseError(f"{self._url} is no tenantbase server: {error}") from error


@asynccontextmanager
async def open_remote(url: str) -> AsyncIterator[Remote]:
    """A client of the server at ``url``. Nothing is sent yet."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        yield Remote(session, url)


async def _problem(answer: aiohttp.ClientResponse) -> str:
    try:
        return msgspec.json.decode(await answer.read(), type=_Problem).detail
    except msgspec.MsgspecError:
        return f"the server answers {answer.status} {answer.reason}"
