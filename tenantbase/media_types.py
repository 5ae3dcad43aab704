"""Media types: which are legal, and which contain code that a browser would run."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from tenantbase.errors import InvalidRequest

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~]|\\[\t !-~])*"'
# RFC 9110, section 8.3.1. Nothing in it can end a header line. Blanks may stand on either side of
# an empty parameter. Without possessive quantifiers, a long row of these that does not match would be
# tried with every way to divide the blanks, which takes exponential time. Groups have none: on Python
# 3.11.2, the match of such a group includes what its last, failed repetition consumed.
_MEDIA_TYPE: Final = re.compile(
    rf"{_TOKEN}/{_TOKEN}(?:[ \t]*+;[ \t]*+(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))?)*"
)
_LONGEST: Final = 255

_ACTIVE: Final = frozenset(
    {"text/html", "application/xhtml+xml", "text/xml", "application/xml", "text/xsl"}
)


def check_media_type(text: str, field: str) -> str:
    """Return ``text`` if it is a media type, parameters allowed, of at most 255 characters.

    Raises:
        InvalidRequest: it is not.
    """
    if len(text) > _LONGEST or not _MEDIA_TYPE.fullmatch(text):
        raise InvalidRequest(
            f"expected a media type such as image/png, of at most {_LONGEST} characters", field
        )
    return text


def is_media_type(stored: object) -> bool:
    """Whether this is a text that `check_media_type` accepts."""
    return isinstance(stored, str) and len(stored) <= _LONGEST and _is_media_type(stored)


@lru_cache(maxsize=256)
def _is_media_type(text: str) -> bool:
    return _MEDIA_TYPE.fullmatch(text) is not None


def is_text(content_type: str) -> bool:
    """Whether the type is ``text/*``."""
    return content_type[:5].lower() == "text/"


def is_active(content_type: str) -> bool:
    """Whether a browser that opened it could run code in it: HTML, XML, SVG, scripts."""
    essence = content_type.partition(";")[0].strip().lower()
    return essence in _ACTIVE or essence.endswith("+xml") or "script" in essence
