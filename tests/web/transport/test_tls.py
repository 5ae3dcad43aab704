"""HTTPS on both event loops and both HTTP paths: the limits on connections hold under TLS, too."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace

import pytest
import pytest_asyncio

from tenantbase.commands import Set
from tenantbase.entry import JSON
from tenantbase.process.tls import load
from tenantbase.scope import DEFAULT
from tenantbase.web import WebSettings
from tenantbase.web.transport import tls_transport
from tenantbase.web.transport.tls import TlsContext
from tenantbase.web.transport.tls_transport import TlsTransport
from tests.certificates import Authority
from tests.servers import poll_async
from tests.service import Server, opened, served, web_settings
from tests.web.both_paths import answers
from tests.web.conftest import Start
from tests.web.corpus import EVERYTHING, LAST
from tests.web.tls_wire import TlsWire
from tests.wire import SECONDS, Wire, request

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

EVENT_LOOPS = ["asyncio", "uvloop"]

MIB = 1 << 20
GET = request("GET", "/get-value?key=k")
PATHS = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "general"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def trusted(authority: Authority) -> ssl.SSLContext:
    return authority.trusted()


@pytest.fixture(scope="module")
def settings(authority: Authority) -> WebSettings:
    pair = authority.issue()
    context = TlsContext(load(pair.certificate, pair.key, None))
    return web_settings(tls=context, max_value_bytes=16 * MIB)


@pytest.fixture
def quick_handshake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test should wait ten seconds. A handshake takes a few milliseconds, or more if the machine
    is busy."""
    monkeypatch.setattr("tenantbase.web.server.HANDSHAKE_SECONDS", 2.0)
    yield


async def fill(server: Server) -> None:
    await server.cache.write(
        Set(DEFAULT.key("k"), b"1", JSON),
        Set(DEFAULT.key("big"), b'"%b"' % (b"x" * (12 * MIB)), JSON),
    )


async def test_a_flood_of_key_updates_is_cut(
    start: Start, settings: WebSettings, trusted: ssl.SSLContext
) -> None:
    """Each makes the server compute new keys. Python's ssl cannot send them; openssl's client can."""
    async with start(settings) as server, asyncio.timeout(SECONDS):
        await fill(server)
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{server.port}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert client.stdin is not None
        client.stdin.write(b"K\n" * 100)  # a few are allowed
        await client.stdin.drain()
        await poll_async(lambda: len(server.lifecycle.connections) == 1, "it is connected")
        async with await connected(server, trusted) as other:
            await other.send(GET)
            assert b"200 OK" in await other.read()
            while client.returncode is None:
                try:
                    client.stdin.write(b"K\n" * 100)
                    await client.stdin.drain()
                except ConnectionError:
                    break
                await asyncio.sleep(0)
            await client.wait()
            await other.send(GET)
            assert b"200 OK" in await other.read()


async def connected(server: Server, context: ssl.SSLContext) -> TlsWire:
    wire = await TlsWire.connect(server.port, context)
    await wire.shake_hands()
    return wire


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ports(
    settings: WebSettings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[int, int, int]]:
    """The fast path over TLS, aiohttp over TLS, and the fast path in plain HTTP."""
    async with opened(tmp_path_factory.mktemp("agree") / "x.db") as cache:
        await cache.write(
            Set(DEFAULT.key("plain"), b'{"a": 1.50}', JSON),
            Set(DEFAULT.key("w"), b"1", JSON),
            Set(DEFAULT.key("page/1"), b"x", "text/html"),
        )
        async with (
            served(cache, settings) as fast,
            served(cache, replace(settings, fast_path=False)) as general,
            served(cache, replace(settings, tls=None)) as plain,
        ):
            yield fast.port, general.port, plain.port


