"""A database with many entries of 100 bytes: filled by an import, used by commands and servers."""

from __future__ import annotations

import json
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.client import check
from benchmarks.dialect import Exchange
from benchmarks.launch import Site, start_tenantbase, tenantbase_command
from benchmarks.processes import BenchmarkError, Cores, free_port, resident
from benchmarks.work import Data, Generated, name, value

_VALUE_BYTES: Final = 100
_STARTS: Final = 5
# The least that any command on all entries must do; and what it may take in any case.
_SLOWEST_ENTRIES_A_SECOND: Final = 2_000
_COMMAND_SECONDS: Final = 600.0
_SAMPLE_SECONDS: Final = 0.02


@dataclass(frozen=True)
class Done:
    """What a command took.

    Attributes:
        seconds: from its start to its end.
        peak: its memory in bytes, as last sampled.
        output: what it printed.
    """

    seconds: float
    peak: int
    output: str


class Grown:
    """A database of one size.

    Attributes:
        size: the number of its entries.
        site: where its servers run.
        entries: what it holds.
    """

    def __init__(self, size: int, cores: Cores, directory: Path) -> None:
        directory.mkdir()
        self.size = size
        data = Data("growth", size, _VALUE_BYTES)
        self.site = Site(directory, cores.server, free_port(), data)
        self.entries = Generated(data)
        self.database = directory / "tenantbase.db"

    def fill(self) -> Done:
        """Import the entries."""
        lines = self.site.directory / "entries.ndjson"
        with lines.open("w") as file:
            for number in range(self.size):
                key = name(number)
                line = json.dumps({"key": key, "value": value(key, _VALUE_BYTES)})
                file.write(f"{line}\n")
        done = self.command("import", lines)
        lines.unlink()
        return done

    def command(self, name: str, *arguments: str | Path) -> Done:
        """Run a command on the database.

        Raises:
            BenchmarkError: it failed, or takes far too long.
        """
        log = self.site.log(name)
        log.unlink(missing_ok=True)
        begun = time.monotonic()
        deadline = begun + max(_COMMAND_SECONDS, self.size / _SLOWEST_ENTRIES_A_SECOND)
        peak = 0
        with self.site.run(name, tenantbase_command(self.site, name, *arguments)) as process:
            while (status := process.poll()) is None:
                if time.monotonic() > deadline:
                    raise BenchmarkError(f"{name} of {self.size:,} entries does not end")
                with suppress(BenchmarkError):  # it has just ended
                    peak = max(peak, resident(process.pid, peak=True))
                time.sleep(_SAMPLE_SECONDS)
            elapsed = time.monotonic() - begun
        output = log.read_text()
        if status:
            raise BenchmarkError(f"{name} of {self.size:,} entries failed:\n{output}")
        return Done(elapsed, peak, output)

    def start_seconds(self) -> float:
        """How long a new server takes until its first answer: the median of a few starts."""
        return statistics.median(self._start() for _ in range(_STARTS))

    def _start(self) -> float:
        request = b"GET /health-check HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        begun = time.monotonic()
        with start_tenantbase(self.site, []):
            check(self.site.port, [Exchange(request, 200, lambda answer: True)])
            return time.monotonic() - begun
