"""How the service serves the console: its headers, its size, and doing without it."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from tenantbase.web.handlers.console import STATIC
from tests.app_server import AppServer

pytestmark = pytest.mark.integration

# Compressed. What the first view needs, and all of it: the rest is read a second later.
FIRST_BYTES = {".js": 44 << 10, ".css": 9 << 10}
ALL_BYTES = 78 << 10
BROWSER = {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "gzip, br"}
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types svelte-trusted-html",
}


def test_the_page(service: AppServer) -> None:
    answer = service.ask("GET", "/", headers={"Accept": "text/html"})
    assert answer.status == 200
    assert set(answer.headers["Content-Security-Policy"].split("; ")) == POLICY
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    page = answer.body.decode()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", page)
    tag = answer.headers["ETag"]
    again = service.ask("GET", "/", headers={"Accept": "text/html", "If-None-Match": f'"x", {tag}'})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    packed = service.ask("GET", "/", headers={**BROWSER, "Accept-Encoding": "gzip"})
    assert gzip.decompress(packed.body).decode() == page
    assert packed.headers["ETag"] != tag, "an entity tag belongs to one coding"


def test_files_are_cached_for_ever(service: AppServer) -> None:
    page = service.ask("GET", "/", headers={"Accept": "text/html"}).body.decode()
    names = re.findall(r'"\./(assets/[^"]+)"', page)
    assert {Path(name).suffix for name in names} == {".js", ".css", ".svg"}
    for name in names:
        assert re.search(r"-[\w-]{8}\.\w+$", name), "a name changes with the content"
        plain = service.ask("GET", f"/{name}")
        assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Content-Encoding" not in plain.headers
        packed = service.ask("GET", f"/{name}", headers={"Accept-Encoding": "gzip;q=0.5, br"})
        assert packed.headers["Content-Encoding"] == "br"
        assert packed.headers["Vary"] == "Accept-Encoding"
        assert len(packed.body) < len(plain.body)
    assert service.ask("GET", "/assets/nope.js").status == 404
    assert service.ask("GET", "/assets/index.html").status == 404


def test_what_the_first_view_needs_is_small() -> None:
    page = (STATIC / "index.html").read_text()
    sizes = {".js": 0, ".css": 0}
    for name in re.findall(r'"\./(assets/[^"]+\.(?:js|css))"', page):
        first = STATIC / name
        sizes[first.suffix] += Path(f"{first}.br").stat().st_size
        # A module that it imports at once is needed as well.
        assert not re.search(r'\bfrom"\./|import"\./', first.read_text())
    assert all(0 < sizes[kind] <= most for kind, most in FIRST_BYTES.items()), sizes


def test_all_of_it_is_small() -> None:
    assert sum(each.stat().st_size for each in (STATIC / "assets").glob("*.br")) <= ALL_BYTES


def test_programs_get_a_hint(service: AppServer) -> None:
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json, text/html;q=0"}):
        answer = service.ask("GET", "/", headers=headers)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "/docs" in answer.body.decode() and "curl" in answer.body.decode()
        assert "Accept" in answer.headers["Vary"]


def test_without_the_console(tmp_path: Path) -> None:
    with AppServer(tmp_path / "db", "--no-console", "--memcached", "off") as server:
        for headers in ({"Accept": "text/html"}, {}):
            answer = server.ask("GET", "/", headers=headers)
            assert answer.status == 404
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert "--no-console" in answer.json["detail"] and "/docs" in answer.json["detail"]
        name = next((STATIC / "assets").glob("*.js")).name
        assert server.ask("GET", f"/assets/{name}").status == 404
