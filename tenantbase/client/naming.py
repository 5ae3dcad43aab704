"""Request ids: the name that a request has in the logs of both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from tenantbase.request_context import is_safe_id

X_REQUEST_ID: Final = "X-Request-ID"
_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


@contextmanager
def request_id(id: str) -> Iterator[None]:
    """Give every request inside the block this id, also those of tasks started there.

    The server uses it in its log and in error answers.

    Args:
        id: 1 to 128 of the characters that servers accept: letters, digits and ``-._~:/+=@``.

    Raises:
        ValueError: the id is not valid.
    """
    if not is_safe_id(id):
        raise ValueError("a request id is 1 to 128 letters, digits and -._~:/+=@")
    before = _ID.set(id)
    try:
        yield
    finally:
        _ID.reset(before)


def with_request_id(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers of a request, with the id of the running block, if there is one."""
    id = _ID.get()
    return headers if id is None else {**headers, X_REQUEST_ID: id}
