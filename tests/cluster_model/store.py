"""The store's own steps: replication, promotions, changes of the standby, crashes, cancelled waits,
trims, and the passing of time."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cluster_model.state import NOBODY, Log, Server, State, Writer
from tests.cluster_model.view import Step, View, Violation, again, given_up, index, position, put


def store_steps(view: View) -> Iterator[Step]:
    """The store's steps."""
    state, left = view.state, view.state.left
    for s, server in enumerate(state.servers):
        if server.promoted or server.dead or server.parent == NOBODY:
            continue
        if server.received < len(view.whole[server.parent]):
            servers = view.with_server(s, received=server.received + 1)
            yield f"server {s} receives", state._replace(servers=servers)
        yield from _promotions(view, s, server)
    unused = view.unused()
    if unused != NOBODY:
        yield from _attached(view, unused)
    if left.crash:
        yield from _crashes(view)
    for i, writer in enumerate(state.writers):
        if left.cancel and writer.at == "waiting":
            yield f"w{i}'s wait for the standby is cancelled", _cancelled(view, i)
    top = position(view.visible[state.primary])
    if left.trim and top > state.trimmed:
        trimmed = state._replace(trimmed=top, left=left._replace(trim=left.trim - 1))
        yield f"the log is trimmed to {top}", trimmed
    if view.config.expiry and not state.now:
        yield "time passes", state._replace(now=1)


def _promotions(view: View, s: int, server: Server) -> Iterator[Step]:
    state = view.state
    is_standby = view.primary.names == s
    lowest = server.received
    if view.config.lossy:
        lowest = 0
    elif not is_standby or (server.received < state.goal and view.broken != "standby-behind"):
        return
    for entries in range(lowest, server.received + 1):
        yield f"server {s} is promoted with {entries}", _promoted(view, s, entries)


def _promoted(view: View, s: int, entries: int) -> State:
    state, server = view.state, view.state.servers[s]
    log = view.whole[server.parent][:entries]
    if entries < state.seen // 2 and not view.config.lossy:
        raise Violation(f"state {state.seen} was seen, and {entries} entries survive the promotion")
    standby = view.unused()
    servers = view.with_server(s, received=entries, promoted=True, visible=entries, names=standby)
    if standby != NOBODY:
        # Until it has everything, nothing is acknowledged.
        servers = put(servers, standby, Server(parent=s, received=entries))
    if view.primary.names != s:
        # The operator has made sure that the old primary acknowledges nothing more.
        servers = tuple(
            each if i == s or each.parent == s or _unused(i, each) else each._replace(dead=True)
            for i, each in enumerate(servers)
        )
    promoted = state._replace(servers=servers, primary=s, goal=0)
    if view.primary.names == s and entries == server.received:
        return promoted
    # Requests in flight may have seen what is lost.
    return promoted._replace(
        seen=_still_seen(view, log),
        readers=tuple(given_up(reader) for reader in state.readers),
        writers=tuple(w if w.at == "idle" else Writer("ended") for w in state.writers),
    )


def _unused(i: int, server: Server) -> bool:
    return i > 0 and server.parent == NOBODY


def _still_seen(view: View, log: Log) -> int:
    """The newest seen state that a log has, too."""
    pairs = zip(log, view.history, strict=False)
    common = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
    if common is None:
        common = min(len(log), len(view.history))
    seen = view.state.seen
    if seen // 2 <= common:
        return seen
    kept = (i for i, (_, each) in enumerate(log[:common], 1) if view.changes_key(each))
    return max((2 * i for i in kept), default=0)


def _attached(view: View, unused: int) -> Iterator[Step]:
    state, left = view.state, view.state.left
    servers = view.with_server(unused, parent=state.primary)
    if left.spare:
        attached = state._replace(servers=servers, left=left._replace(spare=left.spare - 1))
        yield f"server {unused} becomes an asynchronous standby", attached
    if left.change and view.primary.names != NOBODY:
        named = servers[state.primary]._replace(names=unused)
        yield f"server {unused} becomes the standby", state._replace(
            servers=put(servers, state.primary, named),
            goal=len(view.history),
            left=left._replace(change=left.change - 1),
        )


def _crashes(view: View) -> Iterator[Step]:
    for s, server in enumerate(view.state.servers):
        if server.promoted and view.waits(s):
            yield f"server {s} crashes and restarts as a primary", _crashed(view, s)


def _crashed(view: View, s: int) -> State:
    state = view.state
    connected = [node.server == s for node in state.nodes]

    def cut(writer: Writer) -> Writer:
        if writer.server != s or writer.at not in ("begun", "waiting"):
            return writer
        return writer._replace(at="in doubt") if view.config.tokens else Writer("ended")

    pairs = zip(state.readers, view.config.readers, strict=True)
    return state._replace(
        servers=view.with_server(s, visible=len(view.whole[s])),
        locks=put(state.locks, s, NOBODY),
        left=state.left._replace(crash=state.left.crash - 1),
        writers=tuple(cut(writer) for writer in state.writers),
        nodes=tuple(n._replace(question=None) if n.server == s else n for n in state.nodes),
        readers=tuple(again(r) if connected[n] and r.at != "answered" else r for r, n in pairs),
    )


def _cancelled(view: View, i: int) -> State:
    state, server = view.state, view.state.writers[i].server
    at = index(view.whole[server], i)
    assert at is not None
    return view.with_writer(
        i,
        "committed" if view.broken == "warning-is-no-ack" else "ended",
        servers=view.shown(server, at + 1),
        locks=view.unlocked(i, server),
        left=state.left._replace(cancel=state.left.cancel - 1),
    )
