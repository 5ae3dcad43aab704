"""PostgreSQL under Patroni, with etcd: the servers that a production cluster uses.

Etcd      one member, on free ports
Patroni   a member of the cluster: Patroni and the PostgreSQL server that it runs
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import yaml

from tests.postgres import owner, programs
from tests.program import Program
from tests.servers import READY_SECONDS, free_port, poll

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"
DEPLOYED: Final = DEPLOY / "patroni" / "tenantbase.yml"
SQL: Final = DEPLOY / "postgresql" / "tenantbase.sql"


def ask(port: int, path: str) -> tuple[int, Any]:
    """Ask for a JSON document. Returns: the status, and the document. Raises OSError."""
    connection = HTTPConnection("127.0.0.1", port, timeout=READY_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


class Etcd(Program):
    """An etcd with one member.

    Args:
        directory: for its files; it exists.

    Attributes:
        port: where clients connect.
    """

    log = "etcd.log"

    def __init__(self, directory: Path) -> None:
        self.port, peers = free_port(), f"http://127.0.0.1:{free_port()}"
        clients = f"http://127.0.0.1:{self.port}"
        options = ["--name=one", "--data-dir=etcd", f"--initial-cluster=one={peers}"]
        options += [f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"]
        options += [f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"]
        super().__init__(["etcd", *options], directory)

    def ready(self) -> bool:
        return ask(self.port, "/health")[0] == 200


class Patroni(Program):
    """A member of a cluster, configured with the file in ``deploy/`` on free ports.

    Args:
        name: of the member.
        directory: for its files; it exists, and belongs to PostgreSQL's user.
        etcd: the port of etcd.

    Attributes:
        port: of PostgreSQL.
        api: the port of Patroni's own HTTP server.
    """

    log = "patroni.log"

    def __init__(self, name: str, directory: Path, etcd: int) -> None:
        self.name = name
        self.port, self.api = free_port(), free_port()
        self.data = directory / "data"
        shutil.copy(SQL, directory)
        text = yaml.safe_dump(self._configuration(etcd, directory))
        (directory / "patroni.yml").write_text(text)
        user = owner()
        runner = []
        if user is not None:  # PostgreSQL refuses to run as root
            runner = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            runner += ["--clear-groups"]
        super().__init__([*runner, "patroni", "patroni.yml"], directory)

    def _configuration(self, etcd: int, directory: Path) -> Mapping[str, Any]:
        """The deployed configuration, for this machine and without passwords."""
        config: dict[str, Any] = yaml.safe_load(DEPLOYED.read_text())
        config["name"] = self.name
        for section, port in (("restapi", self.api), ("postgresql", self.port)):
            config[section] |= dict.fromkeys(("listen", "connect_address"), f"127.0.0.1:{port}")
        config["etcd3"] = {"hosts": [f"127.0.0.1:{etcd}"]}
        config["watchdog"] = {"mode": "off"}
        command = config["bootstrap"]["post_init"].split()
        command[0], command[-1] = str(programs() / "psql"), str(directory / SQL.name)
        config["bootstrap"]["post_init"] = " ".join(command)
        for user in config["postgresql"]["authentication"].values():
            del user["password"]
        config["postgresql"] |= {
            "data_dir": str(self.data),
            "bin_dir": str(programs()),
            "pgpass": str(directory / "pgpass"),
            "pg_hba": ["local all all trust", "host all,replication all 127.0.0.1/32 trust"],
            "parameters": {"unix_socket_directories": str(directory), "shared_buffers": "16MB"},
        }
        return config

    @property
    def host(self) -> str:
        """The address of PostgreSQL, as in a URL with several hosts."""
        return f"127.0.0.1:{self.port}"

    @property
    def postgres(self) -> int | None:
        """The main process of PostgreSQL; None: it does not run."""
        try:
            return int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return None

    def ready(self) -> bool:
        """Whether its PostgreSQL answers, as a primary or as a standby."""
        return ask(self.api, "/health")[0] == 200

    def has_role(self, role: str) -> bool:
        """Whether it is the ``primary``, the ``synchronous`` standby, or another ``replica``."""
        try:
            return ask(self.api, f"/{role}")[0] == 200
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to Patroni and to all processes of its PostgreSQL."""
        for pid in (self.pid, *_family(self.postgres)):
            _signal(pid, number)

    def kill(self) -> None:
        """Kill Patroni and its PostgreSQL, as a power failure does."""
        pids = _family(self.postgres)
        self.signal(signal.SIGKILL)
        self._process.wait(READY_SECONDS)
        poll(lambda: not any(map(lives, pids)), "PostgreSQL's processes have ended")

    def __exit__(self, *exc_info: object) -> None:
        """End both at once. Unlike after ``kill``, no shared memory is left behind."""
        postgres = self.postgres
        pids = _family(postgres)
        self._process.kill()
        self._process.wait(READY_SECONDS)
        for pid in pids:
            _signal(pid, signal.SIGCONT)
        if pids:
            _signal(pids[0], signal.SIGQUIT)
        poll(lambda: not any(map(lives, pids)), "PostgreSQL's processes have ended")


def primary_of(members: Sequence[Patroni]) -> Patroni:
    """Wait for a primary with a synchronous standby. Returns: the primary."""
    poll(
        lambda: all(any(m.has_role(role) for m in members) for role in ("primary", "synchronous")),
        "there is a primary and a synchronous standby",
        4 * READY_SECONDS,
    )
    return next(member for member in members if member.has_role("primary"))


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _family(pid: int | None) -> list[int]:
    """A process and its children; a process that has ended has none."""
    if pid is None or not lives(pid):
        return []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *map(int, children)]


def lives(pid: int) -> bool:
    """Whether a process runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
