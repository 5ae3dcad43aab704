"""What the store does by itself: replication, promotion, crashes, cancelled waits, trims."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cluster_model.state import NOBODY, State, Writer
from tests.cluster_model.view import Step, View, Violation, again, given_up, index, position, put


def store_steps(view: View) -> Iterator[Step]:
    """The store's steps."""
    state, left = view.state, view.state.left
    if not state.promoted:
        if state.received < len(state.log):
            yield "the standby receives", state._replace(received=state.received + 1)
        for entries in range(0 if view.config.lossy else state.received, state.received + 1):
            yield f"the standby is promoted with {entries}", _promoted(view, entries)
    if left.crash:
        yield "server 0 crashes and restarts as a primary", _crashed(view)
    for i, writer in enumerate(state.writers):
        if left.cancel and writer.at == "waiting" and writer.server == 0:
            yield f"w{i}'s wait for the standby is cancelled", _cancelled(view, i)
    top = position(view.visible[state.promoted])
    if left.trim and top > state.trimmed:
        trimmed = state._replace(trimmed=top, left=left._replace(trim=left.trim - 1))
        yield f"the log is trimmed to {top}", trimmed


def _promoted(view: View, entries: int) -> State:
    state = view.state
    if entries < state.seen and not view.config.lossy:
        raise Violation(f"version {state.seen} was seen, and {entries} survive the promotion")
    promoted = state._replace(promoted=True, received=entries)
    if entries == state.received:
        return promoted
    kept = (i for i, (_, each) in enumerate(state.log[:entries], 1) if view.changes_key(each))
    # Requests in flight may have seen what is lost.
    return promoted._replace(
        seen=max((i for i in kept if i <= state.seen), default=0),
        readers=tuple(given_up(reader) for reader in state.readers),
        writers=tuple(w if w.at == "idle" else Writer("ended") for w in state.writers),
    )


def _crashed(view: View) -> State:
    state = view.state
    connected = [node.server == 0 for node in state.nodes]

    def cut(writer: Writer) -> Writer:
        if writer.server or writer.at not in ("begun", "waiting"):
            return writer
        return writer._replace(at="in doubt") if view.config.tokens else Writer("ended")

    pairs = zip(state.readers, view.config.readers, strict=True)
    return state._replace(
        visible=len(state.log),
        locks=put(state.locks, 0, NOBODY),
        left=state.left._replace(crash=state.left.crash - 1),
        writers=tuple(cut(writer) for writer in state.writers),
        nodes=tuple(n._replace(question=None) if n.server == 0 else n for n in state.nodes),
        readers=tuple(again(r) if connected[n] and r.at != "answered" else r for r, n in pairs),
    )


def _cancelled(view: View, i: int) -> State:
    state, at = view.state, index(view.state.log, i)
    assert at is not None
    return view.with_writer(
        i,
        "committed" if view.broken == "warning-is-no-ack" else "ended",
        visible=max(state.visible, at + 1),
        locks=view.unlocked(i, 0),
        left=state.left._replace(cancel=state.left.cancel - 1),
    )
