"""Secrets of tokens."""

from __future__ import annotations

import hashlib
import re

from tenantbase.auth.tokens import digest, new_secret


def test_a_secret_has_its_documented_form_and_is_new() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("tb_[A-Za-z0-9_-]{43}", secret) for secret in made)


def test_a_digest_is_the_sha_256() -> None:
    secret = new_secret()
    assert digest(secret) == hashlib.sha256(secret.encode()).digest()


def test_whatever_a_client_sends_has_a_digest() -> None:
    assert len({digest(text) for text in ("", "é", "\udc80", "\0")}) == 4
