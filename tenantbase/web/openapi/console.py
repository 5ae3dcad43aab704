"""The operations that serve the console."""

from __future__ import annotations

from typing import Final

from tenantbase.web.openapi.model import MANY_HEADERS, Operation, Parameter, Reply

_TEXT: Final = {"type": "string"}

CONSOLE: Final = (
    Operation(
        "get",
        "/",
        "console",
        "Service",
        "The console",
        "A page for browsers; a program that does not ask for `text/html` gets a hint as text.",
        (
            Reply(
                200,
                "The page, or the hint.",
                {"text/html": _TEXT, "text/plain": _TEXT},
                (*MANY_HEADERS, "X-Content-Type-Options"),
                (
                    *("Content-Encoding", "Content-Security-Policy", "Cross-Origin-Opener-Policy"),
                    *("ETag", "Referrer-Policy"),
                ),
            ),
            Reply(304, "The client has this page.", {}, (*MANY_HEADERS, "ETag")),
        ),
        "curl -s localhost:8000/",
        problems=("no-such-route",),
    ),
    Operation(
        "get",
        "/assets/{name}",
        "consoleFile",
        "Service",
        "A file of the console",
        "Its name changes with its content, so it may be cached for ever.",
        (
            Reply(
                200,
                "The file.",
                {"text/css": _TEXT, "text/javascript": _TEXT, "image/svg+xml": _TEXT},
                (*MANY_HEADERS, "X-Content-Type-Options"),
                ("Content-Encoding",),
            ),
        ),
        "curl -sH 'Accept: text/html' localhost:8000/ | grep -o 'assets/[^\"]*js'"
        " | xargs -I NAME curl -s localhost:8000/NAME",
        (Parameter("name", "path", _TEXT, "The file's name.", True),),
        problems=("no-such-route",),
    ),
)
