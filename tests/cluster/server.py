"""A node under test: the real one, with small limits, and perhaps with a planted bug.

    python -m tests.cluster.server [--break BUG] [--control DIRECTORY] -- serve ...

The command line of tenantbase follows after ``--``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tenantbase.interfaces.postgres import alone, prefixes
from tenantbase.main import main as tenantbase
from tests.cluster.planted import BUGS
from tests.cluster.steps import STEPS, install
from tests.faults.control import Control

_KEPT_COMMITS: Final = 100
# Longer than the write timeout: the outcomes of all groups in doubt must be found.
_KEPT_COMMITS_SECONDS: Final = 15.0


def shrink_limits() -> None:
    """Make events that are rare in production frequent."""
    # Delete the clients' small prefixes as if they were large: such a commit may change any key.
    prefixes.ONE_BY_ONE = 2  # type: ignore[misc]
    # A node that was stopped for a while has fallen behind the log.
    alone.KEPT_COMMITS = _KEPT_COMMITS  # type: ignore[misc]
    alone.KEPT_COMMITS_SECONDS = _KEPT_COMMITS_SECONDS  # type: ignore[misc]


def main() -> None:
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("--break", dest="bug", choices=BUGS)
    parser.add_argument("--control", type=Path)
    given = parser.parse_args(sys.argv[1:at])
    shrink_limits()
    if given.control is not None:
        install(Control(given.control, STEPS))
    if given.bug is not None:
        BUGS[given.bug]()
    tenantbase(sys.argv[at + 1 :], prog_name="tenantbase")


if __name__ == "__main__":
    main()
