"""The mistakes that the tests must find, by name."""

from __future__ import annotations

from typing import Final

from tests.mutations import clients, coherence, memcached, semantics, watching

TABLES: Final = tuple(
    each.MUTATIONS for each in (memcached, coherence, watching, semantics, clients)
)
MUTATIONS: Final = {name: each for table in TABLES for name, each in table.items()}
