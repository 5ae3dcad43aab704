"""What nodes do: they join a server, restart, and ask questions for their readers."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cluster_model.state import NO_TABLE, Node, Question, Reader
from tests.cluster_model.view import Step, View, again, given_up, position, put


def node_steps(view: View, n: int) -> Iterator[Step]:
    """The steps of a node."""
    state, node = view.state, view.state.nodes[n]
    if node.server == 0 and state.promoted:
        keep = node.position <= view.inherited or view.broken == "term-table"
        joined = Node(1, node.position, node.change) if keep else Node(1, NO_TABLE, NO_TABLE)
        yield f"node {n} joins server 1", view.with_node(n, joined, again)
    if state.left.restart:
        restarted = view.with_node(n, Node(node.server, NO_TABLE, NO_TABLE), given_up)
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
    return Question(top, change, len(view.whole[node.server]), len(log))


def _confirm(view: View, n: int, question: Question) -> Iterator[Step]:
    """The answer to a question enters the table once it is confirmed."""
    state, node = view.state, view.state.nodes[n]
    table = max(node.position, question.position), max(node.change, question.change)
    state_then = view.with_node(
        n, Node(node.server, *table), lambda r: _move(r, "asked", "answered")
    )
    if not view.witness or node.server == 1:
        if view.confirmed(node.server, question.entries) or view.broken == "confirm-index":
            yield f"node {n}'s answer is confirmed", state_then
        return
    now, earlier = view.standby(), state.heard[n]
    answers = [now]
    if view.broken == "witness-after-begin":
        answers += [earlier] if earlier is not None else []
        if earlier != now:
            heard = put(state.heard, n, now)
            yield f"node {n} hears from the standby", state._replace(heard=heard)
    for answer in answers:
        if view.witnessed(answer, question.visible):
            yield f"node {n}'s answer is confirmed by the standby: {answer}", state_then
