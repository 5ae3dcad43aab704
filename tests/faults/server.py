"""A server under test: the real one, whose parts call a control at each step.

    python -m tests.faults.server CONTROL [--break BUG] [--unwatched] -- serve ...

The command line of tenantbase follows after ``--``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tenantbase.coherence import sealed_item
from tenantbase.interfaces.sqlite import opening as sql_opening
from tenantbase.interfaces.sqlite import sweep as sql_sweep
from tenantbase.main import main as tenantbase
from tests.faults import planted, stalls
from tests.faults.control import Control
from tests.faults.stepped import Parts, stepped

_CACHE_KIB: Final = 512
_REMEMBERED_BYTES: Final = 2 << 20


def main() -> None:
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("control", type=Path)
    parser.add_argument("--break", dest="bug", choices=planted.BUGS)
    parser.add_argument("--unwatched", action="store_true", help="do not report stalls")
    given = parser.parse_args(sys.argv[1:at])
    control = Control(given.control)
    parts = stepped(planted.plant(Parts(), given.bug), control)
    # Delete the clients' small prefixes as if they were large.
    sql_sweep.ONE_BY_ONE = 2  # type: ignore[misc]
    # Small limits, so that all caches are full within a minute or two: later growth is a leak.
    sealed_item.REMEMBERED_BYTES = _REMEMBERED_BYTES  # type: ignore[misc]
    for name in ("_WRITER", "_READER"):
        setattr(sql_opening, name, (*getattr(sql_opening, name), ("cache_size", -_CACHE_KIB)))
    if not given.unwatched:
        parts = stalls.watched(parts, control)
    with parts.installed(control):
        tenantbase(sys.argv[at + 1 :], prog_name="tenantbase")


if __name__ == "__main__":
    main()
