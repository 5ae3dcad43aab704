"""A real HAProxy between clients and a server, with the project's configuration."""

from __future__ import annotations

import csv
import os
import socket
from pathlib import Path

from tests.program import Program
from tests.servers import READY_SECONDS, free_port

ROOT = Path(__file__).parent.parent
DEPLOYED = ROOT / "deploy" / "haproxy" / "tenantbase.cfg"
_STATS = "stats"  # relative, because a socket's path must be short


class HAProxy(Program):
    """HAProxy in front of a server.

    Args:
        directory: for its files; it exists.
        upstream: the port of the server on 127.0.0.1.

    Attributes:
        port: its listening port.
    """

    def __init__(self, directory: Path, upstream: int) -> None:
        super().__init__(
            ["haproxy", "-db", "-q", "-f", "global.cfg", "-f", "tenantbase.cfg"], directory
        )
        self.port = free_port()
        text = DEPLOYED.read_text()
        assert "bind :80\n" in text and "127.0.0.1:8000 " in text
        text = text.replace("bind :80\n", f"bind 127.0.0.1:{self.port}\n")
        text = text.replace("127.0.0.1:8000 ", f"127.0.0.1:{upstream} ")
        # Checks are frequent, but have timeouts long enough for a busy machine.
        text = text.replace("check inter 2s\n", "check inter 50ms\n")
        text = text.replace("defaults\n", "defaults\n    timeout check 10s\n")
        (directory / "global.cfg").write_text(f"global\n    stats socket unix@{_STATS}\n")
        (directory / "tenantbase.cfg").write_text(text)

    def checks(self) -> dict[str, tuple[str, str]]:
        """The last health check of each backend: its result and status."""
        # The path is relative to the process's directory, and may be too long for an address.
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(READY_SECONDS)
                connection.connect(f"/proc/self/fd/{directory}/{_STATS}")
                connection.sendall(b"show stat\n")
                with connection.makefile() as stream:
                    rows = list(csv.DictReader(stream))
        finally:
            os.close(directory)
        return {
            # An asterisk precedes the last status while the next check runs.
            row["# pxname"]: (row["check_status"].removeprefix("* "), row["check_code"])
            for row in rows
            if row["svname"] == "one"
        }

    def ready(self) -> bool:
        return all(status.startswith("L7") for status, _ in self.checks().values())
