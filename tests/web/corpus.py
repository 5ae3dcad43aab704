"""Requests as bytes: plain ones, and those of every other kind."""

from __future__ import annotations

from tests.wire import request

LAST = request("GET", "/livez", headers={"Connection": "close"})
"""A request that ends the connection."""
AGENT = {"Host": "localhost:8000", "User-Agent": "curl/7.88.1", "Accept": "*/*"}

PLAIN = {
    "value": request("GET", "/get-value?key=plain", headers=AGENT),
    "absent": request("GET", "/get-value?key=absent"),
    "raw": request("GET", "/v1/values/plain"),
    "raw html": request("GET", "/v1/values/page/1"),
    "raw absent": request("GET", "/v1/values/absent"),
    "health": request("GET", "/health-check", headers=AGENT),
    "set": request("POST", "/set-value", '{"key": "w", "value": [1.0]}', AGENT),
    "values": request("POST", "/get-values", '{"keys": ["plain", "absent", "page/1", "plain"]}'),
    "no values": request("POST", "/get-values", '{"keys": ["absent"]}'),
    "values of no keys": request("POST", "/get-values", '{"keys": []}'),
    "compressed values": request(
        "POST", "/get-values", '{"keys": ["plain"]}', {"Accept-Encoding": "gzip"}
    ),
    "list": request("GET", "/get-values?prefix=plain&limit=5", headers=AGENT),
    "list, absent": request("GET", "/get-values?prefix=abs%65nt&limit=5"),
    "list without a limit": request("GET", "/get-values?prefix=plain"),
    "list without a query": request("GET", "/get-values?"),
    "compressed list": request(
        "GET", "/get-values?limit=5&prefix=plain", headers={"Accept-Encoding": "gzip"}
    ),
    "list, no number": request("GET", "/get-values?limit=five"),
    "list of folders": request("GET", "/get-values?limit=5&delimiter=/"),
    "escaped key": request("GET", "/get-value?key=pl%61in"),
    "escaped path": request("GET", "/v1/values/page%2F1"),
    "behind a proxy": request(
        "GET",
        "/get-value?key=plain",
        headers={"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "Via": "1.1 a"},
    ),
    "traced": request("GET", "/get-value?key=plain", headers={"traceparent": "00-1-2-01"}),
    "from a script": request("GET", "/v1/values/plain", headers={"Sec-Fetch-Mode": "cors"}),
    "with a token": request("GET", "/v1/values/plain", headers={"Authorization": "Bearer x"}),
    "same origin": request(
        "POST",
        "/set-value",
        '{"key": "w", "value": 1}',
        {"Host": "localhost:1", "Origin": "http://localhost:1"},
    ),
    "delete": request("DELETE", "/delete-value?key=gone"),
    "delete raw": request("DELETE", "/v1/values/gone"),
    "set as a form": request(
        "POST", "/set-value", '{"key": "w", "value": 1}', {"Content-Type": "text/x"}
    ),
}

RARE = {
    "condition": request("GET", "/get-value?key=plain", headers={"If-None-Match": '"1"'}),
    "range": request("GET", "/v1/values/plain", headers={"Range": "bytes=0-0"}),
    "head": request("HEAD", "/get-value?key=plain"),
    "upgrade": request("GET", "/get-value?key=plain", headers={"Upgrade": "h2c"}),
    "broken escape": request("GET", "/get-value?key=a%2"),
    "escape, no UTF-8": request("GET", "/v1/values/%FF"),
    "delete, condition fails": request("DELETE", "/v1/values/plain", headers={"If-Match": '"9"'}),
    "delete with body": request("DELETE", "/delete-value", '{"key": "gone"}'),
    "key with a plus": request("GET", "/get-value?key=a+b"),
    "two parameters": request("GET", "/get-value?key=a&key=b"),
    "no key": request("GET", "/get-value?key="),
    "long key": request("GET", "/get-value?key=" + "k" * 1025),
    "foreign host": request("GET", "/get-value?key=plain", headers={"Host": "evil.example"}),
    "two hosts": request(
        "GET", "/get-value?key=plain", headers=[("Host", "localhost"), ("Host", "localhost")]
    ),
    "no host": b"GET /get-value?key=plain HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "old version": request("GET", "/get-value?key=plain", version="1.0"),
    "close": request("GET", "/get-value?key=plain", headers={"Connection": "close"}),
    "folded": b"GET /get-value?key=plain HTTP/1.1\r\nHost: localhost\r\nAccept: a\r\n b\r\n\r\n",
    "bare line feed": b"GET /get-value?key=plain HTTP/1.1\nHost: localhost\n\n",
    "get with body": request("GET", "/get-value", '{"key": "plain"}'),
    "get with key and body": request("GET", "/get-value?key=plain", '{"key": "other"}'),
    "set from a page": request(
        "POST", "/set-value", '{"key": "w", "value": 1}', {"Origin": "http://evil.example"}
    ),
    "set, no JSON": request("POST", "/set-value", "{"),
    "set, no value": request("POST", "/set-value", '{"key": "w"}'),
    "set, unknown field": request("POST", "/set-value", '{"key": "w", "value": 1, "x": 2}'),
    "set, condition fails": request(
        "POST", "/set-value", '{"key": "plain", "value": 1, "if_absent": true}'
    ),
    "set, too large": request("POST", "/set-value", '{"key": "w", "value": "%s"}' % ("x" * 70_000)),
    "values, no JSON": request("POST", "/get-values", '{"keys": ["plain"'),
    "values, unknown field": request("POST", "/get-values", '{"keys": ["plain"], "x": 1}'),
    "values, not a key": request("POST", "/get-values", '{"keys": ["plain", ""]}'),
    "values, fresh": request(
        "POST", "/get-values", '{"keys": ["plain"]}', {"Cache-Control": "no-cache"}
    ),
    "set, no body": request("POST", "/set-value"),
    "set, chunked": request(
        "POST",
        "/set-value",
        b"18\r\n" + b'{"key": "w", "value": 1}' + b"\r\n0\r\n\r\n",
        {"Transfer-Encoding": "chunked"},
    ),
    "set, smuggling": request(
        "POST",
        "/set-value",
        '{"key": "w", "value": 1}',
        {"Content-Length": "24", "Transfer-Encoding": "chunked"},
    ),
    "set, encoded": request(
        "POST", "/set-value", '{"key": "w", "value": 1}', {"Content-Encoding": "gzip"}
    ),
    "set, two lengths": request(
        "POST",
        "/set-value",
        '{"key": "w", "value": 1}',
        [("Content-Length", "24"), ("Content-Length", "24")],
    ),
    "set, signed length": request(
        "POST", "/set-value", '{"key": "w", "value": 1}', {"Content-Length": "+24"}
    ),
    "huge header": request("GET", "/get-value?key=plain", headers={"Accept": "a" * 9_000}),
    "another route": request("GET", "/v1/values?prefix=plain"),
    "list, nothing asked": request("GET", "/get-values"),
    "list, with a fragment": request("GET", "/get-values?prefix=plain#"),
    "list, fresh": request(
        "GET", "/get-values?limit=5&prefix=plain", headers={"Cache-Control": "no-cache"}
    ),
    "list with body": request("GET", "/get-values?limit=5&prefix=plain", "{}"),
    "no route": request("GET", "/get-valuex?key=plain"),
    "wrong method": request("PUT", "/get-value?key=plain"),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}

EVERYTHING = PLAIN | RARE
