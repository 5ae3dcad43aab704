"""A real nginx between clients and a server, configured as people do."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from pathlib import Path

from tests.servers import READY_SECONDS, free_port, poll

# A proxy_pass with a path, if only "/", makes nginx decode the path, merge its slashes, resolve its
# dots, and encode it anew.
_CONFIG = """
daemon off;
{user}
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream up {{ server 127.0.0.1:{upstream}; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 64m;
        proxy_set_header Host $http_host;
        proxy_http_version 1.1;
        proxy_buffering off;
        location /kv/ {{ proxy_pass http://up/; }}
        location / {{ proxy_pass http://up; }}
    }}
}}
"""


class Nginx:
    """nginx in front of a server; as a context manager, started, and gone at the end.

    Args:
        directory: for its files; exists.
        upstream: the port of the server on 127.0.0.1.

    Attributes:
        url: under which the server is as it is.
        prefix_url: under which the server is below a path that nginx takes away.
    """

    def __init__(self, directory: Path, upstream: int) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.prefix_url = f"{self.url}/kv"
        self._config = directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        self._config.write_text(
            _CONFIG.format(directory=directory, upstream=upstream, port=self._port, user=user)
        )

    def __enter__(self) -> Nginx:
        # Debian puts it where only root's PATH looks.
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "these tests need the program nginx"
        errors = self._config.with_name("error.log")
        self._process = subprocess.Popen(
            [program, "-p", self._config.parent, "-c", self._config, "-e", errors],
            stdin=subprocess.DEVNULL,
        )
        try:
            poll(self._answers, "nginx answers", 2 * READY_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(READY_SECONDS)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "nginx has ended"
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=READY_SECONDS)
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
