"""The console: the index page at ``/``, and the files that it loads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import hdrs, web

from tenantbase import __version__
from tenantbase.web.answer import Answer
from tenantbase.web.problems import NoSuchRoute
from tenantbase.web.responses import asset, console_page, hint
from tenantbase.web.semantics.conditions import has_tag
from tenantbase.web.semantics.negotiation import accepted_among, weights

STATIC: Final = Path(__file__).parents[2] / "console" / "static"
"""The committed build of ``console/ui``."""

_PAGE: Final = "index.html"
_HTML: Final = "text/html"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The codings that the build provides, the smallest result first, with their file suffixes.
_CODINGS: Final = {"br": ".br", "gzip": ".gz"}

_OFF: Final = (
    "the console is turned off (--no-console); the API is described at /docs and /openapi.json"
)
_HINT: Final = f"""\
tenantbase {__version__}

Open this address in a browser for the console. The API, for people: /docs, for programs: /openapi.json.

  curl -s HOST/set-value -d '{{"key": "hello", "value": "world"}}'
  curl -s 'HOST/get-value?key=hello'
"""


class File(msgspec.Struct, frozen=True):
    """A file of the console.

    Attributes:
        tag: its entity tag, without quotes.
        bodies: its bytes by content coding, always including ``identity``.
    """

    content_type: str
    tag: str
    bodies: dict[str, bytes]


def _load(directory: Path) -> Iterator[tuple[str, File]]:
    """The files of the build by name, each with its compressed copies."""
    for path in sorted(directory.rglob("*")):
        if path.suffix not in _TYPES:
            continue
        body = path.read_bytes()
        bodies = {"identity": body}
        for coding, suffix in _CODINGS.items():
            copy = path.with_name(path.name + suffix)
            if copy.exists():
                bodies[coding] = copy.read_bytes()
        tag = hashlib.sha256(body).hexdigest()[:32]
        yield path.name, File(_TYPES[path.suffix], tag, bodies)


class Console:
    """The routes of the console. Its files are small, so they are kept in memory.

    Args:
        serves: False with ``--no-console``: both routes answer 404.
    """

    def __init__(self, *, serves: bool) -> None:
        self._files = dict(_load(STATIC)) if serves else {}

    async def page(self, request: web.Request) -> Answer:
        """``GET /``: the page for a browser, a hint for any other program."""
        file = self._files.get(_PAGE)
        if file is None:
            raise NoSuchRoute(_OFF)
        if weights(request.headers.get(hdrs.ACCEPT, "")).get(_HTML, 0.0) <= 0:
            return hint(_HINT.replace("HOST", request.host).encode())
        coding, body = _chosen(file, request)
        tag = f'"{file.tag}-{coding}"'
        return console_page(None if has_tag(request, tag) else body, tag, coding)

    async def asset(self, request: web.Request) -> Answer:
        """``GET /assets/{name}``: a file whose name changes with its content."""
        name = request.match_info["name"]
        file = self._files.get(name)
        if file is None or name == _PAGE:
            raise NoSuchRoute("the console has no such file")
        coding, body = _chosen(file, request)
        return asset(body, file.content_type, coding)


def _chosen(file: File, request: web.Request) -> tuple[str, bytes]:
    """The coding that suits a request, and the file's bytes in it."""
    coding = accepted_among(request.headers.get(hdrs.ACCEPT_ENCODING), file.bodies)
    return coding, file.bodies[coding]
