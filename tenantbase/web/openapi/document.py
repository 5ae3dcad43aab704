"""The OpenAPI 3.1 document, generated from the types that validate requests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web

from tenantbase import __version__
from tenantbase.database import Limits
from tenantbase.problem_types import MEDIA_TYPE
from tenantbase.web import responses
from tenantbase.web.answer import Answer
from tenantbase.web.caller import ADMINISTRATIVE, PUBLIC
from tenantbase.web.handlers.health import PROBES
from tenantbase.web.naming import X_REQUEST_ID
from tenantbase.web.openapi.model import KEY, TENANT, Operation, Parameter, Reply, Schema, Shape
from tenantbase.web.openapi.operations import OPERATIONS
from tenantbase.web.openapi.page import POLICY, page
from tenantbase.web.openapi.schemas import Problem
from tenantbase.web.problems import KINDS, Row
from tenantbase.web.semantics.conditions import has_tag
from tenantbase.web.semantics.targets import NOTHING, query
from tenantbase.web.settings import WebSettings

Json = dict[str, Any]

_ANY_REQUEST: Final = (
    "invalid-request",
    "uri-too-long",
    "unsupported-content-encoding",
    "expectation-failed",
    "misdirected-request",
    "header-too-large",
    "unsupported-transfer-coding",
    "internal-error",
)
# Of routes that need a token while the database is closed.
_ANY_CALLER: Final = ("unauthenticated", "forbidden", "no-such-tenant")
_PROBLEM_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "unauthenticated": ("WWW-Authenticate",),
    "rate-limited": ("RateLimit-Policy", "RateLimit"),
}
_HEADERS: Final[dict[str, str]] = {
    "Accept-Ranges": "`bytes`",
    "Cache-Control": "Revalidate before each use, or do not store.",
    "Content-Disposition": "`attachment`, for content that a browser might run.",
    "Content-Range": "The range of bytes, and the size of the value.",
    "Content-Encoding": "`br` or `gzip`, if the client accepts one of them.",
    "Content-Security-Policy": "What the page may load and run: nothing, or the console's own files.",
    "Cross-Origin-Opener-Policy": "`same-origin`",
    "ETag": "The version of the entry, in quotes; of a page, a digest.",
    "Link": "The next page, as `rel=next`, relative to the request target.",
    "Location": "The URL of the value, relative to the request target.",
    "RateLimit": "Requests left, and seconds until there is one (IETF draft).",
    "RateLimit-Policy": "The tenant's limit (IETF draft).",
    "Referrer-Policy": "`no-referrer`",
    "Retry-After": "Seconds to wait before the next attempt.",
    "Vary": "`Accept-Encoding`: a large answer is compressed if the client accepts that.",
    "WWW-Authenticate": "`Bearer`",
    "X-Accel-Buffering": "`no`: proxies must not buffer events.",
    "X-Cache": "`HIT`, `MISS`, `STALE`: a copy that `max-stale` permitted, or `BYPASS`: the cache was off or"
    " unavailable, or a write was in flight.",
    "X-Content-Type-Options": "`nosniff`",
    "X-Request-ID": "The request's id in the log: the client's, if it sent a safe one.",
}

# Descriptions of fields, by name, since a name means the same nearly everywhere.
_FIELDS: Final[dict[str, Json]] = {
    "key": {**KEY, "description": "1 to 1,024 bytes of UTF-8; any character except U+0000."},
    "keys": {"description": "Keys. Duplicates count once."},
    "prefix": {"description": "Literal text that the keys begin with."},
    "value": {"description": "Any JSON value, kept as its text; with `encoding`, a string."},
    "encoding": {
        "description": "The value is a string: `utf-8`: text; `base64`: encoded bytes, not JSON."
    },
    "content_type": {"description": "The media type of the value."},
    "ttl": {"exclusiveMinimum": 0, "description": "Seconds until it expires."},
    "expires_at": {"description": "When it expires, in Unix seconds."},
    "if_version": {"description": "Only if the entry has this version."},
    "if_absent": {"description": "Only if the key does not exist."},
    "keep_ttl": {"description": "Keep the expiry that the entry has."},
    "to": {**KEY, "description": "The other key."},
    "copy": {"description": "The entry also stays where it is."},
    "replace": {"description": "An entry at `to` is replaced, and its id is kept."},
    "entries": {"description": "Keys, each at most once, with their conditions."},
    "return_values": {"description": "Return the entries that are removed."},
    "size": {"description": "The size of the value in bytes."},
    "by": {"description": "The amount to add; may be negative."},
    "initial": {"description": "The value that an absent key counts as."},
    "id": {
        "format": "uuid",
        "description": "Created with the key, and kept until it is deleted or expires.",
    },
    "version": {"description": "Grows with every change in the database, never used twice."},
    "created": {"description": "Whether the key is new."},
    "cursor": {"description": "The `cursor` parameter of the next page; null after the last."},
    "missing": {"description": "The keys that do not exist."},
    "deleted": {"description": "The number of removed entries."},
    "type": {"format": "uri", "description": "The type of problem; stable."},
    "title": {"description": "The type of problem, for people."},
    "detail": {"description": "What went wrong with this request, for people."},
    "field": {"description": "The offending field, parameter or header."},
}


class Description:
    """The routes ``/openapi.json`` and ``/docs``."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings

    @cached_property
    def _document(self) -> Json:
        return description(self._settings)

    @cached_property
    def _json(self) -> bytes:
        return msgspec.json.encode(self._document)

    @cached_property
    def _page(self) -> bytes:
        return page(self._document).encode()

    async def openapi(self, request: web.Request) -> Answer:
        """``GET /openapi.json``"""
        query(request, NOTHING)
        return _tagged(request, responses.collection(self._json))

    async def docs(self, request: web.Request) -> Answer:
        """``GET /docs``"""
        query(request, NOTHING)
        return _tagged(request, responses.page(self._page, POLICY))


