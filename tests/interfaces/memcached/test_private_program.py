"""The private memcached's program is looked up from our directory, not from its guard's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tenantbase.interfaces.memcached.private import PrivateMemcached
from tests.interfaces.memcached.test_private import memcached_pid

pytestmark = pytest.mark.integration  # the package starts processes


def test_a_relative_path_starts_at_our_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("memcached")
    assert program is not None
    (tmp_path / "our-memcached").symlink_to(program)
    monkeypatch.chdir(tmp_path)
    private = PrivateMemcached.start(program="./our-memcached")
    assert private is not None
    with private:
        assert memcached_pid(str(private.address))
    assert not Path(private.address.path).parent.exists()
