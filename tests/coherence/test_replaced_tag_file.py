"""A tag file that is replaced between its opening and its lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantbase.coherence import tag_file
from tenantbase.coherence.tag_file import TagFile
from tenantbase.owned_files import open_beside


def test_a_file_that_is_no_longer_there_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process using the old file would miss the writes of processes that open the new one."""
    path, aside = tmp_path / "x.db-tags", tmp_path / "aside"
    first = TagFile.open(path)  # holds the file's lock, as another process on the database would
    later: list[TagFile] = []

    def open_and_replace(path: Path, what: str, mark: bytes, like: Path | None) -> tuple[int, bool]:
        opened = open_beside(path, what, mark, like)
        monkeypatch.undo()
        path.rename(aside)
        later.append(TagFile.open(path))
        return opened

    monkeypatch.setattr(tag_file, "open_beside", open_and_replace)
    ours = TagFile.open(path)
    assert ours.tag(7) == later[0].tag(7)
    assert ours.tag(7)[0] != first.tag(7)[0]
    later[0].sequences[7] = 42
    assert ours.tag(7)[1] == 42
    for each in (ours, *later, first):
        each.close()
    assert not path.exists()
    assert aside.exists(), "it is no longer where it was made, so it is left alone"
