"""The proxies' configurations in deploy/, run as they are by a real nginx and a real HAProxy."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from urllib.parse import quote, urljoin

import msgspec
import pytest

from tests import wire
from tests.app_server import AppServer
from tests.haproxy import HAProxy
from tests.nginx import DEPLOYED, Nginx
from tests.servers import READY_SECONDS, poll
from tests.wire import Answer

pytestmark = pytest.mark.integration

# Keys that change if a proxy treats paths like file names.
KEYS = ["a//b", "/a", "a/", "a/./b", "a/../b", "..", "%2F", "a%2Fb", "a b", "é", "a?b#c", "a;b=c"]


@dataclass(frozen=True)
class Entrance:
    """How to reach a service: a port of 127.0.0.1, and the prefix of every path."""

    port: int
    below: str

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request, with the path unchanged."""
        return wire.ask(self.port, method, self.below + path, body, headers)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    database = tmp_path_factory.mktemp("server") / "x.db"
    with AppServer(database, "--memcached", "off", "--allowed-host", "kv.example.org") as server:
        yield server


@pytest.fixture(scope="module")
def nginx(server: AppServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Nginx(tmp_path_factory.mktemp("nginx"), server.port, DEPLOYED) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def haproxy(server: AppServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HAProxy]:
    with HAProxy(tmp_path_factory.mktemp("haproxy"), server.port) as haproxy:
        yield haproxy


@pytest.fixture(params=["nginx", "nginx below", "haproxy", "haproxy below"])
def entrance(request: pytest.FixtureRequest, nginx: Nginx, haproxy: HAProxy) -> Entrance:
    name, _, below = request.param.partition(" ")
    port = nginx.port if name == "nginx" else haproxy.port
    return Entrance(port, "/kv" if below else "")


def without(*lines: str) -> str:
    """nginx's configuration without these lines."""
    text = DEPLOYED
    for line in lines:
        assert line in text
        text = text.replace(line, "")
    return text


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_its_own(server: AppServer, entrance: Entrance, key: str) -> None:
    path = "/v1/values/" + quote(key, safe="/.")
    server.ask("DELETE", "/delete-value?key=" + quote(key, safe=""))
    stored = entrance.ask("PUT", path, b"x", {"Content-Type": "text/plain"})
    assert stored.status == 201 and stored.json["key"] == key
    location = urljoin(f"http://127.0.0.1{entrance.below}{path}", stored.headers["Location"])
    whole = Entrance(entrance.port, "")
    assert whole.ask("GET", location.removeprefix("http://127.0.0.1")).body == b"x"
    assert entrance.ask("GET", path).body == b"x"
    assert server.ask("GET", "/get-value?key=" + quote(key, safe="")).status == 200
    tag = stored.headers["ETag"]
    assert tag.startswith('"')
    assert entrance.ask("GET", path, headers={"If-None-Match": tag}).status == 304
    assert entrance.ask("PUT", path, b"y", {"If-Match": '"0"'}).status == 412
    assert entrance.ask("PUT", path, b"y", {"If-Match": tag}).status == 200
    assert entrance.ask("DELETE", path).status == 204


def test_a_large_body_and_a_large_list(entrance: Entrance) -> None:
    values = [{"key": f"large/{number}", "value": "x" * 300_000} for number in range(20)]
    stored = entrance.ask("POST", "/set-values", msgspec.json.encode({"values": values}))
    assert stored.status == 200
    assert len(entrance.ask("GET", "/get-values?prefix=large/").json["values"]) == 20


@pytest.mark.parametrize("accepts", ["identity", "gzip"])
def test_events_arrive_while_the_stream_is_open(
    server: AppServer, entrance: Entrance, accepts: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", entrance.port, timeout=READY_SECONDS)
    with closing(connection):
        connection.request(
            "GET", f"{entrance.below}/v1/watch?prefix=w/", headers={"Accept-Encoding": accepts}
        )
        stream = connection.getresponse()
        assert stream.readline() == b": watching\n"  # from here on, nothing is missed
        for number in range(3):
            server.ask("PUT", f"/v1/values/w/{number}", b"x")
            while not (line := stream.readline()).startswith(b"data:"):
                assert line, "the stream has ended"
            assert msgspec.json.decode(line[5:])["key"] == f"w/{number}"


def test_a_page_of_the_service_itself_may_write(entrance: Entrance) -> None:
    """Host arrives as it was sent, port included; otherwise the origin would not match."""
    for host in (f"127.0.0.1:{entrance.port}", "kv.example.org", "kv.example.org:8443"):
        headers = {"Host": host, "Origin": f"https://{host}"}
        assert entrance.ask("PUT", "/v1/values/page", b"x", headers).status in (200, 201)


def test_a_foreign_host_or_origin_gets_an_explanation(entrance: Entrance) -> None:
    answer = entrance.ask("GET", "/livez", headers={"Host": "www.example.org"})
    assert answer.status == 421
    assert "'www.example.org'" in answer.json["detail"]
    assert "--allowed-host" in answer.json["detail"]
    answer = entrance.ask("PUT", "/v1/values/page", b"x", {"Origin": "https://app.example.org"})
    assert answer.status == 403
    assert "'https://app.example.org'" in answer.json["detail"]
    assert "--cors-origin" in answer.json["detail"]


def test_health_checks_of_haproxy(tmp_path: Path) -> None:
    """Health checks of both kinds find the server healthy, and notice when it drains."""
    with AppServer(
        tmp_path / "x.db", "--memcached", "off", "--drain-delay", "3600", "--drain-timeout", "1"
    ) as server:
        with HAProxy(tmp_path, server.port) as haproxy:
            healthy = {
                "tenantbase": ("L7OK", "200"),
                "tenantbase-below-kv": ("L7OK", "204"),
                "tenantbase-alive": ("L7OK", "200"),
            }
            poll(lambda: haproxy.checks() == healthy, "haproxy finds the server healthy")
            server.signal()
            poll(
                lambda: [code for _, code in haproxy.checks().values()] == ["503", "503", "200"],
                "haproxy knows that the server drains",
                READY_SECONDS,
            )


def test_careless_paths_change_keys(tmp_path: Path, server: AppServer) -> None:
    """Shows why the example under a path prefix does not end in `proxy_pass http://tenantbase/`."""
    with Nginx(tmp_path, server.port) as nginx:
        stored = Entrance(nginx.port, "/kv").ask("PUT", "/v1/values/a//b", b"x")
    assert stored.json["key"] == "a/b"


def test_without_its_line_large_bodies_are_refused(tmp_path: Path, server: AppServer) -> None:
    with Nginx(tmp_path, server.port, without("client_max_body_size 8m;")) as nginx:
        answer = Entrance(nginx.port, "").ask("PUT", "/v1/values/l", b"x" * (2 << 20))
    assert answer.status == 413 and answer.headers["Content-Type"] == "text/html"


def test_the_port_belongs_to_the_host(tmp_path: Path, server: AppServer) -> None:
    site = DEPLOYED.replace("Host $http_host", "Host $host")
    with Nginx(tmp_path, server.port, site) as nginx:
        entrance = Entrance(nginx.port, "")
        answer = entrance.ask("PUT", "/v1/values/page", b"x", {"Origin": nginx.url})
    assert answer.status == 403


def test_without_its_line_compression_makes_tags_weak(tmp_path: Path, server: AppServer) -> None:
    site = DEPLOYED.replace("gzip off;", "gzip on; gzip_types application/json;")
    server.ask("POST", "/set-value", msgspec.json.encode({"key": "zip", "value": "x" * 1000}))
    path = "/get-value?key=zip"
    with Nginx(tmp_path, server.port, site) as nginx:
        tag = Entrance(nginx.port, "").ask("GET", path, headers={"Accept-Encoding": "gzip"})
    assert tag.headers["ETag"].startswith("W/")
    answer = server.ask("DELETE", "/delete-value?key=zip", None, {"If-Match": tag.headers["ETag"]})
    assert answer.status == 412 and "Proxies that compress" in answer.json["detail"]


@contextmanager
def recorded(heads: list[bytes]) -> Iterator[int]:
    """A server that breaks the connection at a write, and answers any other request. Yields: its
    port. It adds the heads of the writes to the list.
    """

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                while head := b"".join(iter(stream.readline, b"\r\n")):
                    if not head.startswith(b"GET"):
                        heads.append(head)
                        break
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(READY_SECONDS)


@pytest.mark.parametrize("below", ["", "/kv"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_nginx_sends_a_write_once(tmp_path: Path, method: str, below: str) -> None:
    """Even if a kept-alive connection breaks, because the write may have taken effect."""
    heads: list[bytes] = []
    with recorded(heads) as port, Nginx(tmp_path, port, DEPLOYED, second=port) as nginx:
        answer = Entrance(nginx.port, below).ask(method, "/v1/values/a%2Fb?ttl=1", b"")
    assert answer.status == 502
    (head,) = heads
    assert head.startswith(f"{method} /v1/values/a%2Fb?ttl=1 ".encode())


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_without_its_line_nginx_sends_a_write_twice(tmp_path: Path, method: str) -> None:
    heads: list[bytes] = []
    site = without("proxy_next_upstream off;")
    with recorded(heads) as port, Nginx(tmp_path, port, site, second=port) as nginx:
        answer = Entrance(nginx.port, "").ask(method, "/v1/values/k", b"")
    assert answer.status == 502 and len(heads) == 2


def test_requests_as_nginx_forwards_them(tmp_path: Path) -> None:
    heads: list[bytes] = []
    with recorded(heads) as port, Nginx(tmp_path, port, DEPLOYED) as nginx:
        Entrance(nginx.port, "/kv").ask("PUT", "/v1/values/k?ttl=1", b"")
    line, *fields = heads[0].decode().split("\r\n")
    assert line == "PUT /v1/values/k?ttl=1 HTTP/1.1"
    host = nginx.url.removeprefix("http://")
    assert f"Host: {host}" in fields and f"X-Forwarded-Host: {host}" in fields
    assert "X-Forwarded-For: 127.0.0.1" in fields and "X-Forwarded-Proto: http" in fields
    assert not any(field.startswith("Connection:") for field in fields)


def test_nginx_chooses_a_location_by_the_path_as_it_came(nginx: Nginx) -> None:
    answer = Entrance(nginx.port, "").ask("GET", "//kv/livez")
    assert answer.status == 404 and answer.json["type"].endswith("no-such-route")


def test_events_arrive_although_nginx_is_told_to_buffer(tmp_path: Path, server: AppServer) -> None:
    # Without chunks, nginx keeps the answer until a buffer is full.
    site = DEPLOYED.replace("proxy_http_version 1.1;", "proxy_ignore_headers X-Accel-Buffering;")
    with Nginx(tmp_path, server.port, site) as nginx:
        for below in ("", "/kv"):
            entrance = Entrance(nginx.port, below)
            test_events_arrive_while_the_stream_is_open(server, entrance, "identity")
