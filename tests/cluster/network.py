"""Network namespaces: machines, and a network between them that can fail in one direction only.

`isolated` runs the program in namespaces of its own. When their last process has ended, for whatever
reason, the kernel removes them with everything in them.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Final, Self, TypeVar

SUBNET: Final = "10.99.0.0/24"
_ROUTER: Final = "10.99.0.1"
_FIRST: Final = 10
_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_MARK: Final = "TORTURE_ISOLATED"
_RUN: Final = "/run"
_SYSTEM_PROGRAMS: Final = ":/usr/sbin:/sbin"
# /dev/shm is new, because killed processes leave files of libfaketime and PostgreSQL in it.
_PREPARE: Final = (
    f"mount -t tmpfs none {_RUN}",
    f"mkdir {_RUN}/netns",
    "mount -t tmpfs -o mode=1777 none /dev/shm",
    "ip link set lo up",
)

_Result = TypeVar("_Result")


def isolated(module: str) -> str:
    """Run this program again in its own network and mount namespaces, unless it already does.

    Root needs no more; other users get a user namespace, too, in which they keep their id.

    Returns:
        Empty once it is inside them; otherwise the system's reason for refusing them.
    """
    if os.environ.get(_MARK):
        return ""
    os.environ["PATH"] += _SYSTEM_PROGRAMS  # on Debian, only root has them
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    enter = ["unshare", *user, "--net", "--mount", "--"]
    prepare = " && ".join(_PREPARE)
    try:
        tried = subprocess.run([*enter, "sh", "-c", prepare], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    if tried.returncode:
        return tried.stderr.strip()
    command = [*enter, "sh", "-c", f'{prepare} && exec "$@"', "sh", sys.executable, "-m", module]
    os.execvpe(enter[0], [*command, *sys.argv[1:]], os.environ | {_MARK: "1"})


class Machine:
    """A namespace with one address.

    Attributes:
        address: IPv4.
        link: the router's end of the cable to it.
    """

    def __init__(self, name: str, address: str, link: str) -> None:
        self.name = name
        self.address = address
        self.link = link

    def run(self, work: Callable[[], _Result]) -> _Result:
        """Do some work in the namespace. Sockets and processes that it makes stay there."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._enter).result()
            return pool.submit(work).result()

    def _enter(self) -> None:
        """A namespace is a property of the thread, and of processes that it starts.

        Raises:
            OSError: the network has been closed.
        """
        with open(f"{_RUN}/netns/{self.name}") as file:
            if _LIBC.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {self.name}")


Direction = tuple[Machine, Machine]


class Network:
    """Machines, and this process between them as the router. A context manager, inside `isolated`.

    This process reaches all machines, and they reach it, whatever is cut.
    """

    def __init__(self) -> None:
        self._numbers = count(_FIRST)
        self._cut: Counter[Direction] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        _ip(f"address add {_ROUTER}/32 dev lo")
        with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
            file.write("1")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def add(self, name: str) -> Machine:
        """A new machine."""
        number = next(self._numbers)
        made = Machine(name, f"10.99.0.{number}", f"cable{number}")
        _ip(
            f"netns add {name}",
            f"link add {made.link} type veth peer name eth0 netns {name}",
            f"link set {made.link} up",
            f"route add {made.address}/32 dev {made.link} src {_ROUTER}",
        )
        self._stack.callback(_ip, f"netns delete {name}")
        _ip(
            "link set lo up",
            "link set eth0 up",
            f"address add {made.address}/32 dev eth0",
            f"route add {_ROUTER}/32 dev eth0",
            f"route add default via {_ROUTER} dev eth0 onlink",
            namespace=name,
        )
        return made

    @contextmanager
    def cut(self, directions: Sequence[Direction]) -> Iterator[None]:
        """While the block runs, nothing that the first machine sends arrives at the second one."""
        for each in directions:
            if not self._cut[each]:
                _ip(_rule("add", each))
            self._cut[each] += 1
        try:
            yield
        finally:
            for each in directions:
                self._cut[each] -= 1
                if not self._cut[each]:
                    _ip(_rule("delete", each))

    @contextmanager
    def slow(self, machine: Machine, kilobits: int) -> Iterator[None]:
        """While the block runs, a machine receives at most ``kilobits`` per second."""
        where = f"dev {machine.link} root"
        _run("tc", f"qdisc add {where} tbf rate {kilobits}kbit burst 4kb latency 400ms")
        try:
            yield
        finally:
            _run("tc", f"qdisc delete {where}")


def _rule(verb: str, direction: Direction) -> str:
    source, target = direction
    return f"rule {verb} pref 100 from {source.address} to {target.address} blackhole"


def _ip(*commands: str, namespace: str | None = None) -> None:
    where = [] if namespace is None else ["-n", namespace]
    _run("ip", *commands, options=where)


def _run(program: str, *commands: str, options: Sequence[str] = ()) -> None:
    for command in commands:
        done = subprocess.run([program, *options, *command.split()], capture_output=True, text=True)
        assert done.returncode == 0, f"{program} {command}: {done.stderr}"
