"""How long a cluster's clients wait when the primary dies and its standby is promoted.

    scripts/bench --failover [--rounds N]

A primary, a synchronous standby, a spare server and a node, on one machine. One client writes and one
reads, each every hundredth of a second. In each round the primary is killed, the standby is promoted at
once, and the spare server becomes the standby of the new primary. Until it follows, nothing can be
acknowledged. What a manager such as Patroni needs to notice the loss comes on top of that
(``docs/cluster.md``).
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from tests.cluster.node import Node
from tests.cluster.promoter import Promoter

_PAUSE_SECONDS: Final = 0.01
_QUIET_SECONDS: Final = 3.0  # before and after each failover
_TIMEOUT_SECONDS: Final = 30.0
_KEYS: Final = 50


@dataclass
class Client:
    """Sends requests of one kind until it is told to stop.

    Attributes:
        answered: when each request was answered with success, by ``time.monotonic``.
        failed: how many were answered otherwise.
    """

    port: int
    request: Callable[[http.client.HTTPConnection, int], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    answered: list[float] = field(default_factory=list)
    failed: int = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_SECONDS)
        number = 0
        while not self.stopped.wait(_PAUSE_SECONDS):
            number += 1
            self.request(connection, number)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                self.answered.append(time.monotonic())
            else:
                self.failed += 1

    def longest_gap(self, since: float) -> tuple[float, float]:
        """The longest time without an answered request, since a moment: its length, and its end."""
        times = [since, *(moment for moment in self.answered if moment > since)]
        pairs = zip(times, times[1:], strict=False)
        return max((end - begin, end) for begin, end in pairs)


def _write(connection: http.client.HTTPConnection, number: int) -> None:
    body = json.dumps({"key": f"k{number % _KEYS}", "value": number})
    connection.request("POST", "/set-value", body)


def _read(connection: http.client.HTTPConnection, number: int) -> None:
    connection.request("GET", f"/get-value?key=k{number % _KEYS}")


def _fail_over(promoter: Promoter, clients: dict[str, Client], number: int) -> Sequence[str]:
    """Kill the primary and promote. Returns: a row for each client."""
    failed = {name: client.failed for name, client in clients.items()}
    time.sleep(_QUIET_SECONDS)
    killed = time.monotonic()
    promoter.primary.kill()
    promoter.fail_over()
    follows = time.monotonic() - killed
    time.sleep(_QUIET_SECONDS)
    rows = []
    for name, client in clients.items():
        gap, end = client.longest_gap(killed)
        more = end - killed - follows
        failures = client.failed - failed[name]
        rows.append(f"| {number} | {name} | {gap:.2f} | {follows:.2f} | {more:.2f} | {failures} |")
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench --failover", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    options = parser.parse_args()
    print("| round | request | gap s | until the new standby follows s | after that s | failed |")
    print("|---|---|---|---|---|---|")
    with ExitStack() as stack:
        promoter = stack.enter_context(Promoter())
        hosts = ",".join(server.host for server in promoter.servers)
        node = stack.enter_context(Node(f"postgresql://tenantbase@{hosts}/tenantbase"))
        for number in range(_KEYS):  # so that each read finds something
            connection = http.client.HTTPConnection("127.0.0.1", node.port)
            _write(connection, number)
            connection.getresponse().read()
            connection.close()
        clients = {"set": Client(node.port, _write), "get": Client(node.port, _read)}
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients.values()]
        for thread in threads:
            thread.start()
        for number in range(1, options.rounds + 1):
            print("\n".join(_fail_over(promoter, clients, number)), flush=True)
        for client in clients.values():
            client.stopped.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
