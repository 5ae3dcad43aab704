"""A cluster that runs until standard input ends; ``__main__.py`` starts it.

python -m tests.cluster.run PLAN
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec

from tests.cluster.engine import Member, patroni, plain
from tests.cluster.node import Node
from tests.haproxy import HAProxy
from tests.postgres import make_directory
from tests.servers import MemcachedProcess, free_port

_MEMCACHEDS: Final = 3
_LOOK_SECONDS: Final = 0.2


class Plan(msgspec.Struct, frozen=True):
    """What to start.

    Attributes:
        directory: for the files of all servers.
        patroni: PostgreSQL runs under Patroni.
        nodes: their number, from 0 to 2.
        options: of ``tenantbase serve`` for the nodes.
    """

    directory: str
    patroni: bool
    nodes: int
    options: list[str]


def start(plan: Plan, stack: ExitStack) -> Iterator[Member]:
    """Start the servers, which end with the stack. Yields: each one that is ready."""
    base = Path(plan.directory)
    base.chmod(0o711)  # every server's user reaches its own directory
    start_engine = patroni if plan.patroni else plain
    engine = []
    for member in start_engine(base, stack):
        engine.append(member.address)
        yield member
    ring = []
    for number in range(_MEMCACHEDS):
        memcached = stack.enter_context(MemcachedProcess(f"127.0.0.1:{free_port()}"))
        ring.append(memcached.address)
        yield Member(f"memcached {number + 1}", memcached.address, memcached.pid)
    database = f"postgresql://tenantbase@{','.join(engine)}/tenantbase"
    ports = []
    for number in range(plan.nodes):
        node = Node(database, "--memcached", ",".join(ring), *plan.options)
        stack.enter_context(node)
        ports.append(node.port)
        yield Member(f"node {number + 1}", node.base_url, node.pid)
    if ports:
        proxy = stack.enter_context(HAProxy(make_directory(base), *ports))
        yield Member("HAProxy", f"http://127.0.0.1:{proxy.port}", proxy.pid)


def _watch(members: Sequence[Member]) -> None:
    """Report each member that ends, until the process is interrupted."""
    running = set(members)
    while True:
        for member in sorted(running):
            if _has_ended(member.pid):
                running.remove(member)
                print(f"{member.name}: process {member.pid} has ended", flush=True)
        time.sleep(_LOOK_SECONDS)


def _has_ended(child: int) -> bool:
    """Whether a child has ended. Its status remains to be read."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _interrupt_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin, whose lock would block the exit
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    # In a shell's background, interrupts are ignored, and Python leaves that so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        members = []
        for member in start(plan, stack):
            members.append(member)
            print(f"{member.name:12} {member.address:32} process {member.pid}", flush=True)
        print("Ctrl-C ends the cluster.", flush=True)
        _watch(members)


if __name__ == "__main__":
    main()
