"""Entries of one request, stored in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tenantbase.commands import Applied, Set
from tenantbase.errors import InvalidRequest
from tenantbase.json_requests import Read, check_count, place


class SetBatch:
    """Entries to be stored together. Made by ``Database.set_batch``.

    Preparing 10,000 entries takes 20 ms, so a caller that must not block the event loop adds some at a
    time.

    Args:
        to_command: validates an entry and scopes its key.
        write: carries out commands in one transaction, and returns their keys with their results.
    """

    def __init__(
        self,
        to_command: Callable[[Read], Set],
        write: Callable[[list[str], Sequence[Set]], Awaitable[list[tuple[str, Applied]]]],
        max_entries: int,
    ) -> None:
        self._to_command = to_command
        self._write = write
        self._max_entries = max_entries
        self._commands: dict[str, Set] = {}  # by plain key

    def add(self, read: Read) -> None:
        """Add the next entry. Raises InvalidRequest, TooLarge, Forbidden."""
        key = read.given.key
        try:
            command = self._to_command(read)
            if key in self._commands:
                raise InvalidRequest(f"key {key!r} is given twice", "key")
        except InvalidRequest as error:
            place(error, len(self._commands))
            raise
        self._commands[key] = command

    def write(self) -> Awaitable[list[tuple[str, Applied]]]:
        """Store the entries. Called once.

        Returns: keys with their results, in order.

        Raises:
            TooLarge: there are too many. The call raises it, not the awaitable.
        """
        commands, self._commands = self._commands, {}
        check_count(len(commands), self._max_entries, "values")
        return self._write(list(commands), list(commands.values()))
