"""Sends a request and returns its answer, retrying only where that is safe.

Reads are always safe to retry. Writes are not: if the answer was lost, the write may have taken
effect, and repeating it could undo what another client wrote in between. That holds for a plain set
or delete, too. So a write is retried only if the connection could not be opened, or if the server
says that it wrote nothing and that the client should try again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from io import BytesIO
from typing import Final

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

from tenantbase.client.errors import ClientError, ConnectionFailed, NotTrusted, OutcomeUnknown
from tenantbase.client.naming import with_request_id
from tenantbase.client.retrying import Answer, Interrupted, Retries, failure_of, may_retry
from tenantbase.client.settings import Settings
from tenantbase.client.wire import JSON_HEADERS

_PIECEWISE_FROM_BYTES: Final = 64 << 10  # sending a larger body in one piece blocks the event loop
_NO_HEADERS: Final[Mapping[str, str]] = {}


class _ConnectionLost(Exception):
    """The connection was lost after the request was, or may have been, sent."""


async def _no_resend(
    request: aiohttp.ClientRequest, handler: ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from resending PUT and DELETE when their answer is lost.

    aiohttp resends idempotent methods after certain errors, so raise another one.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost(str(error)) from error


class Exchange:
    """Sends requests to one server.

    Args:
        session: the connections for requests.
        watching: the connections for streams, which stay open for long.
        settings: of the client.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        watching: aiohttp.ClientSession,
        settings: Settings,
    ) -> None:
        self._session = session
        self._watching = watching
        self._base = settings.url  # as error texts name the server
        self._headers = settings.headers
        self._settings = settings

    def url(self, target: str) -> URL:
        """The full URL of a path and query that are already percent-encoded."""
        return URL(self._settings.base + target, encoded=True)

    def retries(self) -> Retries:
        """The retries that one request may have."""
        return Retries(self._settings.attempts, self._settings.wait_when_limited)

    @asynccontextmanager
    async def stream(
        self, target: str, headers: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The lines of an answer to GET as they arrive, to be read inside the block.

        Args:
            silence: seconds without a byte after which the connection counts as lost.

        Raises:
            Interrupted: a retry may succeed. Reading a line raises it, too.
            Refused, UnexpectedAnswer: a retry is useless.
        """
        try:
            async with self._watching.get(
                self.url(target),
                headers=with_request_id({**self._headers, **headers}),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._settings.connect_timeout, sock_read=silence
                ),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    async with aclosing(_lines(response.content)) as lines:
                        yield lines
                    return
                answer = Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorCertificateError as error:
            raise _not_trusted(self._base, error) from error
        except (aiohttp.ClientError, OSError) as error:
            what = str(error) or f"nothing for {silence:g} s"
            raise Interrupted(ConnectionFailed(f"{self._base} does not answer: {what}")) from error
        failure = failure_of(answer, writes=False)
        raise Interrupted(failure, answer) if may_retry(answer, failure, False) else failure

    async def read(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        also: int = 304,
    ) -> Answer:
        """Send a request that changes nothing.

        Args:
            also: a status above 299 that counts as success.

        Raises:
            ConnectionFailed, Refused, UnexpectedAnswer: the failure of the last attempt.
        """
        return await self._send(method, target, body, headers, also)

    async def write(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Answer:
        """Send a request that may change something.

        Raises:
            ConnectionFailed, Refused: nothing was changed.
            OutcomeUnknown, UnexpectedAnswer: something may have been changed.
        """
        return await self._send(method, target, body, headers, None)

    async def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        also: int | None,
    ) -> Answer:
        writes = also is None
        now = asyncio.get_running_loop().time
        deadline = now() + self._settings.timeout
        retries = self.retries()
        while True:
            failure: ClientError
            answer = None
            try:
                answer = await self._send_once(
                    method, target, body, headers, deadline - now(), writes
                )
            except NotTrusted:  # a retry would get the same certificate
                raise
            except ConnectionFailed as error:
                failure = error
            else:
                if answer.status < 300 or answer.status == also:
                    return answer
                failure = failure_of(answer, writes)
                if not may_retry(answer, failure, writes):
                    raise failure
            wait = retries.delay(failure, answer)
            if wait is None or now() + wait >= deadline:
                raise failure
            await asyncio.sleep(wait)

    async def _send_once(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
        writes: bool,
    ) -> Answer:
        try:
            async with self._session.request(
                method,
                self.url(target),
                data=(
                    BytesIO(body)
                    if body is not None and len(body) >= _PIECEWISE_FROM_BYTES
                    else body
                ),
                headers=with_request_id({**self._headers, **headers}),
                timeout=aiohttp.ClientTimeout(
                    total=seconds, sock_connect=self._settings.connect_timeout
                ),
                allow_redirects=False,
                middlewares=(_no_resend,),
            ) as response:
                return Answer(response.status, response.headers, await response.read())
        except aiohttp.ClientConnectorCertificateError as error:
            raise _not_trusted(self._base, error) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ConnectionFailed(f"{self._base} does not answer: {error}") from error
        except (_ConnectionLost, aiohttp.ClientError, OSError) as error:
            what = str(error) or f"no answer within {seconds:.3g} s"
            if writes:
                raise OutcomeUnknown(
                    f"the answer of {self._base} to a write was lost; the write may or may not"
                    f" have been made: {what}"
                ) from error
            raise ConnectionFailed(f"{self._base} does not answer: {what}") from error


def _not_trusted(base: str, error: aiohttp.ClientConnectorCertificateError) -> NotTrusted:
    reason = error.certificate_error
    # OpenSSL's text includes the name and line of a C source file.
    what = getattr(reason, "verify_message", "") or str(reason)
    return NotTrusted(f"the certificate of {base} cannot be verified: {what}")


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """Lines without their LF, dropping an unfinished last one.

    aiohttp's ``readline`` limits the length of a line; this does not.
    """
    unfinished: list[bytes] = []
    async for piece in content.iter_any():
        first, *others = piece.split(b"\n")
        unfinished.append(first)
        if others:
            yield b"".join(unfinished)
            for line in others[:-1]:
                yield line
            unfinished = [others[-1]]


async def post(exchange: Exchange, path: str, body: bytes) -> bytes:
    """Send a write as JSON. Returns: the body of the answer."""
    return (await exchange.write("POST", path, body, JSON_HEADERS)).body
