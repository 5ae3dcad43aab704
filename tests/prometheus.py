"""A real Prometheus that scrapes a server, with the project's configuration and alert rules."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.program import Program
from tests.servers import READY_SECONDS, free_port

ROOT = Path(__file__).parent.parent
DEPLOYED = ROOT / "deploy" / "prometheus"


class Prometheus(Program):
    """Prometheus, which scrapes a server several times a second.

    Args:
        directory: for its files; it exists.
        upstream: the port of the server on 127.0.0.1.
        token: for the scraper; it is written to a file, as the configuration has it.
        node: the port of another server, on a shared database without tokens.
    """

    def __init__(self, directory: Path, upstream: int, token: str, node: int) -> None:
        self.port = free_port()
        super().__init__(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--storage.tsdb.path=data",
                "--log.level=error",
            ],
            directory,
        )
        text = (DEPLOYED / "prometheus.yml").read_text()
        for old, new in (
            ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
            ("15s", "200ms"),
            ("    # authorization:\n    #   credentials", "    authorization:\n      credentials"),
        ):
            assert old in text
            text = text.replace(old, new)
        text += f"  - job_name: node\n    static_configs:\n      - targets: ['127.0.0.1:{node}']\n"
        (directory / "prometheus.yml").write_text(text)
        (directory / "tenantbase-token").write_text(token)
        shutil.copy(DEPLOYED / "tenantbase-alerts.yml", directory)

    def api(self, target: str, **query: str) -> Any:
        """The data that its HTTP API answers with."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{target}?{urlencode(query)}"
        with urlopen(url, timeout=READY_SECONDS) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> Sequence[Any]:
        """The samples that a query finds now."""
        result: Sequence[Any] = self.api("query", query=expression)["result"]
        return result

    def ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 1):
            # Rates need several scrapes.
            return len(self.query("count_over_time(tenantbase_workers[1m]) > 4")) == 2
