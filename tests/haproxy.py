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
        second: the port of another one; None: there is none.
        often: check the servers more often than every second.

    Attributes:
        port: its listening port.
    """

    def __init__(
        self, directory: Path, upstream: int, second: int | None = None, *, often: bool = True
    ) -> None:
        super().__init__(
            ["haproxy", "-db", "-q", "-f", "global.cfg", "-f", "tenantbase.cfg"], directory
        )
        self.port = free_port()
        text = DEPLOYED.read_text()
        for written, real in (
            ("bind :80\n", f"bind 127.0.0.1:{self.port}\n"),
            ("    server two 127.0.0.1:8001\n", f"    server two 127.0.0.1:{second}\n"),
            (" 127.0.0.1:8000\n", f" 127.0.0.1:{upstream}\n"),
            ("check inter 1s ", "check inter 50ms " if often else "check inter 1s "),
            ("timeout check 2s\n", "timeout check 10s\n"),  # enough for a busy machine
        ):
            assert written in text, written
            text = text.replace(written, "" if "None" in real else real)
        (directory / "global.cfg").write_text(f"global\n    stats socket unix@{_STATS}\n")
        (directory / "tenantbase.cfg").write_text(text)

    def checks(self, server: str = "one") -> dict[str, tuple[str, str]]:
        """The last health check of a server in each backend: its result and status."""
        return {
            # An asterisk precedes the last status while the next check runs.
            row["# pxname"]: (row["check_status"].removeprefix("* "), row["check_code"])
            for row in self._rows()
            if row["svname"] == server
        }

    def up(self) -> set[str]:
        """The servers that it sends requests to."""
        return {
            row["svname"]
            for row in self._rows()
            if row["# pxname"] == "tenantbase" and row["status"].startswith("UP")
        } - {"BACKEND"}

    def _rows(self) -> list[dict[str, str]]:
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
        return rows

    def ready(self) -> bool:
        return all(status.startswith("L7") for status, _ in self.checks().values())
