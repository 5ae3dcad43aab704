"""A server to be tortured: the real one, whose parts come to the steps of a control.

    python -m tests.faults.server CONTROL [--break BUG] -- serve ...

What follows ``--`` is the command line of tenantbase.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tenantbase.main import main as tenantbase
from tests.faults import planted, stalls
from tests.faults.control import Control
from tests.faults.stepped import Parts, stepped


def main() -> None:
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("control", type=Path)
    parser.add_argument("--break", dest="bug", choices=planted.BUGS)
    given = parser.parse_args(sys.argv[1:at])
    control = Control(given.control)
    parts = stepped(planted.plant(Parts(), given.bug), control)
    with stalls.watched(parts, control).installed(control):
        tenantbase(sys.argv[at + 1 :], prog_name="tenantbase")


if __name__ == "__main__":
    main()
