"""The command line of a part that is measured by itself, such as ``scripts/bench --size``.

Each prints its tables, and can write its results to a file and its tables to a section of README.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.markdown import write_section
from benchmarks.processes import BenchmarkError, Cores, choose_cores
from benchmarks.progress import Progress
from benchmarks.results import write_json

Results = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a part is measured.

    Attributes:
        directory: for its files.
        progress: shows what is measured now.
    """

    cores: Cores
    directory: Path
    progress: Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        name: its option of ``scripts/bench``, without the dashes; also that of its section.
        about: what it measures, in a sentence.
        measure: given the options.
        render: the tables of the results.
        illustrate: writes the picture of the results. Returns: what shows it in the section.
    """

    name: str
    about: str
    measure: Callable[[argparse.Namespace, Place], Results]
    render: Callable[[Results], str]
    illustrate: Callable[[Results], str] | None = None

    def parser(self) -> argparse.ArgumentParser:
        """The options that every part has."""
        parser = argparse.ArgumentParser(
            prog=f"scripts/bench --{self.name}", description=self.about
        )
        parser.add_argument(
            "--json", type=Path, metavar="FILE", help="write the results to this file"
        )
        parser.add_argument(
            "--publish", action="store_true", help="write the section of benchmarks/README.md"
        )
        parser.add_argument(
            "--directory", metavar="PATH", help="for the database, on a real disk, or fsync is free"
        )
        return parser

    def run(self, options: argparse.Namespace) -> None:
        """Measure, and print the tables. Ends everything that it started."""
        # Let the context managers end all processes.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        progress = Progress()
        with tempfile.TemporaryDirectory(prefix="tenantbase-bench-", dir=options.directory) as base:
            try:
                cores = choose_cores()
                os.sched_setaffinity(0, {cores.load})
                results = self.measure(options, Place(cores, Path(base), progress))
            except BenchmarkError as error:
                sys.exit(f"\nbench: {progress.last}: {error}")
            except KeyboardInterrupt:
                sys.exit("\nbench: interrupted")
            results["machine"] = machine.describe(Path(base))
        progress("")
        text = "\n\n".join([self.render(results), _described(results["machine"])])
        print(text)
        if options.json:
            write_json(results, options.json)
        if options.publish:
            if self.illustrate is not None:
                text = f"{self.illustrate(results)}\n\n{text}"
            write_section(self.name, f"scripts/bench --{self.name} --publish", text)


def _described(about: dict[str, str]) -> str:
    parts = [about["processor"], f"{about['cores']} cores", about["memory"], about["system"]]
    return f"Measured on: {', '.join([*parts, about['file system']])}."
