"""A server that gives scripted answers, for tests of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.scripted import Scripted


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with Scripted() as scripted:
        yield scripted
        assert not scripted.answers, "not all was asked for"
