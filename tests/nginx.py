"""A real nginx between clients and a server: configured as people do, or as they should."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from pathlib import Path

from tests.servers import READY_SECONDS, free_port, poll

ROOT = Path(__file__).parent.parent
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
    {site}
}}
"""
# A proxy_pass with a path, if only "/", makes nginx decode the path, merge its slashes, resolve its
# dots, and encode it anew.
CARELESS = """
    upstream up { server 127.0.0.1:8000; }
    server {
        listen 80;
        client_max_body_size 64m;
        proxy_set_header Host $http_host;
        proxy_http_version 1.1;
        proxy_buffering off;
        location /kv/ { proxy_pass http://up/; }
        location / { proxy_pass http://up; }
    }
"""
DEPLOYED = (ROOT / "deploy" / "nginx" / "tenantbase.conf").read_text()


class Nginx:
    """nginx in front of a server; as a context manager, started, and gone at the end.

    Args:
        directory: for its files; exists.
        upstream: the port of the server on 127.0.0.1.
        site: what is in the http block, for a server on 127.0.0.1:8000 and clients on port 80.

    Attributes:
        url: under which the server is as it is.
        prefix_url: under which the server is below a path that nginx takes away.
    """

    def __init__(self, directory: Path, upstream: int, site: str = CARELESS) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.prefix_url = f"{self.url}/kv"
        self._config = directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        for written, real in (
            ("127.0.0.1:8000;", f"127.0.0.1:{upstream};"),
            ("listen 80;", f"listen 127.0.0.1:{self._port};"),
        ):
            assert site.count(written) == 1, written
            site = site.replace(written, real)
        self._config.write_text(_CONFIG.format(directory=directory, site=site, user=user))

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
