"""Makes the mistakes of the table, one at a time, and checks whether the tests find them.

    scripts/mutate [--only PATTERN]... [--jobs N] [--timeout SECONDS] [--list]

Each mistake is made in a copy of the project in a temporary directory, where its tests run. Exit
status 1: a mistake was not found; 2: the tests fail without any mistake, or the table does not
match the source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutations.mutation import ROOT, Drifted, Mutation
from tests.mutations.table import MUTATIONS

# The parts of the project to copy. Environments, caches and databases are not copied.
_OTHERS: Final = shutil.ignore_patterns(
    ".venv", ".git", "__pycache__", ".*_cache", ".hypothesis", "node_modules", "dist", "*.db*"
)
_CHECK: Final = "import sys, tenantbase; sys.exit(tenantbase.__file__ != sys.argv[1])"


def _left(folder: str, names: list[str]) -> set[str]:
    """The names in a folder to leave out of the copy. The databases in ``fixtures`` are copied."""
    return set() if Path(folder).name == "fixtures" else set(_OTHERS(folder, names))


class Unusable(Exception):
    """The run has no result."""


class Copy:
    """A copy of the project, to make mistakes in."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "project"
        shutil.copytree(ROOT, self._root, ignore=_left)
        # This path comes before that of the installed package, which is the original.
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(self._root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        package = str(self._root / "tenantbase" / "__init__.py")
        if self._run([sys.executable, "-c", _CHECK, package], 60):
            raise Unusable("the tests would not run against the copy")

    def finds(self, mutation: Mutation, seconds: float) -> bool:
        """Whether its tests fail or time out."""
        path = self._root / mutation.file
        original = path.read_text()
        path.write_text(mutation.applied(self._root))
        try:
            return self.fails(mutation.tests, seconds)
        finally:
            path.write_text(original)

    def fails(self, tests: Sequence[str], seconds: float) -> bool:
        """Whether these tests fail."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["--timeout=60", *tests]
        status = self._run(command, seconds)
        # A mistake can keep a test file from being imported, which counts as found. A wrong test
        # name in the table gives the same status, but also in the run without mistakes.
        return status != 0

    def _run(self, command: Sequence[str], seconds: float) -> int | None:
        """The exit status; None: it timed out, and its process group was killed."""
        with subprocess.Popen(
            command,
            cwd=self._root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def survivors(mutations: Sequence[Mutation], jobs: int, seconds: float) -> list[str]:
    """The names of the mutations that the tests do not find.

    Raises:
        Drifted, Unusable: there is no result.
    """
    for mutation in mutations:
        mutation.applied(ROOT)
    copies: SimpleQueue[Copy] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="tenantbase-mutants-") as directory:
        for number in range(jobs):
            copies.put(Copy(Path(directory, str(number))))

        def tried(mutation: Mutation) -> bool:
            copy = copies.get()
            try:
                found = copy.finds(mutation, seconds)
            finally:
                copies.put(copy)
            print(f"{'found   ' if found else 'SURVIVED'}  {mutation.name}", flush=True)
            return found

        def sound(tests: tuple[str, ...]) -> bool:
            copy = copies.get()
            try:
                return not copy.fails(tests, seconds)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            wanted = list(dict.fromkeys(mutation.tests for mutation in mutations))
            for tests, passed in zip(wanted, pool.map(sound, wanted), strict=True):
                if not passed:
                    raise Unusable(f"these tests fail without any mistake: {' '.join(tests)}")
            found = list(pool.map(tried, mutations))
    return [each.name for each, known in zip(mutations, found, strict=True) if not known]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/mutate", description="Makes mistakes in a copy that the tests must find."
    )
    parser.add_argument("--only", action="append", metavar="PATTERN", help="of names or files")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (1)")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for its tests (180)")
    parser.add_argument("--list", action="store_true", help="show the names and do nothing")
    given = parser.parse_args()
    patterns = given.only or ["*"]
    chosen = [
        each
        for each in MUTATIONS.values()
        if any(fnmatch(each.name, text) or fnmatch(each.file, text) for text in patterns)
    ]
    if given.list:
        for each in chosen:
            print(f"{each.file}: {each.name}")
        return
    try:
        left = survivors(chosen, given.jobs, given.timeout)
    except (Drifted, Unusable) as error:
        print(f"scripts/mutate: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(chosen)} mistakes, {len(left)} not found")
    for name in left:
        print(f"  {name}")
    sys.exit(bool(left))


if __name__ == "__main__":
    main()
