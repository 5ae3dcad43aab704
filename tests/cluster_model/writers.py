"""What writers do, also those whose COMMIT has lost its answer."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cluster_model.state import EXPIRING, KEY, NOBODY, State, Writer
from tests.cluster_model.view import Step, View, Violation, index, position, put


def writer_steps(view: View, i: int) -> Iterator[Step]:
    """The steps of a writer that has not lost its connection."""
    state, writer, server = view.state, view.state.writers[i], view.home(i).server
    if writer.at == "idle" and (state.locks[server] == NOBODY or view.broken == "commit-order"):
        yield f"w{i} begins at server {server}", _begun(view, i, server)
    elif writer.at == "begun":
        yield _commit(view, i)
        rolled_back = view.with_writer(i, "ended", locks=view.unlocked(i, writer.server))
        yield f"w{i} rolls back", rolled_back
    elif writer.at == "waiting":
        at = index(view.whole[server := writer.server], i)
        assert at is not None
        # If the standby has received it, it confirmed it before it was promoted.
        received = _received(view, server) > at
        if received or view.broken in ("ack-after-standby", "one-candidate"):
            yield f"w{i} commits", view.with_writer(
                i,
                "committed",
                servers=view.shown(server, at + 1),
                locks=view.unlocked(i, server),
                items=_published(view, i),
            )
    elif writer.at == "committed":
        yield f"w{i} is acknowledged", _told_made(view, i)
        if view.broken == "own-position" and view.kind(i) in (KEY, EXPIRING):
            item = (writer.server, max(view.home(i).position, writer.position), i)
            yield f"w{i} publishes {item}", state._replace(items=state.items | {item})
    if view.config.tokens and writer.at in ("begun", "waiting"):
        yield f"w{i}'s connection breaks", view.with_writer(i, "in doubt")


def _begun(view: View, i: int, server: int) -> State:
    state = view.state
    running = (w for w in state.writers if w.at in ("begun", "waiting") and w.server == server)
    begins = 0
    if view.config.distance and server:
        steps = 1 if view.broken == "term-distance" else server
        begins = view.inherited(server) + view.config.distance * steps
    top = max(position(view.whole[server]), begins, *(w.position for w in running), 0)
    locks = state.locks if view.broken == "commit-order" else put(state.locks, server, i)
    begun = Writer("begun", server, top + 1)
    return state._replace(writers=put(state.writers, i, begun), locks=locks)


def _commit(view: View, i: int) -> Step:
    state, writer = view.state, view.state.writers[i]
    server, entry = writer.server, (writer.position, i)
    servers = view.with_entry(server, entry)
    if view.waits(server):
        items = _published(view, i) if view.broken == "publish-after-commit" else state.items
        logged = view.with_writer(i, "waiting", servers=servers, items=items)
        return f"w{i} is in server {server}'s log", logged
    shown = servers[server]._replace(visible=len(view.whole[server]) + 1)
    return f"w{i} commits at server {server}", view.with_writer(
        i,
        "committed",
        servers=put(servers, server, shown),
        locks=view.unlocked(i, server),
        items=_published(view, i),
    )


def _received(view: View, server: int) -> int:
    """How many entries of a server its standby has; all, if it needs none."""
    names = view.state.servers[server].names
    if names != NOBODY:
        return view.state.servers[names].received
    return 0 if view.waits(server) else len(view.whole[server])


def _published(view: View, i: int) -> frozenset[tuple[int, int, int]]:
    items, writer = view.state.items, view.state.writers[i]
    if view.kind(i) not in (KEY, EXPIRING) or view.broken == "own-position":
        return items
    return items | {(writer.server, writer.position, i)}


def _told_made(view: View, i: int) -> State:
    place = view.place(i)
    if place is None:
        raise Violation(f"w{i} is acknowledged, and it is lost")
    seen = max(view.state.seen, place) if view.changes_key(i) else view.state.seen
    given = view.state.given
    if view.config.distance:
        at, _ = view.history[place // 2 - 1]
        if at in given:
            raise Violation(f"w{i} is acknowledged with position {at}, which was given before")
        given |= {at}
    return view.with_writer(i, "ended", seen=seen, given=given)


def doubt_steps(view: View, i: int) -> Iterator[Step]:
    """The steps of a writer without an answer, "in doubt", and of one told that it was "not
    made"."""
    state, writer = view.state, view.state.writers[i]
    if writer.at not in ("in doubt", "not made"):
        return
    if state.locks[writer.server] == i:
        yield from _late(view, i)
    if writer.at == "in doubt":
        yield from _settle(view, i)
    elif index(view.visible[state.primary], i) is not None:
        raise Violation(f"w{i} was told that it was not made, and it is there")


def _late(view: View, i: int) -> Iterator[Step]:
    """The server goes on alone: the COMMIT may still arrive, or wait for the standby."""
    state, writer = view.state, view.state.writers[i]
    server = writer.server
    locks, entry = view.unlocked(i, server), (writer.position, i)
    at = index(view.whole[server], i)
    if at is not None:
        if _received(view, server) > at:
            servers = view.shown(server, at + 1)
            yield f"w{i}'s late COMMIT is done", state._replace(servers=servers, locks=locks)
        return
    servers = view.with_entry(server, entry)
    if i not in state.marks and view.waits(server):
        yield f"w{i}'s late COMMIT is in the log", state._replace(servers=servers)
    elif i not in state.marks:
        shown = servers[server]._replace(visible=len(view.whole[server]) + 1)
        servers = put(servers, server, shown)
        yield f"w{i} commits late", state._replace(servers=servers, locks=locks)
    yield f"w{i}'s transaction is rolled back", state._replace(locks=locks)


def _settle(view: View, i: int) -> Iterator[Step]:
    """The node asks, in a new session, what became of the write."""
    state, server = view.state, view.home(i).server
    whole = view.whole[server]
    if not view.confirmed(server, len(whole)) and view.broken != "outcome-confirmed":
        return
    if index(view.visible[server], i) is not None:
        yield f"w{i} is told: made", _told_made(view, i)
    elif view.broken == "token":
        yield f"w{i} is told: not made", view.with_writer(i, "not made")
    # The mark's key is unique, so its INSERT waits for a transaction that has the key, too.
    elif state.locks[server] != i and index(whole, i) is None:
        marked = view.with_writer(i, "not made", marks=state.marks | {i})
        yield f"w{i} is marked: not made", marked
