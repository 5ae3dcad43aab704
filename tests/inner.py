"""Runs pytest in a process of its own, under the rules of these tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
_UNUSED_PLUGINS: Final = ("aiohttp", "anyio", "hypothesispytest", "schemathesis")


def run_tests(directory: Path, code: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Run a test module with this code, which is written to ``test_it.py`` in the directory."""
    (directory / "conftest.py").write_text("from tests.conftest import *\n")
    (directory / "test_it.py").write_text(code)
    command = [sys.executable, "-m", "pytest", f"--rootdir={directory}"]
    command += ["-c", str(ROOT / "pyproject.toml"), *options]
    for plugin in _UNUSED_PLUGINS:  # most of the time of a short run is their import
        command += ["-p", f"no:{plugin}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True)
