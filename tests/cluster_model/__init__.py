"""An exhaustive model of the read index over several machines, for one key.

The store is a primary (server 0) with one synchronous standby (server 1), as PostgreSQL does it: a
commit is first in the primary's own log, then received by the standby, then visible and
acknowledged. The standby may be promoted at any moment, and takes another server, if there is one, as
its own standby: then there may be a second failover. A primary may also change to another standby. The
deposed primary continues to answer its clients and to write into its own log, but the standby never
confirms any of it. It may also crash and restart as a primary, and a wait for the standby may be
cancelled: both make visible what the standby has not received. Two nodes, each with its own table, read
and write.

memcached is as bad as possible: a get may be answered with any item that was ever made, or with
nothing, at any time. That covers late, lost, reordered, evicted and resurrected items, an emptied
memcached, and nodes that see different rings. Items are made as early as possible, because that only
adds answers. A node that is paused, dead or cut off is a node that takes no step: every interleaving
is explored, so every pause is.

Properties:

- A read returns no version older than one that was acknowledged, or returned by another read,
  before it began (single-key linearizability; versions grow in commit order).
- No read returns, and no acknowledgement is given for, a write that a failover loses.
- A writer that was told "not made" never finds its write in the surviving history.

- No read returns an entry that had expired before the read began, or that another read has found
  expired; no read finds an entry expired before its time.
- No two acknowledged writes have one position, not even after a lossy promotion.

A lossy promotion is an operator's decision to go on without acknowledged writes, with the standby or
with one that knows nothing of the last failover. The operator makes sure that the old primary
acknowledges nothing more. From then on the properties are those of the remaining history, for reads
that begin later.

Time passes for all servers at once: their clocks agree. Not modelled: a server that comes back as the
standby of its successor. Its connections have ended by then, and with them the sessions that knew it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from tests.cluster_model.nodes import node_steps
from tests.cluster_model.readers import reader_steps
from tests.cluster_model.state import (
    NOBODY,
    A,
    B,
    Config,
    Left,
    Node,
    Reader,
    Row,
    Server,
    State,
    Writer,
)
from tests.cluster_model.store import store_steps
from tests.cluster_model.view import Step, View, Violation
from tests.cluster_model.writers import doubt_steps, writer_steps


def _order(reader: Reader) -> tuple[str, int, int, Row | tuple[()]]:
    return reader.at, reader.floor, reader.began, reader.row or ()


def explore(
    config: Config,
    broken: str | None = None,
    *,
    witness: bool = False,
    most: float = float("inf"),
) -> int:
    """Visit every reachable state. Returns: their number.

    Args:
        broken: a rule to leave out.
        witness: ask the standby, instead of making a commit, to confirm an answer.
        most: stop once this many states are known; those nearest to the first are found first.

    Raises:
        Violation: a property does not hold.
    """
    unused = (Server(),) * (config.servers - 2)
    first = State(
        nodes=(Node(), Node()),
        writers=(Writer(),) * len(config.writers),
        readers=(Reader(),) * len(config.readers),
        left=Left(
            config.crash,
            config.cancel,
            config.restart,
            config.trim,
            config.watch,
            config.change,
            config.spare,
        ),
        servers=(Server(promoted=True, names=1), Server(parent=0), *unused),
        locks=(NOBODY,) * config.servers,
    )
    # The readers of a node are alike: states that differ only in their order are one state.
    alike = [[i for i, at in enumerate(config.readers) if at == n] for n in (A, B)]
    groups = [group for group in alike if len(group) > 1]
    origins: dict[State, tuple[State, str] | None] = {first: None}
    queue = deque([first])
    while queue and len(origins) < most:
        state = queue.popleft()
        try:
            for label, following in _steps(View(state, config, broken, witness)):
                reached = _ordered(following, groups)
                if reached not in origins:
                    origins[reached] = (state, label)
                    queue.append(reached)
        except Violation as violation:
            raise Violation(*_way(origins, state), *violation.args) from None
    return len(origins)


def _steps(view: View) -> Iterator[Step]:
    yield from store_steps(view)
    for n in range(len(view.state.nodes)):
        yield from node_steps(view, n)
    for i in range(len(view.state.readers)):
        yield from reader_steps(view, i)
    for i in range(len(view.state.writers)):
        yield from writer_steps(view, i)
        yield from doubt_steps(view, i)


def _ordered(state: State, groups: Sequence[Sequence[int]]) -> State:
    """The state with each group of readers in order."""
    if not groups:
        return state
    readers = list(state.readers)
    for group in groups:
        for i, reader in zip(group, sorted((readers[i] for i in group), key=_order), strict=True):
            readers[i] = reader
    return state._replace(readers=tuple(readers))


def _way(origins: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    """The labels of the steps from the first state to this one."""
    labels: list[str] = []
    while (origin := origins[state]) is not None:
        state, label = origin
        labels.append(label)
    return labels[::-1]
