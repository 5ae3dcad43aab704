"""The progress count of commands that take long."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm


def progress(unit: str = "entries") -> tqdm[NoReturn]:
    """A count on standard error, if that is a terminal."""
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no monitor thread: each batch updates the count
    return tqdm(unit=f" {unit}", unit_scale=True, disable=None)
