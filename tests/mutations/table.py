"""The mistakes that the tests must find, by name."""

from __future__ import annotations

from typing import Final

from tests.mutations import (
    bounds,
    callers,
    clients,
    cluster,
    coherence,
    connections,
    few_values,
    figures,
    identity,
    inputs,
    memcached,
    moving,
    parsing,
    resources,
    running,
    semantics,
    sharing,
    short_lists,
    storing,
    telling,
    tls,
    watching,
)

TABLES: Final = tuple(
    each.MUTATIONS
    for each in (
        memcached,
        coherence,
        watching,
        semantics,
        sharing,
        clients,
        cluster,
        callers,
        identity,
        parsing,
        bounds,
        running,
        storing,
        moving,
        telling,
        tls,
        connections,
        few_values,
        short_lists,
        figures,
        inputs,
        resources,
    )
)
MUTATIONS: Final = {name: each for table in TABLES for name, each in table.items()}