def _tagged(request: web.Request, answer: Answer) -> Answer:
    """The answer with an entity tag of its content, or 304. The tag is weak, because the answer may
    be compressed on its way."""
    assert isinstance(answer.body, bytes)
    tag = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    answer.headers[responses.ETAG] = f"W/{tag}"
    if not has_tag(request, tag):
        return answer
    del answer.headers[hdrs.CONTENT_TYPE]
    return Answer(304, answer.headers)


def description(settings: WebSettings) -> Json:
    """The OpenAPI document of a server with these settings."""
    shapes = _shapes()
    _, schemas = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        _explain(schema, settings.limits)
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        item = paths.setdefault(operation.path, {})
        item[operation.method] = _operation(operation)
        if operation.method == "get":
            item["head"] = _head(item["get"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tenantbase",
            "version": __version__,
            "summary": "A key-value service: durable in SQLite, accelerated by memcached.",
            "description": "Every error is a problem document (RFC 9457), including the general"
            " errors of HTTP. `HEAD` works wherever `GET` does.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
            "responses": {
                name: _problem(kinds)
                for operation in OPERATIONS
                for name, kinds in _problems(operation).values()
            },
        },
    }


def _shapes() -> list[Shape]:
    """Every type of a request or an answer."""
    shapes: dict[Shape, None] = {Problem: None}
    for operation in OPERATIONS:
        contents: list[object] = [*operation.body.values()]
        for reply in operation.replies:
            contents += reply.content.values()
        for content in contents:
            for shape in content if isinstance(content, tuple) else (content,):
                if isinstance(shape, type):
                    shapes[shape] = None
    return list(shapes)


def _explain(schema: Json, limits: Limits) -> None:
    """Describe the fields in the schema of a type."""
    schema["description"] = schema["description"].replace("``", "`")
    for name, field in schema.get("properties", {}).items():
        if "description" in field:  # a type describes any field whose meaning differs
            continue
        field.update(_FIELDS.get(name, {}))
        if name == "value":
            field["description"] += f" At most {limits.max_value_bytes:,} bytes."
        elif name == "keys":
            field["items"] = KEY
            field["description"] += f" At most {limits.max_batch_entries:,}."
        elif name == "values":
            field["description"] = f"At most {limits.max_batch_entries:,} in a request."


