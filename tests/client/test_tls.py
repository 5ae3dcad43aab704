"""The Python client and the command line over HTTPS: which servers they trust, and how they fail."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest

from tenantbase.client import Changed, Client, ClientError, ConnectionFailed, NotTrusted
from tests.app_server import AppServer, clean_environment
from tests.certificates import Authority
from tests.command import command, refused


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "another authority")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[AppServer]:
    database = tmp_path_factory.mktemp("server") / "x.db"
    with AppServer(database, *authority.issue().options) as server:
        yield server


@pytest.fixture(scope="module")
def url(server: AppServer) -> str:
    return f"https://localhost:{server.port}"


async def test_client_with_a_context(url: str, authority: Authority) -> None:
    async with Client(url, ssl=authority.trusted()) as client:
        before = await client.set("before", 0)
        await client.set("k", {"a": 1})
        await client.put_raw("raw", b"x" * 300_000)
        async with aclosing(client.watch(after=before.version)) as events:
            found = []
            async for event in events:
                if isinstance(event, Changed):
                    found.append(event.key)
                if len(found) == 2:
                    break
            assert found == ["k", "raw"]
        entry = await client.get("k")
        assert entry is not None and entry.value == {"a": 1}
        blob = await client.get_raw("raw")
        assert blob is not None and blob.content == b"x" * 300_000


async def test_server_of_an_unknown_authority_is_not_trusted(
    server: AppServer, url: str, stranger: Authority
) -> None:
    """The call fails without a retry, which would get the same certificate."""
    for context in (None, stranger.trusted()):
        async with Client(url, ssl=context, timeout=3600, attempts=1000) as client:
            for step in (client.get("k"), client.set("k", 2), anext(client.watch())):
                with pytest.raises(NotTrusted) as caught:
                    await step
                text = str(caught.value)
                assert text.startswith(f"the certificate of {url} cannot be verified: ")
                assert text.endswith("unable to get local issuer certificate")
                assert isinstance(caught.value, ConnectionFailed)


def test_a_session_has_its_own_context(authority: Authority) -> None:
    session = object.__new__(aiohttp.ClientSession)
    session._connector = None  # an attribute that its destructor reads
    with pytest.raises(ValueError, match="a session has its own ssl"):
        Client("https://localhost", session=session, ssl=authority.trusted())


async def test_plain_http_from_an_https_url_is_an_error_in_words(
    tmp_path: Path, authority: Authority
) -> None:
    with AppServer(tmp_path / "x.db") as plain:
        url = f"https://localhost:{plain.port}"
        async with Client(url, ssl=authority.trusted(), attempts=2) as client:
            with pytest.raises(ConnectionFailed, match=f"{url} does not answer: "):
                await client.get("k")


async def test_https_from_an_http_url_is_an_error_in_words(server: AppServer) -> None:
    url = f"http://localhost:{server.port}"
    async with Client(url, attempts=2) as client:
        with pytest.raises(ClientError, match=f"{url} does not answer: "):
            await client.get("k")


def test_command_line_with_an_authority(url: str, authority: Authority) -> None:
    trusting = ("--url", url, "--tls-ca", str(authority.certificate))
    assert command("set", "from", '"here"', *trusting).returncode == 0
    assert command("get", "from", *trusting).stdout == b'"here"\n'
    for variable in ("TENANTBASE_TLS_CA", "SSL_CERT_FILE"):
        environment = clean_environment(
            **{"TENANTBASE_URL": url, variable: str(authority.certificate)}
        )
        assert command("get", "from", env=environment).stdout == b'"here"\n', variable


@pytest.mark.parametrize("arguments", [("get", "k"), ("set", "k", "1"), ("list",), ("delete", "k")])
def test_command_line_without_it_says_so_in_one_line(
    url: str, stranger: Authority, arguments: tuple[str, ...]
) -> None:
    for options in ((), ("--tls-ca", str(stranger.certificate))):
        done = command(*arguments, "--url", url, *options)
        assert refused(done, f"the certificate of {url} cannot be verified: ")


@pytest.mark.parametrize(
    "content, part", [(None, "cannot be read: No such file"), ("x", "holds no certificate in PEM")]
)
def test_unusable_authority_is_named(
    url: str, tmp_path: Path, content: str | None, part: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    done = command("get", "k", "--url", url, "--tls-ca", str(file))
    assert refused(done, f"--tls-ca: {file} ", part, status=2)


def test_authority_without_a_url_is_refused(tmp_path: Path, authority: Authority) -> None:
    done = command("get", "k", "--tls-ca", str(authority.certificate), cwd=tmp_path)
    assert refused(done, "--tls-ca: needs --url as well", status=2)


def test_certificate_for_another_host(tmp_path: Path, authority: Authority) -> None:
    """The certificate is from the right authority, but not for the host name in the URL."""
    pair = authority.issue("other.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted:
                try:
                    context.wrap_socket(accepted, server_side=True).close()
                except OSError:
                    pass  # the client has disconnected

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        done = command("get", "k", "--url", url, "--tls-ca", str(authority.certificate))
        thread.join(20)
    assert refused(
        done, f"the certificate of {url} cannot be verified: ", "not valid for 'localhost'"
    )