@pytest.mark.parametrize("name", EVERYTHING)
async def test_answers_are_those_of_plain_http(
    ports: tuple[int, int, int], trusted: ssl.SSLContext, name: str
) -> None:
    data = EVERYTHING[name]
    # aiohttp refuses what follows a last request, and the fast path ignores it.
    sent = data if b"Connection: close" in data else data + LAST
    fast = await answers(ports[0], [sent], tls=trusted)
    assert fast == await answers(ports[1], [sent], tls=trusted)
    plain = await answers(ports[2], [sent])
    if b"Origin: http://localhost" in data:
        assert b" 200 " in plain and b" 403 " in fast
    else:
        assert fast == plain


async def test_pages_of_the_same_host_may_write(
    ports: tuple[int, int, int], trusted: ssl.SSLContext
) -> None:
    body = '{"key": "w", "value": 1}'
    for port in ports[:2]:
        for origin, status in (("https://localhost", b"200"), ("http://localhost", b"403")):
            data = request("POST", "/set-value", body, {"Origin": origin})
            answer = await answers(port, [data + LAST], tls=trusted)
            assert answer.startswith(b"HTTP/1.1 %b " % status), (origin, answer)


@pytest.mark.parametrize(
    "offered, chosen",
    [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], None), ([], None)],
)
async def test_alpn_chooses_http_1_1(
    ports: tuple[int, int, int], authority: Authority, offered: list[str], chosen: str | None
) -> None:
    context = authority.trusted()
    if offered:
        context.set_alpn_protocols(offered)
    async with await TlsWire.connect(ports[0], context) as wire:
        await wire.shake_hands()
        assert wire.tls.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
async def test_older_tls_than_1_2_is_refused(
    ports: tuple[int, int, int], authority: Authority, version: str
) -> None:
    context = authority.trusted()
    context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself offers no TLS 1.1
    with pytest.warns(DeprecationWarning) if version == "TLSv1_1" else nullcontext():
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    async with await TlsWire.connect(ports[0], context) as wire:
        if version == "TLSv1_1":
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                await wire.shake_hands()
        else:
            await wire.shake_hands()
            await wire.send(LAST)
            assert b" 200 OK" in await wire.read_all()


@PATHS
@pytest.mark.parametrize(
    "target", ["/get-value?key=k", "/v1/values?prefix=k", "/get-value?key=big"]
)
@pytest.mark.parametrize("tls_end", [True, False], ids=["close_notify", "TCP"])
async def test_half_closed_client_gets_its_answers(
    start: Start,
    settings: WebSettings,
    trusted: ssl.SSLContext,
    fast_path: bool,
    target: str,
    tls_end: bool,
) -> None:
    async with start(replace(settings, fast_path=fast_path)) as server:
        await fill(server)
        async with await connected(server, trusted) as wire:
            await wire.send(request("GET", target) * 2)
            if tls_end:
                await wire.close_notify()
            wire.writer.write_eof()
            answer = await wire.read_all()
            assert answer.count(b"HTTP/1.1 200 OK") == 2
            assert len(answer) > 24 * MIB or "big" not in target
        await poll_async(lambda: not len(server.lifecycle.connections), "it is closed")


@PATHS
async def test_idle_client_that_sends_close_notify_is_closed(
    start: Start, settings: WebSettings, trusted: ssl.SSLContext, fast_path: bool
) -> None:
    async with start(replace(settings, fast_path=fast_path)) as server:
        async with await connected(server, trusted) as wire:
            await wire.close_notify()
            assert await wire.read_all() == b""
        await poll_async(lambda: not len(server.lifecycle.connections), "it is closed")


@PATHS
@pytest.mark.parametrize("early", [True, False])
async def test_watch_ends_with_the_close_notify_of_its_client(
    start: Start, settings: WebSettings, trusted: ssl.SSLContext, fast_path: bool, early: bool
) -> None:
    """Not with the next heartbeat: asyncio's clients would keep it open for half a minute."""
    changed = replace(settings, fast_path=fast_path)
    async with start(changed, heartbeat=3600) as server:
        async with await connected(server, trusted) as wire:
            await wire.send(request("GET", "/v1/watch"))
            if not early:
                assert await wire.read()
            await wire.close_notify()
            assert await wire.ended()
        await poll_async(lambda: not len(server.lifecycle.connections), "it is closed")