def _operation(operation: Operation) -> Json:
    parameters = operation.parameters
    if operation.path not in PUBLIC:
        parameters += (TENANT,)
    document: Json = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text,
        "parameters": [_parameter(parameter) for parameter in parameters],
        "responses": {
            **{str(reply.status): _reply(reply) for reply in operation.replies},
            **{
                status: {"$ref": f"#/components/responses/{name}"}
                for status, (name, _) in _problems(operation).items()
            },
        },
        "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": operation.example}],
    }
    if operation.body:
        document["requestBody"] = {
            "required": operation.body_required,
            "content": {kind: {"schema": _schema(body)} for kind, body in operation.body.items()},
        }
    return document


def _head(get: Json) -> Json:
    """The ``HEAD`` operation of a ``GET`` operation: the same without content."""
    responses = {
        status: {name: part for name, part in response.items() if name != "content"}
        for status, response in get["responses"].items()
        if status != "206"  # Range is defined for GET only
    }
    return {
        **{
            name: part for name, part in get.items() if name not in ("requestBody", "x-codeSamples")
        },
        "operationId": get["operationId"] + "Head",
        "summary": get["summary"] + ": the headers only",
        "description": "",
        "responses": responses,
    }


def _schema(content: Shape | Schema | tuple[Shape, ...]) -> Schema:
    if isinstance(content, type):
        return {"$ref": f"#/components/schemas/{content.__name__}"}
    if isinstance(content, tuple):
        schemas = [_schema(shape) for shape in content]
        return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return content


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.text,
        "schema": parameter.schema,
    }


def _reply(reply: Reply) -> Json:
    document: Json = {
        "description": reply.text,
        "headers": {
            **{name: _header(name, True) for name in reply.headers},
            **{name: _header(name, False) for name in (*reply.sometimes, X_REQUEST_ID)},
        },
    }
    if reply.content:
        document["content"] = {
            kind: {"schema": _schema(content)} for kind, content in reply.content.items()
        }
    return document


def _header(name: str, always: bool) -> Json:
    return {
        "description": _HEADERS[name],
        "required": always,
        "schema": {"type": "string"},
    }


def _problems(operation: Operation) -> dict[str, tuple[str, list[Row]]]:
    """The problems of an operation by status: a name for them, and their types."""
    names = {*_ANY_REQUEST, *operation.problems}
    if operation.path not in PUBLIC:
        names.update(_ANY_CALLER)
    if operation.path not in PUBLIC | ADMINISTRATIVE:
        names.add("rate-limited")
    if operation.path not in PROBES:
        names.add("over-limit")
    by_status: dict[int, list[Row]] = {}
    for name in sorted(names):
        by_status.setdefault(KINDS[name].status, []).append(KINDS[name])
    return {
        str(status): ("-or-".join(kind.type for kind in kinds), kinds)
        for status, kinds in sorted(by_status.items())
    }


def _problem(kinds: Sequence[Row]) -> Json:
    examples = {
        kind.type: {
            "value": {
                "type": kind.type.uri,
                "title": kind.title,
                "status": kind.status,
                "detail": "...",
            }
        }
        for kind in kinds
    }
    return {
        "description": ". ".join(kind.title for kind in kinds) + ".",
        "headers": {
            name: _header(name, len(kinds) == len(having))
            for name, having in _problem_headers(kinds).items()
        }
        | {X_REQUEST_ID: _header(X_REQUEST_ID, True)},
        "content": {MEDIA_TYPE: {"schema": _schema(Problem), "examples": examples}},
    }


def _problem_headers(kinds: Sequence[Row]) -> dict[str, list[Row]]:
    """The header fields of answers with these problems, each with the problems that have it."""
    found: dict[str, list[Row]] = {}
    for kind in kinds:
        names = _PROBLEM_HEADERS.get(kind.type, ())
        for name in ("Retry-After", *names) if kind.retry else names:
            found.setdefault(name, []).append(kind)
    return found
