"""Tortures the service, and checks everything that its clients have seen.

    scripts/torture [--seed N] [--seconds N] [--fault NAME]...

Real servers with several workers, on one database and one memcached, get requests from processes of
clients, while faults come and go by a schedule that the seed decides. Every history is checked
for linearizability, and the promises on time and memory are measured. Exit status 1: something
was found.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import msgspec

from tests.faults import beside, referee
from tests.faults.client import Config, keys_of
from tests.faults.cluster import Cluster
from tests.faults.excuses import Excuses
from tests.faults.faults import LANES
from tests.faults.history import Operation
from tests.faults.judge import Judge
from tests.faults.scene import Scene
from tests.faults.schedule import Event, drawn, known
from tests.faults.vitals import Vitals


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        events: the faults, by time.
        dawdling: how much the servers dawdle at each step all the time: how likely, and for how
            many seconds at most.
        bug: planted in the servers.
    """

    seed: int
    seconds: float
    events: Sequence[Event]
    servers: int = 2
    workers: int = 2
    processes: int = 2
    clients: int = 6
    pause: float = 0.01
    slice_seconds: float = 5.0
    dawdling: tuple[float, float] = (0.0, 0.0)
    bug: str | None = None
    stop_at_first: bool = False


class Torture:
    """One run of a plan.

    Attributes:
        violations: histories that no single copy of the data could have produced, as text.
    """

    def __init__(self, plan: Plan, log: Log) -> None:
        self.plan = plan
