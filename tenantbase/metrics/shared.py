"""The figures of a database that several machines share, for ``/v1/stats``."""

from __future__ import annotations

import platform
import time
from typing import Final

import msgspec

from tenantbase import figures as f
from tenantbase.figures import SECOND, Histogram
from tenantbase.interfaces.store import ServerState
from tenantbase.metrics.board import Board

_SILENT: Final = dict.fromkeys(ServerState.__struct_fields__) | {"standby_present": False}
"""The server's figures while it does not answer."""


def shared_figures(
    board: Board, cells: list[int], server: ServerState | None
) -> dict[str, object] | None:
    """The figures of this node, all workers together; None: the database is a file.

    Args:
        server: what the database's server says; None: it does not answer.
    """
    asked_at = [each for each in board.of_each(f.STORE_CONFIRMED_AT) if each]
    if not asked_at:
        return None
    positions = [each for each in board.of_each(f.STORE_POSITION) if each]
    questions = _count(cells, f.QUESTION_DURATION)
    return {
        "node": f"{platform.node()}/{board.supervisor}",
        **(_SILENT if server is None else msgspec.structs.asdict(server)),
        "term": max(board.of_each(f.STORE_TERM)),
        "position": min(positions, default=0),
        "position_lag": max(positions, default=0) - min(positions, default=0),
        "confirmed_age_seconds": round(max(0.0, time.monotonic() - min(asked_at) / SECOND), 3),
        "questions": questions,
        "question_mean_ms": _mean_ms(cells, f.QUESTION_DURATION),
        "keys_per_question": round(cells[f.QUESTION_READS] / questions, 2) if questions else None,
        "lock_wait_mean_ms": _mean_ms(cells, f.LOCK_WAIT),
        "sessions_lost": {str(loss): cells[cell] for loss, cell in f.SESSIONS_LOST.items()},
        "doubts": {str(end): cells[cell] for end, cell in f.DOUBTS.items()},
    }


def _count(cells: list[int], histogram: Histogram) -> int:
    return sum(cells[histogram.first : histogram.sum])


def _mean_ms(cells: list[int], histogram: Histogram) -> float | None:
    """The mean since the server started; None: there was nothing to measure."""
    count = _count(cells, histogram)
    return round(cells[histogram.sum] / count / SECOND * 1000, 3) if count else None
