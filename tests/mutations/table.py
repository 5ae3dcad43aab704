"""The mistakes that the tests must find, by name."""

from __future__ import annotations

from typing import Final

from tests.mutations import coherence, memcached, watching

TABLES: Final = (memcached.MUTATIONS, coherence.MUTATIONS, watching.MUTATIONS)
MUTATIONS: Final = {name: each for table in TABLES for name, each in table.items()}
