"""The target of a request: its query, and the key in its path, each decoded exactly once.

They are taken from the raw request line. Parsed URLs silently replace invalid UTF-8 and drop
everything after a ``#``, which is illegal in a request, so that a key could be taken for a shorter
one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web

from tenantbase.entry import check_key
from tenantbase.errors import InvalidRequest
from tenantbase.web.problems import NoSuchRoute

VALUES: Final = "/v1/values/"
NOTHING: Final[frozenset[str]] = frozenset()

_BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_NUMBER: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
_INTEGER: Final = re.compile(r"[0-9]{1,19}")


def query(request: web.BaseRequest, known: frozenset[str]) -> dict[str, str]:
    """The query parameters.

    Raises:
        InvalidRequest: a parameter is not in ``known``, is repeated, or is not percent-encoded UTF-8.
    """
    target = request.raw_path
    _, _, text = target.partition("?")
    if "#" in target:
        raise InvalidRequest("write a # in a key or a parameter as %23")
    return parameters_in(text, known)


def parameters_in(text: str, known: frozenset[str]) -> dict[str, str]:
    """The parameters in a query, which has no ``#``. Raises InvalidRequest as ``query`` does."""
    parameters: dict[str, str] = {}
    for pair in text.split("&") if text else ():
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition("=")
        name = _decode(raw_name.replace("+", " "), None)
        if name not in known:
            raise InvalidRequest(f"unknown query parameter {name!r}", name)
        if name in parameters:
            raise InvalidRequest(f"query parameter {name!r} is given more than once", name)
        parameters[name] = _decode(raw_value.replace("+", " "), name)
    return parameters


def path_key(request: web.BaseRequest) -> str:
    """The key in the path: everything after ``/v1/values/``, dots and slashes included.

    Raises:
        InvalidRequest: the key is not legal.
        NoSuchRoute: the path matches the route only after decoding.
    """
    path, _, _ = request.raw_path.partition("?")
    if not path.startswith("/"):  # absolute form: scheme://authority/path
        path = "/" + path.partition("://")[2].partition("/")[2]
    if not path.startswith(VALUES):
        raise NoSuchRoute("there is nothing at this path")
    return check_key(_decode(path[len(VALUES) :], "key"))


def number(parameters: Mapping[str, str], name: str) -> float | None:
    """A parameter as an unsigned decimal number; None if it is absent."""
    text = parameters.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(
            f"{name} must be a number such as 30 or 0.5, of at most 20 digits on either side of the point",
            name,
        )
    return float(text)


def integer(parameters: Mapping[str, str], name: str) -> int | None:
    """A parameter as an unsigned integer; None if it is absent."""
    text = parameters.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise InvalidRequest(f"{name} must be a whole number of at most 19 digits", name)
    return int(text)


def flag(parameters: Mapping[str, str], name: str) -> bool:
    """A parameter that is ``true`` or ``false``; False if it is absent."""
    text = parameters.get(name)
    if text not in (None, "true", "false"):
        raise InvalidRequest(f"{name} must be true or false", name)
    return text == "true"


def _decode(text: str, field: str | None) -> str:
    if "%" not in text and text.isascii():
        return text
    if _BROKEN_ESCAPE.search(text):
        raise InvalidRequest("write a % that does not begin an escape as %25", field)
    try:
        # The parser passes on bytes that are not UTF-8 as lone surrogates.
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError as error:
        raise InvalidRequest("not valid UTF-8", field) from error
