"""The number of workers for ``auto``, from cgroup files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tenantbase.process.processors import usable_processors

V2 = "30 23 0:26 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,cpu,cpuacct"
OTHER = "31 23 0:28 / /elsewhere rw,relatime - tmpfs tmpfs rw,mode=755"


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def usable(tmp_path: Path, mount: str, member: str, files: dict[str, str], root: str = "/") -> int:
    """The result for a process whose ``cgroup`` file is ``member``, with these quota files."""
    point = tmp_path / "cpu groups"
    for name, text in files.items():
        file = point / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    line = mount.format(root=root, point=str(point).replace(" ", "\\040"))
    (tmp_path / "mountinfo").write_text(f"{OTHER}\n{line}\n")
    (tmp_path / "cgroup").write_text(member)
    return usable_processors(tmp_path)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("25000 10000\n", 3),
        ("6400000 100000\n", 16),
        ("", 16),
        ("nonsense\n", 16),
        ("100000 0\n", 16),
    ],
)
def test_a_quota_of_version_2(tmp_path: Path, text: str, count: int) -> None:
    assert usable(tmp_path, V2, "0::/a/b\n", {"a/b/cpu.max": text}) == count


def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "cpu.max": "800000 100000",
        "a/cpu.max": "300000 100000",
        "a/b/cpu.max": "max 100000",
        "a/b/c/cpu.max": "400000 100000",
        "other/cpu.max": "100000 100000",
    }
    assert usable(tmp_path, V2, "0::/a/b/c\n", files) == 3


def test_a_container_that_sees_its_own_cgroup_as_the_root(tmp_path: Path) -> None:
    assert usable(tmp_path, V2, "0::/\n", {"cpu.max": "200000 100000"}) == 2
    assert usable(tmp_path, V2, "0::/../other\n", {"cpu.max": "200000 100000"}) == 2


@pytest.mark.parametrize(("quota", "count"), [("-1", 16), ("250000", 3), ("50000", 1)])
def test_a_quota_of_version_1(tmp_path: Path, quota: str, count: int) -> None:
    files = {"a/cpu.cfs_quota_us": f"{quota}\n", "a/cpu.cfs_period_us": "100000\n"}
    member = "5:memory:/b\n4:cpu,cpuacct:/a\n1:name=systemd:/c:d\n0::/\n"
    assert usable(tmp_path, V1, member, files) == count


def test_a_container_of_version_1_whose_path_begins_on_the_host(tmp_path: Path) -> None:
    files = {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}
    member = "4:cpu,cpuacct:/docker/1234\n"
    assert usable(tmp_path, V1, member, files, root="/docker/1234") == 2
    assert usable(tmp_path, V1, member, files, root="/docker") == 2
    assert usable(tmp_path, V1, member, files, root="/elsewhere") == 2


def test_affinity_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable(tmp_path, V2, "0::/a\n", {"a/cpu.max": "200000 100000"}) == 1


def test_a_system_without_cgroups(tmp_path: Path) -> None:
    assert usable_processors(tmp_path) == 16
