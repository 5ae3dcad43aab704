"""Makes the mistakes of the table, one at a time, and checks whether the tests find them.

    scripts/mutate [--only PATTERN]... [--jobs N] [--timeout SECONDS] [--list]

Each mistake is made in a copy of the project in a temporary directory, where its tests run. Exit
status 1: a mistake was not found; 2: tests fail without any mistake, so theirs were not tried, or
the table does not match the source.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from compileall import compile_dir
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Final

from tests.mutations.forks import Forks
from tests.mutations.mutation import ROOT, Drifted, Mutation
from tests.mutations.table import MUTATIONS

# The parts of the project to copy. Environments, caches and databases are not copied.
_OTHERS: Final = shutil.ignore_patterns(
    ".venv", ".git", "__pycache__", ".*_cache", ".hypothesis", "node_modules", "dist", "*.db*"
)
_TEST_SECONDS: Final = 60.0  # for a single test
_LEAST_SECONDS: Final = 10.0
_PATIENCE: Final = 5.0  # times as long as all of its file took without the mistake
_CHECK: Final = "import sys, tenantbase; sys.exit(tenantbase.__file__ != sys.argv[1])"


def _left(folder: str, names: list[str]) -> set[str]:
    """The names in a folder to leave out of the copy. The databases in ``fixtures`` are copied."""
    return set() if Path(folder).name == "fixtures" else set(_OTHERS(folder, names))


class Unusable(Exception):
    """Nothing can be tried."""


class Copy:
    """A copy of the project, to make mistakes in. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "project"
        shutil.copytree(ROOT, self._root, ignore=_left)
        # Bytecode that is compared with its source by hash: a mistake can be as long as the text
        # it replaces, and made in the same second.
        for part in ("tenantbase", "tests"):
            compile_dir(
                self._root / part, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH
            )
        # This path comes before that of the installed package, which is the original.
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        package = str(self._root / "tenantbase" / "__init__.py")
        check = [sys.executable, "-c", _CHECK, package]
        if subprocess.run(check, cwd=self._root, env=environment).returncode:
            raise Unusable("the tests would not run against the copy")
        self._forks = Forks(self._root, environment)

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._forks.close()

    def finds(self, mutation: Mutation, seconds: float, test_seconds: float) -> bool:
        """Whether its tests fail or time out; see ``fails``."""
        path = self._root / mutation.file
        original = path.read_text()
        path.write_text(mutation.applied(self._root))
        try:
            return self.fails(mutation.tests, seconds, test_seconds)
        finally:
            path.write_text(original)

    def fails(
        self, tests: Sequence[str], seconds: float, test_seconds: float = _TEST_SECONDS
    ) -> bool:
        """Whether these tests fail, or take more seconds, all of them or one alone."""
        arguments = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={test_seconds:.0f}", *tests]
        # A mistake can keep a test file from being imported, which counts as found. A wrong test
        # name in the table gives the same status, but also in the run without mistakes.
        return self._forks.run(arguments, seconds) != 0


class Verdict(StrEnum):
    """What became of a mutation."""

    FOUND = "found"
    SURVIVED = "SURVIVED"
    NOT_TRIED = "NOT TRIED"  # its tests fail without any mistake


def tried(mutations: Sequence[Mutation], jobs: int, seconds: float) -> dict[str, Verdict]:
    """Make each mistake, and run its tests.

    Returns: the verdicts, by the names of the mutations. They are also printed at once, with the
    seconds that the tests took.

    Raises:
        Drifted, Unusable: there is no result.
    """
    together: dict[tuple[str, ...], list[Mutation]] = {}
    for mutation in mutations:
        mutation.applied(ROOT)
        together.setdefault(mutation.tests, []).append(mutation)
    verdicts: dict[str, Verdict] = {}
    copies: SimpleQueue[Copy] = SimpleQueue()
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="tenantbase-mutants-"))
        # It ends after the copies: without them, the remaining mutations fail at once.
        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        for number in range(jobs):
            copies.put(stack.enter_context(Copy(Path(directory, str(number)))))

        def try_all(of_tests: Sequence[Mutation]) -> None:
            copy = copies.get()
            try:
                began = time.monotonic()
                sound = not copy.fails(of_tests[0].tests, seconds)
                # Many mistakes make a test hang, so its limit is not much more than it may need.
                needed = _LEAST_SECONDS + _PATIENCE * (time.monotonic() - began)
                test_seconds = min(_TEST_SECONDS, needed)
                for mutation in of_tests:
                    began = time.monotonic()
                    verdict = Verdict.NOT_TRIED
                    if sound:
                        found = copy.finds(mutation, seconds, test_seconds)
                        verdict = Verdict.FOUND if found else Verdict.SURVIVED
                    verdicts[mutation.name] = verdict
                    took = time.monotonic() - began
                    print(f"{verdict:9}  {took:5.1f} s  {mutation.name}", flush=True)
            finally:
                copies.put(copy)

        list(pool.map(try_all, together.values()))
    return verdicts


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
    # So that the copies are removed, and the tests that run are ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        verdicts = tried(chosen, given.jobs, given.timeout)
    except (Drifted, Unusable) as error:
        print(f"scripts/mutate: {error}", file=sys.stderr)
        sys.exit(2)
    survivors = [name for name, each in verdicts.items() if each is Verdict.SURVIVED]
    untried = [name for name, each in verdicts.items() if each is Verdict.NOT_TRIED]
    print(f"{len(chosen)} mistakes, {len(survivors)} not found, {len(untried)} not tried")
    for name in survivors:
        print(f"  {name}")
    for name in untried:
        print(f"  {name}: its tests fail without any mistake")
    sys.exit(2 if untried else bool(survivors))


if __name__ == "__main__":
    main()
