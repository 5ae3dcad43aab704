"""DESIGN.md names files that exist, and maps every room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tenantbase"
TEXT = (PACKAGE / "DESIGN.md").read_text()


def exists(name: str) -> bool:
    """Whether a path is in the package or the project, or a bare file name is in any room."""
    if (PACKAGE / name).exists() or (ROOT / name).exists():
        return True
    return "/" not in name and any(PACKAGE.rglob(name))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+(?:\.py|/))`", TEXT))))
def test_files_it_names_exist(name: str) -> None:
    assert exists(name)


def test_the_map_has_every_room() -> None:
    section = TEXT.split("\n## The map\n")[1].split("\n## ")[0]
    rooms = {
        f"{path.relative_to(PACKAGE)}/"
        for path in [*PACKAGE.glob("*"), *PACKAGE.glob("web/*")]
        if (path / "__init__.py").exists()
    }
    first_cells = re.findall(r"^\| `([\w/]+/)` \|", section, re.MULTILINE)
    assert set(first_cells) == rooms
