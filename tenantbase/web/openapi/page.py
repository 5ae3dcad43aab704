"""The OpenAPI document as an HTML page without scripts or external resources."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

Json = Mapping[str, Any]

_CODE: Final = re.compile("`([^`]+)`")

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --quiet: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); }
code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; }
section { margin: 2rem 0; }
h3 code { font-size: 1.1rem; }
.method { text-transform: uppercase; font-weight: bold; }
.quiet { color: var(--quiet); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: normal; color: var(--quiet); }
th, td { padding: .3rem .75rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top; }
nav ul { columns: 18rem; list-style: none; padding: 0; }
summary { cursor: pointer; }
"""

# The hash admits this style sheet; the rest of the policy blocks everything else.
POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src"
    f" 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


def page(document: Json) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])} <small class=quiet>{escape(info['version'])}</small></h1>",
            f"<p>{_text(info['summary'])} {_text(info['description'])}",
            ' For programs: <a href="openapi.json">openapi.json</a>.</p>',
            *_contents(document),
            *_operations(document),
            "<h2>Shapes</h2>",
            *_shapes(document),
            "</body></html>",
        ]
    )


def _listed(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Path, method and operation of each operation except HEAD."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "head":
                yield path, method, operation


def _contents(document: Json) -> Iterator[str]:
    yield "<nav><ul>"
    for path, method, operation in _listed(document):
        yield (
            f'<li><a href="#{operation["operationId"]}"><code><span class=method>{method}</span>'
            f" {escape(path)}</code></a></li>"
        )
    yield "</ul></nav>"


def _operations(document: Json) -> Iterator[str]:
    tags = dict.fromkeys(operation["tags"][0] for _, _, operation in _listed(document))
    for tag in tags:
        yield f"<h2>{escape(tag)}</h2>"
        for path, method, operation in _listed(document):
            if operation["tags"] == [tag]:
                yield from _operation(path, method, operation, document["components"]["responses"])


def _operation(path: str, method: str, operation: Json, responses: Json) -> Iterator[str]:
    yield f'<section id="{operation["operationId"]}"><h3><code><span class=method>{method}</span>'
    yield f" {escape(path)}</code></h3><p><strong>{_text(operation['summary'])}.</strong>"
    yield f" {_text(operation['description'])}</p>"
    for sample in operation["x-codeSamples"]:
        yield f"<pre>{escape(sample['source'])}</pre>"
    if operation["parameters"]:
        rows = [
            [
                f"<code>{escape(parameter['name'])}</code>",
                escape(parameter["in"]) + (", required" if parameter["required"] else ""),
                _schema(parameter["schema"]),
                _text(parameter["description"]),
            ]
            for parameter in operation["parameters"]
        ]
        yield from _table(["parameter", "in", "", ""], rows)
    if "requestBody" in operation:
        need = "" if operation["requestBody"]["required"] else " (optional)"
        rows = [
            [f"<code>{escape(kind)}</code>", _schema(content["schema"])]
            for kind, content in operation["requestBody"]["content"].items()
        ]
        yield from _table([f"body{need}", ""], rows)
    answers = operation["responses"].items()
    answered = [_response(status, each) for status, each in answers if "$ref" not in each]
    yield from _table(["answer", "", "", "headers"], answered)
    problems = [
        [status, _text(responses[each["$ref"].rpartition("/")[2]]["description"])]
        for status, each in answers
        if "$ref" in each
    ]
    yield "<details><summary class=quiet>problems</summary>"
    yield from _table(["answer", _schema({"$ref": "Problem"})], problems)
    yield "</details></section>"


def _response(status: str, response: Json) -> list[str]:
    contents = [
        f"<code>{escape(kind)}</code> {_schema(content['schema'])}"
        for kind, content in response.get("content", {}).items()
    ]
    headers = [f"<code>{escape(name)}</code>" for name in response.get("headers", {})]
    return [status, _text(response["description"]), "<br>".join(contents), ", ".join(headers)]


def _shapes(document: Json) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<section id="{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        yield f"<p>{_text(schema['description'])}</p>"
        if "enum" in schema:
            yield f"<p>{_schema(schema)}</p></section>"
            continue
        rows = [
            [
                f"<code>{escape(field)}</code>",
                "required" if field in schema["required"] else "",
                _schema(given),
                _text(given.get("description", "")),
            ]
            for field, given in schema["properties"].items()
        ]
        yield from _table(["field", "", "", ""], rows)
        yield "</section>"


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "<div class=scroll><table><tr>"
    yield from (f"<th>{head}</th>" for head in heads)
    yield "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table></div>"


def _schema(schema: Json) -> str:
    """A schema in a few words, with links to shapes."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_schema(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_schema(schema['items'])}"
    return escape(schema.get("type", "anything"))


def _text(text: str) -> str:
    """Plain text as HTML; `backquotes` mark code."""
    return _CODE.sub(r"<code>\1</code>", escape(text))
