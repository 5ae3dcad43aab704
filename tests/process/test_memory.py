"""Freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

MIB = 1 << 20

# Large blocks, with a small one after each, which stays when the large ones are freed.
_PROGRAM = """
import os
import sys
from tenantbase.process.memory import return_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if sys.argv[1] == "return":
    return_freed_memory()
del bytearray(4 << 20)[:]
before = resident()
large, small = [], []
for _ in range(100):
    large.append(b"x" * (1 << 20))
    small.append(b"x" * 5_000)
del large
print(resident() - before)
"""


def kept_bytes(argument: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, argument]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def test_large_blocks_go_back_to_the_system() -> None:
    assert kept_bytes("return") < 10 * MIB
    assert kept_bytes("leave") > 50 * MIB  # what it is there for
