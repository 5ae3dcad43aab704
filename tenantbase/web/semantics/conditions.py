"""Conditional requests: RFC 9110, sections 8.8.3 and 13, and their counterparts in JSON bodies.

An entity tag is the version in quotes. A weak tag, ``W/"7"``, never satisfies ``If-Match``
(strong comparison); ``If-None-Match`` compares weakly. There is no ``Last-Modified``, so conditions
on dates are ignored, as the RFC requires.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from tenantbase.commands import Condition
from tenantbase.errors import ConditionFailed, InvalidRequest

_TAG: Final = re.compile(r'(W/)?"([^"\x00-\x20\x7f]*)"')
_GAP: Final = re.compile(r"[ \t]*(?:,[ \t,]*)?")
# The form of a version. A tag with any other text is legal, but matches no entry.
_VERSION: Final = re.compile("0|[1-9][0-9]{0,18}")


class Tags(NamedTuple):
    """A parsed ``If-Match`` or ``If-None-Match`` header.

    Attributes:
        any: it is ``*``.
        strong: the versions of the strong tags in the list.
        all: the versions of all tags in the list, strong or weak.
    """

    any: bool
    strong: frozenset[int]
    all: frozenset[int]


def parse_tags(text: str, field: str) -> Tags:
    """The tags in a header's value. Raises InvalidRequest."""
    text = text.strip(" \t")
    if text == "*":
        return Tags(True, frozenset(), frozenset())
    strong, every = set(), set()
    position = len(text) - len(text.lstrip(" \t,"))
    if position == len(text):
        raise InvalidRequest(f"{field} lists no entity tag", field)
    while position < len(text):
        tag = _TAG.match(text, position)
        gap = _GAP.match(text, tag.end()) if tag else None
        if tag is None or gap is None or (gap.end() < len(text) and "," not in gap[0]):
            raise InvalidRequest(f'{field} is * or a list of entity tags such as "7"', field)
        if _VERSION.fullmatch(tag[2]):
            version = int(tag[2])
            every.add(version)
            if not tag[1]:
                strong.add(version)
        position = gap.end()
    return Tags(False, frozenset(strong), frozenset(every))


def _header(request: web.BaseRequest, name: str) -> Tags | None:
    if name not in request.headers:
        return None
    return parse_tags(", ".join(request.headers.getall(name)), str(name))


def write_condition(request: web.BaseRequest) -> Condition | None:
    """The condition in a write's headers, or None."""
    match = _header(request, hdrs.IF_MATCH)
    none_match = _header(request, hdrs.IF_NONE_MATCH)
    return header_condition(match, none_match)


def header_condition(match: Tags | None, none_match: Tags | None) -> Condition | None:
    """The condition in these two headers, or None."""
    if match is None and none_match is None:
        return None
    return Condition(
        absent=none_match is not None and none_match.any,
        exists=match is not None and match.any,
        versions=match.strong if match is not None and not match.any else None,
        not_versions=none_match.all if none_match is not None and not none_match.any else None,
    )


def not_modified(request: web.BaseRequest, key: str, version: int) -> bool:
    """Whether to answer a read of an entry of this version with 304.

    Raises:
        ConditionFailed: ``If-Match`` does not hold. It takes precedence (section 13.2.2).
    """
    match = _header(request, hdrs.IF_MATCH)
    if match is not None and not match.any and version not in match.strong:
        raise ConditionFailed(key, version)
    none_match = _header(request, hdrs.IF_NONE_MATCH)
    return none_match is not None and (none_match.any or version in none_match.all)


def has_tag(request: web.BaseRequest, tag: str) -> bool:
    """Whether ``If-None-Match`` lists this entity tag, given in quotes: the client's copy is current.

    For content that is not an entry.
    """
    given = ",".join(request.headers.getall(hdrs.IF_NONE_MATCH, ()))
    return given.strip(" \t") == "*" or any(f'"{each[2]}"' == tag for each in _TAG.finditer(given))


def explained(request: web.BaseRequest, error: Exception) -> Exception:
    """The same error, with the reason added if ``If-Match`` failed only because its tag is weak."""
    if isinstance(error, ConditionFailed) and error.version is not None:
        match = _header(request, hdrs.IF_MATCH)
        if match is not None and error.version in match.all - match.strong:
            error.reason = (
                f'If-Match has it as a weak entity tag, W/"{error.version}", and a weak tag never'
                " matches. Proxies that compress answers make tags weak: send"
                f' "{error.version}", or if_version in the body'
            )
    return error


def range_applies(request: web.BaseRequest, version: int) -> bool:
    """Whether ``Range`` applies: ``If-Range`` is absent or has exactly this tag."""
    given = request.headers.get(hdrs.IF_RANGE)
    return given is None or given.strip(" \t") == f'"{version}"'