async def test_answer_to_a_slow_reader_is_counted_and_not_encrypted_ahead(
    start: Start, settings: WebSettings, trusted: ssl.SSLContext
) -> None:
    size = 12 * MIB
    async with start(settings) as server, await connected(server, trusted) as wire:
        (transport,) = server.lifecycle.connections
        assert isinstance(transport, TlsTransport)
        # In TLS 1.3 the client finishes the handshake before the server does.
        await poll_async(lambda: transport._established, "the server has finished, too")
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        transport.write(b"x" * size)
        transport.write(b"y")
        assert transport.get_write_buffer_size() > size // 2
        assert transport._raw.get_write_buffer_size() < 4 * tls_transport._PIECE_BYTES
        transport.close()
        transport.write(b"z")
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await wire.read_all() == b"x" * size + b"y"


@PATHS
@pytest.mark.parametrize("target", ["/v1/values/big", "/get-values"])
async def test_slow_reader_is_cut(
    start: Start,
    settings: WebSettings,
    trusted: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    fast_path: bool,
    target: str,
) -> None:
    changed = replace(settings, fast_path=fast_path, send_timeout=0.5)
    async with start(changed) as server:
        await fill(server)
        async with await connected(server, trusted) as wire:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await wire.send(request("GET", target))
            await poll_async(lambda: not len(server.lifecycle.connections), "it is cut")
    (record,) = [each for each in caplog.records if each.name == "tenantbase.web"]
    assert "has read nothing of its answer for 0.5 s" in record.message


@PATHS
async def test_pipelined_requests_beyond_the_buffers_are_all_answered(
    start: Start, settings: WebSettings, trusted: ssl.SSLContext, fast_path: bool
) -> None:
    """Reading is paused and resumed at both ends."""
    async with start(replace(settings, fast_path=fast_path)) as server:
        await server.cache.write(Set(DEFAULT.key("k"), b'"%b"' % (b"x" * 10_000), JSON))
        async with await connected(server, trusted) as wire:
            sending = asyncio.create_task(wire.send(GET * 3_000 + LAST))
            assert (await wire.read_all()).count(b"HTTP/1.1 200 OK") == 3_001
            await sending


@PATHS
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00", GET[:4]], ids=repr)
async def test_client_without_a_handshake_does_not_keep_its_place(
    start: Start,
    settings: WebSettings,
    trusted: ssl.SSLContext,
    quick_handshake: None,
    fast_path: bool,
    said: bytes,
) -> None:
    changed = replace(settings, fast_path=fast_path, max_connections=2)
    async with start(changed) as server, AsyncExitStack() as stack:
        for _ in range(2):
            wire = await stack.enter_async_context(await Wire.connect(server.port))
            await wire.send(said)
        await poll_async(lambda: len(server.lifecycle.connections) == 2, "both have a place")
        refused = await stack.enter_async_context(await Wire.connect(server.port))
        assert await refused.ended(), "it is closed without plain HTTP"
        await poll_async(lambda: not len(server.lifecycle.connections), "both have lost it")
        async with await connected(server, trusted) as good:
            await good.send(LAST)
            assert b" 200 OK" in await good.read_all()


@PATHS
async def test_plain_http_is_closed_with_one_line_in_the_log(
    start: Start,
    settings: WebSettings,
    caplog: pytest.LogCaptureFixture,
    fast_path: bool,
) -> None:
    caplog.set_level(logging.INFO)
    async with start(replace(settings, fast_path=fast_path)) as server:
        caplog.clear()
        for data in [GET] * 10 + [b"\0" * 100_000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000]:
            async with await Wire.connect(server.port) as wire:
                try:
                    await wire.send(data)
                except ConnectionError:
                    pass
                async with asyncio.timeout(SECONDS):
                    assert len(await wire.reader.read()) < 10, "no more than an alert"
        await poll_async(lambda: not len(server.lifecycle.connections), "they are closed")
        assert not server.lifecycle.begun
    (record,) = [each for each in caplog.records if each.name == "tenantbase.web"]
    assert record.levelno == logging.INFO and "failed: http request" in record.message


