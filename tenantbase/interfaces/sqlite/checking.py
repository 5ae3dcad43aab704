"""Checks everything in a database, in short queries, beside processes that write to it.

Each query, and what it is compared with, is one small snapshot: what is found was so at one moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Final

from tenantbase.errors import CannotOpen
from tenantbase.events import EventKind
from tenantbase.interfaces.sqlite import row_rules
from tenantbase.interfaces.sqlite.access import damaged_rows
from tenantbase.interfaces.sqlite.driver_errors import concerns_a_row, reason
from tenantbase.interfaces.sqlite.foreign import APPLICATION_ID
from tenantbase.interfaces.sqlite.queries import DELETED, key_batches, last_version, snapshot
from tenantbase.interfaces.sqlite.salvage import SET_ASIDE, known_rows
from tenantbase.interfaces.sqlite.schema import LOWEST_ROW, MIGRATIONS, SECRET_BYTES, migrate
from tenantbase.interfaces.sqlite.usage import recount

_STEP_ROWS: Final = 1_000
_STEP_BYTES: Final = 4 << 20
_MOST_OF_A_KIND: Final = 20  # findings that are reported one by one
_COUNTING_SCHEMA: Final = 3  # the first that counts what each tenant uses
_LIVE_BYTES: Final = 1 << 30  # larger files take seconds to walk page by page, in one snapshot

_COLUMNS: Final = (
    "created, key, version, expires_at, id, content_type, value, typeof(key) || ' ' ||"
    " typeof(version) || ' ' || typeof(expires_at) || ' ' || typeof(id) || ' ' ||"
    " typeof(content_type) || ' ' || typeof(value)"
)
_STEP: Final = f"SELECT {_COLUMNS} FROM entries NOT INDEXED WHERE created > ? ORDER BY created"
_ROW: Final = f"SELECT {_COLUMNS} FROM entries NOT INDEXED WHERE created = ?"
_KEY_INDEX: Final = "sqlite_autoindex_entries_1"
_BY_KEY: Final = f"SELECT key, created FROM entries INDEXED BY {_KEY_INDEX} WHERE key IN ({{}})"
_BY_EXPIRY: Final = (
    "SELECT 1 FROM entries INDEXED BY entries_expiry WHERE expires_at = ? AND created = ?"
)
_WALK_KEYS: Final = (
    f"SELECT key, created FROM entries INDEXED BY {_KEY_INDEX}"
    f" WHERE key > CAST(? AS TEXT) AND typeof(key) = 'text'"
    f" ORDER BY key LIMIT {_STEP_ROWS}"
)
_WALK_EXPIRY: Final = (
    "SELECT expires_at, created FROM entries INDEXED BY entries_expiry"
    " WHERE expires_at IS NOT NULL AND (expires_at, created) > (?, ?)"
    f" ORDER BY expires_at, created LIMIT {_STEP_ROWS}"
)
_OF_ROWS: Final = "SELECT created, {} FROM entries NOT INDEXED WHERE created IN ({})"
_LINES: Final = (
    f"SELECT version, kind, key FROM changes WHERE version > ? ORDER BY version LIMIT {_STEP_ROWS}"
)
_LINE: Final = "SELECT kind, key FROM changes WHERE version = ?"

Report = Callable[[str], object]


class Check:
    """One check of one database.

    Args:
        connection: reads the database; its text becomes bytes.
        report: called with each finding, a line.
        tell: called with the number of entries in each step.

    Attributes:
        rows: how many rows of entries were checked.
        deleted: how many of them are under a deleted prefix, and not removed yet.
        findings: how many there were, also those that were not reported one by one.
        contents: how many of these are about the content of an entry that can be read.
        miscounted: how many of these are about a tenant's usage.
        broken: the first of the others, a line.
    """

    def __init__(
        self, connection: sqlite3.Connection, report: Report, tell: Callable[[int], object]
    ) -> None:
        connection.text_factory = bytes
        self._connection = connection
        self._report = report
        self._tell = tell
        self._of_kind: dict[str, int] = {}
        self._log_is_readable = True
        self.rows = 0
        self.deleted = 0
        self.contents = 0
        self.miscounted = 0
        self.broken: str | None = None

    @property
    def findings(self) -> int:
        return sum(self._of_kind.values())

    def run(self, *, alone: bool) -> None:
        """Check everything.

        Args:
            alone: no other process writes, so that one long snapshot hinders none.

        Raises:
            CannotOpen: it is not a database of ours, or of a newer schema.
            sqlite3.Error: it cannot be read, for another reason than damage.
        """
        self._check_schema()
        if alone or self._bytes() <= _LIVE_BYTES:
            self._sections("structure", self._check_structure)
        self._sections("state", self._check_state)
        self._log_is_readable = self._sections("the change log", self._check_changes)
        with closing(sqlite3.connect("", isolation_level=None)) as seen:
            seen.execute("PRAGMA journal_mode = OFF").fetchall()
            seen.execute("CREATE TABLE seen (version INTEGER PRIMARY KEY, created INTEGER)")
            seen.execute("BEGIN")
            self._check_entries(seen)
        self._sections("deleted prefixes", self._count_deleted)
        self._sections("the index of keys", self._check_key_index)
        self._sections("the index of expiry times", self._check_expiry_index)
        if self._value("PRAGMA user_version") >= _COUNTING_SCHEMA:
            self._sections("access", self._check_access)
            self._sections("usage", self._check_usage)
        for kind, count in self._of_kind.items():
            if count > _MOST_OF_A_KIND:
                self._report(f"{kind}: {count - _MOST_OF_A_KIND:,} more")

    def _found(self, kind: str, text: str, *, broken: bool = True) -> None:
        if broken and self.broken is None:
            self.broken = f"{kind}: {text}"
        self._of_kind[kind] = self._of_kind.get(kind, 0) + 1
        if self._of_kind[kind] <= _MOST_OF_A_KIND:
            self._report(f"{kind}: {text}")

    def _found_in_entry(self, key: object, text: str) -> None:
        self.contents += 1
        self._found("entry", f"{row_rules.shown(key)}: {text}", broken=False)

    def _sections(self, name: str, check: Callable[[], None]) -> bool:
        """Run a part of the check; what cannot be read for damage is a finding.

        Returns: whether everything could be read.
        """
        try:
            check()
        except sqlite3.DatabaseError as error:
            if not (concerns_a_row(error) or type(error) is sqlite3.OperationalError):
                raise
            self._found(name, f"cannot be read to its end: {reason(error)}")
            return False
        return True

    def _value(self, query: str) -> Any:
        (value,) = self._connection.execute(query).fetchone()
        return value

    def _bytes(self) -> int:
        return int(self._value("PRAGMA page_count")) * int(self._value("PRAGMA page_size"))

    def _check_schema(self) -> None:
        if self._value("PRAGMA application_id") != APPLICATION_ID:
            raise CannotOpen("it is not a database of tenantbase")
        version = self._value("PRAGMA user_version")
        if not 0 < version <= len(MIGRATIONS):
            raise CannotOpen(
                f"its schema is {version}, and this tenantbase knows 1 to {len(MIGRATIONS)}"
            )
        query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
            migrate(fresh, MIGRATIONS[:version])
            expected = {name.encode(): sql.encode() for name, sql in fresh.execute(query)}
        there = dict(self._connection.execute(query))
        there.pop(SET_ASIDE.encode(), None)
        for name in sorted(expected.keys() | there.keys()):
            if expected.get(name) != there.get(name):
                how = "missing" if name not in there else "not one of ours"
                self._found("schema", f"{row_rules.shown(name)} is {how}")

    def _check_structure(self) -> None:
        for (text,) in self._connection.execute(f"PRAGMA quick_check({_MOST_OF_A_KIND})"):
            for line in text.decode(errors="replace").splitlines():
                if line != "ok" and not line.startswith("*** in database"):
                    self._found("structure", line)

    def _check_state(self) -> None:
        rows = self._connection.execute("SELECT typeof(secret), secret FROM state LIMIT 2")
        secrets = rows.fetchall()
        if len(secrets) != 1 or secrets[0][0] != b"blob" or len(secrets[0][1]) != SECRET_BYTES:
            self._found("state", "the secret is missing or damaged")
        for version, low, high in self._connection.execute("SELECT * FROM deleted_prefixes"):
            if not (_is_utf8(low) and _is_utf8(high) and low < high):
                self._found("deleted prefixes", f"the range of version {version} is not valid")
            if version > last_version(self._connection):
                self._found("deleted prefixes", f"version {version} was never given out")

    def _check_changes(self) -> None:
        kinds = {str(kind).encode() for kind in EventKind}
        after: int | None = None
        while True:
            with snapshot(self._connection):
                oldest = self._value("SELECT min(version) FROM changes")
                after = (oldest or 1) - 1 if after is None else max(after, (oldest or 1) - 1)
                lines = self._connection.execute(_LINES, (after,)).fetchall()
            if not lines:
                return
            for version, kind, key in lines:
                if version != after + 1:
                    self._found(
                        "the change log", f"versions {after + 1} to {version - 1} are missing"
                    )
                if kind not in kinds or not _is_utf8(key):
                    self._found("the change log", f"the line of version {version} is not valid")
                after = version

    def _check_entries(self, seen: sqlite3.Connection) -> None:
        after = LOWEST_ROW
        try:
            while rows := self._check_step(after, seen):
                after = rows[-1][0]
        except sqlite3.DatabaseError as error:
            if not concerns_a_row(error):
                raise
            self._check_one_by_one(after, seen)

    def _check_step(self, after: int, seen: sqlite3.Connection) -> list[tuple[Any, ...]]:
        with snapshot(self._connection):
            rows, size = [], 0
            with closing(self._connection.execute(_STEP, (after,))) as found:
                for row in found:
                    rows.append(row)
                    size += len(row[6]) if isinstance(row[6], bytes) else 0
                    if len(rows) == _STEP_ROWS or size > _STEP_BYTES:
                        break
            self._check_rows(rows, seen)
        return rows

    def _count_deleted(self) -> None:
        if self._value("SELECT count(*) FROM deleted_prefixes"):
            self.deleted = self._value(f"SELECT count(*) FROM entries WHERE {DELETED}")

    def _check_one_by_one(self, after: int, seen: sqlite3.Connection) -> None:
        """Check what can be reached of a table with damage, and say what cannot be read."""
        for created, key in sorted(known_rows(self._connection, concerns_a_row).items()):
            if created <= after:
                continue
            try:
                with snapshot(self._connection):
                    rows = self._connection.execute(_ROW, (created,)).fetchall()
                    self._check_rows(rows, seen)
            except sqlite3.DatabaseError as error:
                if not concerns_a_row(error):
                    raise
                name = f"number {created}" if key is None else row_rules.shown(key)
                self._found("entry", f"{name} cannot be read: {reason(error)}")
            else:
                if not rows:
                    self._found("entry", f"{row_rules.shown(key)} is in an index, but has no row")

    def _check_rows(self, rows: Sequence[tuple[Any, ...]], seen: sqlite3.Connection) -> None:
        """Check rows of one snapshot, by themselves and against the indexes and the change log."""
        last = oldest = None
        if self._log_is_readable:
            last = last_version(self._connection)
            oldest = self._value("SELECT min(version) FROM changes") or 1
        self._check_keys_are_indexed(rows)
        for row in rows:
            created, key, version, expires_at = row[:4]
            for text in row_rules.mistakes(row, last):
                self._found_in_entry(key, text)
            if isinstance(expires_at, float) and not self._is_indexed(expires_at, created):
                self._found(
                    "the index of expiry times", f"{row_rules.shown(key)} is missing from it"
                )
            if not isinstance(version, int):
                continue
            if not seen.execute(
                "INSERT OR IGNORE INTO seen VALUES (?, ?)", (version, created)
            ).rowcount:
                (other,) = seen.execute(
                    "SELECT created FROM seen WHERE version = ?", (version,)
                ).fetchone()
                self._found_in_entry(
                    key, f"its version, {version}, is also that of {self._key_of(other)}"
                )
            if last is not None and oldest is not None and oldest <= version <= last:
                line = self._connection.execute(_LINE, (version,)).fetchone()
                if line is not None and line != (str(EventKind.SET).encode(), key):
                    self._found_in_entry(
                        key, f"the change log has something else at its version, {version}"
                    )
        self.rows += len(rows)
        self._tell(len(rows))

    def _check_keys_are_indexed(self, rows: Iterable[tuple[Any, ...]]) -> None:
        created_of = {}
        for created, key, *_, types in rows:
            if types.startswith(b"text") and _is_utf8(key):  # else it is a mistake of the row
                created_of[key.decode()] = created
        indexed: dict[bytes, int] = {}
        for marks, batch in key_batches(list(created_of)):
            indexed.update(self._connection.execute(_BY_KEY.format(marks), batch))
        for key, created in created_of.items():
            if indexed.get(key.encode()) != created:
                self._found(
                    "the index of keys", f"{row_rules.shown(key.encode())} is missing from it"
                )

    def _is_indexed(self, expires_at: float, created: int) -> bool:
        found = self._connection.execute(_BY_EXPIRY, (expires_at, created)).fetchone()
        return found is not None

    def _key_of(self, created: int) -> str:
        try:
            row = self._connection.execute(_ROW, (created,)).fetchone()
        except sqlite3.DatabaseError:
            row = None
        return f"row {created}" if row is None else row_rules.shown(row[1])

    def _check_key_index(self) -> None:
        after = b""  # a key that is not UTF-8 could not be bound as text
        while True:
            with snapshot(self._connection):
                found = self._connection.execute(_WALK_KEYS, (after,)).fetchall()
                self._compare("the index of keys", "key", found)
            if not found:
                return
            after, _ = found[-1]

    def _check_expiry_index(self) -> None:
        after = (float("-inf"), 0)
        while True:
            with snapshot(self._connection):
                found = self._connection.execute(_WALK_EXPIRY, after).fetchall()
                self._compare("the index of expiry times", "expires_at", found)
            if not found:
                return
            after = found[-1]

    def _check_access(self) -> None:
        with self._text():
            for text in damaged_rows(self._connection):
                self._found("access", text)

    def _check_usage(self) -> None:
        with self._text():
            for wrong in recount(self._connection):
                if not all(isinstance(count, int) for count in wrong.stored):
                    continue  # a finding of access
                self.miscounted += 1
                self._found(
                    "usage",
                    f"tenant {wrong.name!r} has {wrong.counted[0]:,} entries of"
                    f" {wrong.counted[1]:,} bytes; its counts say {wrong.stored[0]:,} of"
                    f" {wrong.stored[1]:,}",
                    broken=False,
                )

    @contextmanager
    def _text(self) -> Iterator[None]:
        """Text is str in the block."""
        self._connection.text_factory = str
        try:
            yield
        finally:
            self._connection.text_factory = bytes

    def _compare(self, index: str, column: str, found: Sequence[tuple[Any, int]]) -> None:
        """Compare entries of an index with the rows that they point to."""
        rows = dict(self._rows(column, [created for _, created in found]))
        for value, created in found:
            if created not in rows:
                self._found(index, f"{row_rules.shown(value)} is in it, but has no row")
            elif rows[created] != value:
                self._found(
                    index,
                    f"{row_rules.shown(value)} is in it, but its row has"
                    f" {row_rules.shown(rows[created])}",
                )

    def _rows(self, column: str, created: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for at in range(0, len(created), 250):
            batch = created[at : at + 250]
            query = _OF_ROWS.format(column, ", ".join("?" * len(batch)))
            yield from self._connection.execute(query, batch)


def _is_utf8(stored: object) -> bool:
    """Whether a text, or a blob, holds UTF-8."""
    try:
        return isinstance(stored, bytes) and stored.decode() is not None
    except UnicodeDecodeError:
        return False
