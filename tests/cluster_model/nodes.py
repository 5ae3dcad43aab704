"""What nodes do: they join a server, restart, and ask questions for their readers."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cluster_model.state import NO_TABLE, NOBODY, Node, Question, Reader
from tests.cluster_model.view import Step, View, again, given_up, position, put


def node_steps(view: View, n: int) -> Iterator[Step]:
    """The steps of a node."""
    state, node = view.state, view.state.nodes[n]
    primary = state.primary
    if (node.server, node.standby) != (primary, view.primary.names):
        # Joining is a commit, too.
        if view.confirmed(primary, len(view.history)):
            yield f"node {n} joins server {primary}", view.with_node(n, _joined(view, node), again)
    if state.left.restart:
        fresh = Node(node.server, node.standby, NO_TABLE, NO_TABLE)
        restarted = view.with_node(n, fresh, given_up)
        left = state.left._replace(restart=state.left.restart - 1)
        yield f"node {n} restarts", restarted._replace(left=left)
    if node.question is not None:
        yield from _confirm(view, n, node.question)
        return
    readers = zip(state.readers, view.config.readers, strict=True)
    wanted = any(reader.at == "begun" and at == n for reader, at in readers)
    if wanted or state.left.watch:
        left = state.left if wanted else state.left._replace(watch=state.left.watch - 1)
        question = _question(view, node)
        asked = view.with_node(
            n, node._replace(question=question), lambda r: _move(r, "begun", "asked")
        )
        yield f"node {n} asks server {node.server}: {question}", asked._replace(left=left)


def _joined(view: View, node: Node) -> Node:
    primary, names = view.state.primary, view.primary.names
    known = view.survives(node.server, node.position, primary)
    if known or (view.broken == "term-table" and view.descends(primary, node.server)):
        return Node(primary, names, node.position, node.change, node.now)
    return Node(primary, names, NO_TABLE, NO_TABLE, node.now)


def _move(reader: Reader, before: str, after: str) -> Reader:
    return reader._replace(at=after) if reader.at == before else reader


def _question(view: View, node: Node) -> Question:
    log, trimmed = view.visible[node.server], view.state.trimmed
    top = position(log)
    if node.position < trimmed or node.position == NO_TABLE:
        # Some changes are not known: a new table, which trusts no older item.
        change = view.last_change(log, trimmed) if view.broken == "join-floor" else top
    else:
        change = view.last_change(log, node.position)
    names = view.state.servers[node.server].names
    return Question(top, change, len(view.whole[node.server]), len(log), names, view.state.now)


def _confirm(view: View, n: int, question: Question) -> Iterator[Step]:
    """The answer to a question enters the table once it is confirmed."""
    state, node = view.state, view.state.nodes[n]
    table = max(node.position, question.position), max(node.change, question.change)
    now = node.now if view.broken == "expiry-now" else max(node.now, question.now)
    state_then = view.with_node(
        n, Node(node.server, node.standby, *table, now), lambda r: _move(r, "asked", "answered")
    )
    if not view.witness or node.standby == NOBODY:
        if view.confirmed(node.server, question.entries) or view.broken == "confirm-index":
            yield f"node {n}'s answer is confirmed", state_then
        return
    if state.servers[node.standby].dead:
        return
    answer, earlier = view.answer_of(node.standby), state.heard[n]
    answers = [answer]
    if view.broken == "witness-after-begin":
        answers += [earlier] if earlier is not None else []
        if earlier != answer:
            heard = put(state.heard, n, answer)
            yield f"node {n} hears from the standby", state._replace(heard=heard)
    for answer in answers:
        if view.witnessed(node, question.names, question.visible, answer):
            yield f"node {n}'s answer is confirmed by the standby: {answer}", state_then
