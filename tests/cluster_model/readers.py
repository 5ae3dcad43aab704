"""What readers do: they wait for an answer, hit, or read the row and store an item."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cluster_model.state import NO_TABLE, NOBODY, Node, Reader, Row, State
from tests.cluster_model.view import Step, View, Violation, position


def reader_steps(view: View, i: int) -> Iterator[Step]:
    """The steps of a reader."""
    state, reader = view.state, view.state.readers[i]
    node = state.nodes[view.config.readers[i]]
    if reader.at == "idle":
        yield f"r{i} begins", view.with_reader(i, Reader("begun", state.seen, state.now))
    elif reader.at == "begun":
        if view.broken == "ask" and node.position != NO_TABLE:
            taken = view.with_reader(i, reader._replace(at="answered"))
            yield f"r{i} takes the position that its node remembers", taken
        if view.broken == "ask-after-begin" and node.question is not None:
            joined = view.with_reader(i, reader._replace(at="asked"))
            yield f"r{i} joins a question that was sent before", joined
    elif reader.at == "answered":
        for item in state.items:
            if _counts(view, item, node):
                yield f"r{i} hits {item}", _returned(view, i, item[2], node.now)
        yield _select(view, i, node)
    elif reader.at == "row, no position":
        assert reader.row is not None
        row = reader.row._replace(position=position(view.visible[node.server]))
        late = view.with_reader(i, reader._replace(at="row", row=row))
        yield f"r{i} asks for the position afterwards", late
    elif reader.at == "row":
        assert reader.row is not None
        if _confirmed(view, node, reader.row):
            item = (node.server, reader.row.position, reader.row.writer)
            returned = _returned(view, i, reader.row.writer, reader.row.now)
            stored = returned._replace(items=state.items | {item})
            yield f"r{i} returns w{reader.row.writer} and stores it", stored


def _counts(view: View, item: tuple[int, int, int], node: Node) -> bool:
    """Whether an item is a hit."""
    term, at, _ = item
    of_term = view.survives(term, at, node.server) or (
        view.broken == "term-items" and view.descends(node.server, term)
    )
    return of_term and (at >= node.change or view.broken == "compare")


def _select(view: View, i: int, node: Node) -> Step:
    state, log = view.state, view.visible[node.server]
    entries, names = len(view.whole[node.server]), state.servers[node.server].names
    # Expiry is judged at the time of the snapshot.
    row = Row(view.value(log), position(log), entries, len(log), names, max(node.now, state.now))
    at = "row, no position" if view.broken == "snapshot-position" else "row"
    early = {(node.server, row.position, row.writer)}
    items = state.items | early if view.broken == "fill-after-confirm" else state.items
    reader = state.readers[i]._replace(at=at, row=row)
    return f"r{i} selects w{row.writer} at {row.position}", view.with_reader(i, reader, items=items)


def _confirmed(view: View, node: Node, row: Row) -> bool:
    if view.witness and node.standby != NOBODY and not view.state.servers[node.standby].dead:
        return view.witnessed(node, row.names, row.visible, view.answer_of(node.standby))
    return view.confirmed(node.server, row.entries) or view.broken == "confirm-row"


def _returned(view: View, i: int, writer: int, now: int) -> State:
    reader, expired = view.state.readers[i], view.expired(writer, now)
    place = view.place(writer, expired=expired)
    if place is None:
        raise Violation(f"r{i} returns w{writer}, which is lost")
    if place < reader.floor:
        raise Violation(f"r{i} returns state {place}, but {reader.floor} was seen before it began")
    if view.expired(writer, reader.began) and not expired:
        raise Violation(f"r{i} returns w{writer}, which had expired before it began")
    return view.with_reader(i, Reader("ended"), seen=max(view.state.seen, place))