@PATHS
async def test_garbage_after_the_handshake_ends_the_connection(
    start: Start,
    settings: WebSettings,
    trusted: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    fast_path: bool,
) -> None:
    async with start(replace(settings, fast_path=fast_path)) as server:
        async with await connected(server, trusted) as wire:
            wire.writer.write(b"\x17\x03\x03\x00\x20" + b"y" * 32)
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                await wire.read_all()
        await poll_async(lambda: not len(server.lifecycle.connections), "it is closed")
    assert [each for each in caplog.records if each.name == "tenantbase.web"] == []


@PATHS
async def test_draining_answers_requests_in_flight(
    start: Start, settings: WebSettings, trusted: ssl.SSLContext, fast_path: bool
) -> None:
    """Even on a connection whose handshake has not begun."""
    async with AsyncExitStack() as stack:
        changed = replace(settings, fast_path=fast_path, drain_delay=2.0)
        async with start(changed) as server:
            await server.cache.write(Set(DEFAULT.key("k"), b"1", JSON))
            idle = await stack.enter_async_context(await connected(server, trusted))
            fresh = await stack.enter_async_context(await TlsWire.connect(server.port, trusted))
            silent = await stack.enter_async_context(await TlsWire.connect(server.port, trusted))
            late = await stack.enter_async_context(await connected(server, trusted))
            await poll_async(lambda: len(server.lifecycle.connections) == 4, "all are there")

            async def ask() -> bytes:
                while not server.lifecycle.draining:
                    await asyncio.sleep(0.005)
                await fresh.shake_hands()
                await fresh.send(GET)
                await late.send(GET)
                return await fresh.read_all() + await late.read_all()

            asking = asyncio.create_task(ask())
        answer = await asking
        assert answer.count(b" 200 OK") == answer.count(b"Connection: close") == 2
        assert await idle.read_all() == b""
        with pytest.raises((EOFError, ConnectionResetError)):
            await silent.shake_hands()


async def test_clients_need_a_certificate_of_the_authority(
    start: Start, authority: Authority, tmp_path: object
) -> None:
    pair = authority.issue()
    context = TlsContext(load(pair.certificate, pair.key, authority.certificate))
    other = Authority(authority.certificate.parent / "other", "another authority")
    async with start(web_settings(tls=context)) as server:
        for client, reason in (
            (authority.issue("client"), None),
            (None, "CERTIFICATE_REQUIRED"),
            (other.issue("client"), "UNKNOWN_CA|DECRYPT_ERROR"),
        ):
            async with await TlsWire.connect(server.port, authority.trusted(client)) as wire:
                await wire.shake_hands()  # with TLS 1.3, the client learns of it only later
                await wire.send(LAST)
                if reason is None:
                    assert b" 200 OK" in await wire.read_all()
                    continue
                with pytest.raises(ssl.SSLError, match=reason):
                    await wire.read_all()
        assert server.lifecycle.begun == 1


async def test_renewed_certificate_is_for_new_connections(
    start: Start, authority: Authority
) -> None:
    first, second = authority.issue(), authority.issue()
    context = TlsContext(load(first.certificate, first.key, None))
    trusted = authority.trusted()

    def serial(wire: TlsWire) -> object:
        certificate = wire.tls.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]

    async with start(web_settings(tls=context)) as server:
        async with await connected(server, trusted) as old:
            context.current = load(second.certificate, second.key, None)
            async with await connected(server, trusted) as new:
                for wire, pair in ((old, first), (new, second)):
                    assert serial(wire) == pair.serial
                    await wire.send(LAST)
                    assert b" 200 OK" in await wire.read_all()
