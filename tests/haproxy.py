"""A real HAProxy between clients and a server, configured as the project says."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.servers import READY_SECONDS, free_port, poll

ROOT = Path(__file__).parent.parent
DEPLOYED = ROOT / "deploy" / "haproxy" / "tenantbase.cfg"
_STATS = "stats"  # a socket's path must be short, so it is relative


class HAProxy:
    """HAProxy in front of a server; as a context manager, started, and gone at the end.

    Args:
        directory: for its files; exists.
        upstream: the port of the server on 127.0.0.1.

    Attributes:
        port: that it listens on.
    """

    def __init__(self, directory: Path, upstream: int) -> None:
        self.port = free_port()
        self._directory = directory
        text = DEPLOYED.read_text()
        assert "bind :80\n" in text and "127.0.0.1:8000 " in text
        text = text.replace("bind :80\n", f"bind 127.0.0.1:{self.port}\n")
        text = text.replace("127.0.0.1:8000 ", f"127.0.0.1:{upstream} ").replace("2s\n", "50ms\n")
        (directory / "global.cfg").write_text(f"global\n    stats socket unix@{_STATS}\n")
        (directory / "tenantbase.cfg").write_text(text)

    def __enter__(self) -> HAProxy:
        # Debian puts it where only root's PATH looks.
        program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "these tests need the program haproxy"
        self._process = subprocess.Popen(
            [program, "-db", "-q", "-f", "global.cfg", "-f", "tenantbase.cfg"],
            stdin=subprocess.DEVNULL,
            cwd=self._directory,
        )
        try:
            poll(self._answers, "haproxy answers", 2 * READY_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(READY_SECONDS)

    def checks(self) -> dict[str, tuple[str, str]]:
        """The last health check of each backend: what came of it, and the status."""
        # Its path is relative to where the process runs, and may be too long for an address.
        directory = os.open(self._directory, os.O_RDONLY)
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
            # An asterisk is before the last status while the next check runs.
            row["# pxname"]: (row["check_status"].removeprefix("* "), row["check_code"])
            for row in rows
            if row["svname"] == "one"
        }

    def _answers(self) -> bool:
        assert self._process.poll() is None, "haproxy has ended"
        try:
            return all(status.startswith("L7") for status, _ in self.checks().values())
        except OSError:
            return False
