"""A real nginx between clients and a server, with a common or the recommended configuration."""

from __future__ import annotations

import os
from pathlib import Path

from tests import wire
from tests.program import Program
from tests.servers import free_port

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
# A proxy_pass with a path, even just "/", makes nginx decode the path, merge its slashes, resolve
# its dots, and encode it again.
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


class Nginx(Program):
    """nginx in front of a server.

    Args:
        directory: for its files; it exists.
        upstream: the port of the server on 127.0.0.1.
        site: the contents of the http block, for a server on 127.0.0.1:8000, perhaps another on port
            8001, and clients on port 80.
        second: the port of that other server; None: there is none.

    Attributes:
        port: its listening port.
        url: the URL of the server itself.
        prefix_url: the URL of the server below a path prefix that nginx removes.
    """

    def __init__(
        self, directory: Path, upstream: int, site: str = CARELESS, second: int | None = None
    ) -> None:
        config, errors = directory / "nginx.conf", directory / "error.log"
        super().__init__(["nginx", "-p", directory, "-c", config, "-e", errors], directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.prefix_url = f"{self.url}/kv"
        user = "user root;" if os.geteuid() == 0 else ""
        if second is None:
            site = "".join(line for line in site.splitlines(True) if "127.0.0.1:8001" not in line)
        for written, real in (
            ("server 127.0.0.1:8000", f"server 127.0.0.1:{upstream}"),
            *([] if second is None else [("127.0.0.1:8001", f"127.0.0.1:{second}")]),
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
        ):
            assert site.count(written) == 1, written
            site = site.replace(written, real)
        config.write_text(_CONFIG.format(directory=directory, site=site, user=user))

    def ready(self) -> bool:
        return wire.ask(self.port, "GET", "/livez").status == 200
