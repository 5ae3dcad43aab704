"""As many connections as there are descriptors for, and none of those that the database needs."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from tests.app_server import AppServer
from tests.process.test_limits import exchange
from tests.wire import receive

LIMIT = 128


class LimitedServer(AppServer):
    """A server that may have few files open, by its hard limit."""

    def spawn(self) -> None:
        assert self._process is None, "the server runs already"
        command = ["sh", "-c", f'ulimit -n {LIMIT} && exec "$0" "$@"', sys.executable, "-W"]
        command += ["error", *self.program, "serve", "--database", str(self.database)]
        command += ["--port", str(self.port), *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._stderr, env=self._environment
        )


def test_connections_leave_descriptors_to_the_database(tmp_path: Path) -> None:
    options = ("--memcached", "off")
    with LimitedServer(tmp_path / "x.db", *options) as server, ExitStack() as stack:

        def connect() -> socket.socket:
            address = ("127.0.0.1", server.port)
            return stack.enter_context(closing(socket.create_connection(address, timeout=20)))

        served = [connect() for _ in range(LIMIT // 2)]
        body = b'{"key": "k", "value": 1}'
        served[0].sendall(
            b"POST /set-value HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        assert receive(served[0]).status == 200
        for each in served:
            assert exchange(each).status == 200
        for _ in range(LIMIT):
            with connect() as refused:
                answer = receive(refused)
            assert answer.status == 503 and answer.json["limit"] == "max-connections"
        assert exchange(served[-1]).status == 200
        assert f"{LIMIT // 2} connections are open" in server.stderr
        assert len(server.stderr.splitlines()) == 1, "once, and no trouble with descriptors"
