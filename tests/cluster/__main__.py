"""Starts a cluster on this machine, to try; Ctrl-C ends it.

    scripts/cluster [--patroni] [--nodes N] [--directory DIRECTORY] [-- OPTION...]

PostgreSQL with a synchronous standby, three memcacheds, tenantbase nodes, and HAProxy in front of
them, each on a free port of 127.0.0.1. With --patroni, three PostgreSQL servers run under Patroni,
which replaces a dead primary. What follows -- are options of `tenantbase serve` for the nodes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.cluster.run import Plan
from tests.postgres import make_directory

_SOCKET_NAME: str = "/tb-pg-12345678/tb-pg-12345678/.s.PGSQL.12345"
_SOCKET_PATH_BYTES = 107  # on Linux, without the zero at its end


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/cluster", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--patroni", action="store_true", help="three servers under Patroni")
    parser.add_argument("--nodes", type=int, default=2, choices=range(3), help="0: no HAProxy")
    parser.add_argument(
        "--directory",
        type=_directory,
        help="where the files are while it runs; without it, in memory if there is room",
    )
    parser.add_argument("options", nargs="*", metavar="-- OPTION", help="of `tenantbase serve`")
    given = parser.parse_args()
    base = make_directory(given.directory)
    plan = Plan(str(base), given.patroni, given.nodes, given.options)
    # In a session of its own, Ctrl-C does not reach the servers: they are ended one by one. The end
    # of its input ends it, also when this process is killed.
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.run", msgspec.json.encode(plan)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as cluster:
        assert cluster.stdin is not None
        stdin = cluster.stdin
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: stdin.close())
        status = cluster.wait()
        with suppress(ProcessLookupError):  # none is left, unless it was interrupted at its start
            os.killpg(cluster.pid, signal.SIGKILL)
        shutil.rmtree(base, ignore_errors=True)
    sys.exit(status)


def _directory(text: str) -> Path:
    path = Path(text).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory")
    if len(os.fsencode(path)) + len(_SOCKET_NAME) > _SOCKET_PATH_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is too long for the path of a socket")
    return path


if __name__ == "__main__":
    main()
