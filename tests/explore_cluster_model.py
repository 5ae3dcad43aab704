"""The read index in every interleaving of large configurations.

Not part of the regular tests, because it takes minutes to hours and gigabytes. Run it with
``scripts/test -n auto tests/explore_cluster_model.py``; ``-k failover`` picks one configuration.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.cluster_model import explore
from tests.cluster_model.state import EXPIRING, KEY, OTHER, PREFIX, A, B, Config

pytestmark = [pytest.mark.torture, pytest.mark.timeout(0)]

_THREE_WRITERS: Final = ((A, KEY), (B, OTHER), (B, KEY))
_CONFIGS: Final = {
    "failover": Config(),
    "one-node": Config(readers=(A, A)),
    "crash": Config(crash=1, cancel=1),
    "neighbour": Config(writers=((A, KEY), (B, OTHER)), readers=(A, A), crash=1),
    "prefix": Config(writers=((A, KEY), (B, PREFIX)), crash=1, cancel=1),
    "prefix-trim": Config(writers=((A, KEY), (B, PREFIX)), restart=1, trim=1),
    "lossy": Config(lossy=True),
    "lossy-neighbour": Config(writers=((A, OTHER), (B, KEY)), readers=(A, A, B), lossy=True),
    "lossy-prefix": Config(writers=((A, PREFIX), (B, KEY)), lossy=True),
    "restart-trim": Config(restart=1, trim=1),
    "tokens": Config(readers=(B,), crash=1, tokens=True),
    "watch": Config(watch=2),
    "lossy-watch": Config(lossy=True, watch=2),
    "three-writers": Config(writers=_THREE_WRITERS),
    "three-readers": Config(readers=(A, A, B)),
    "all-faults": Config(crash=1, cancel=1, restart=1, trim=1, lossy=True),
    "writers-and-faults": Config(writers=_THREE_WRITERS, crash=1, cancel=1),
    "readers-and-faults": Config(readers=(A, A, B), crash=1, cancel=1),
    "second-failover": Config(servers=3),
    "second-failover-crash": Config(readers=(A,), servers=3, crash=2),
    "second-failover-tokens": Config(readers=(B,), servers=3, tokens=True),
    "third-failover": Config(readers=(A,), servers=4),
    "change": Config(readers=(A,), servers=3, change=1, crash=1),
    "two-changes": Config(writers=((A, KEY),), readers=(A, B), servers=4, change=2),
    "stale": Config(readers=(A,), servers=3, spare=1, lossy=True, distance=10),
    "expiry": Config(
        writers=((A, EXPIRING), (B, KEY)), readers=(A,), restart=1, trim=1, expiry=True
    ),
    "expiry-failover": Config(
        writers=((A, EXPIRING),), readers=(A, B), servers=3, crash=1, expiry=True
    ),
    "lossy-writers": Config(writers=_THREE_WRITERS, lossy=True, restart=1, trim=1),
}


@pytest.mark.parametrize("witness", [False, True], ids=["commit", "standby"])
@pytest.mark.parametrize("name", _CONFIGS)
def test_no_interleaving_breaks_the_protocol(name: str, witness: bool) -> None:
    assert explore(_CONFIGS[name], witness=witness) > 50_000
