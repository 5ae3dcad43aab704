"""The read index in every interleaving of small configurations: correct with all rules, wrong
without any one of them. ``explore_cluster_model.py`` has the large configurations."""

from __future__ import annotations

from typing import Final

import pytest

from tests.cluster_model import explore
from tests.cluster_model.state import (
    EXPIRING,
    KEY,
    OTHER,
    PREFIX,
    RULES,
    WITNESS_RULES,
    A,
    B,
    Config,
)
from tests.cluster_model.view import Violation

pytestmark = pytest.mark.torture  # starts nothing, but visits every state

_ONE_READER: Final = Config(readers=(A,))
_ONE_WRITER: Final = Config(writers=((A, KEY),), readers=(A, B))
_PREFIX: Final = Config(writers=((A, KEY), (B, PREFIX)), readers=(A,))
_NEIGHBOUR: Final = Config(writers=((A, KEY), (B, OTHER)), readers=(A,))
_LOSSY: Final = Config(writers=((A, OTHER), (B, KEY)), readers=(A,), lossy=True)
_THREE: Final = Config(writers=((A, KEY),), readers=(A,), servers=3)
_STALE: Final = Config(readers=(), servers=3, spare=1, lossy=True, distance=10)
_EXPIRY: Final = Config(writers=((A, EXPIRING),), readers=(A, A), expiry=True)

# The configuration that shows what happens without the rule; without an entry, one reader does.
_NEEDED_BY: Final = {
    "any-key": _PREFIX,
    "ask-after-begin": Config(writers=((A, KEY), (A, KEY)), readers=(A, A)),
    "expiry-now": _EXPIRY,
    "standby-behind": _THREE._replace(change=1),
    "term-distance": _STALE,
    "witness-name": _ONE_WRITER._replace(servers=3, change=1),
    "confirm-row": _ONE_WRITER._replace(crash=1),
    "fill-after-confirm": _ONE_WRITER._replace(readers=(A, A), crash=1),
    "join-floor": _ONE_READER._replace(restart=1, trim=1),
    "outcome-confirmed": _ONE_WRITER._replace(tokens=True, crash=1),
    "snapshot-position": _ONE_WRITER,
    "term-items": _LOSSY,
    "term-table": _LOSSY._replace(readers=(A, A), watch=1),
    "token": _ONE_WRITER._replace(tokens=True),
    "warning-is-no-ack": _ONE_WRITER._replace(cancel=1),
    "witness-after-begin": Config(readers=(A, A)),
    "witness-position": _ONE_WRITER._replace(crash=1),
}


@pytest.mark.parametrize("witness", [False, True], ids=["commit", "standby"])
@pytest.mark.parametrize(
    "config",
    [
        _ONE_READER._replace(crash=1, cancel=1),
        _ONE_WRITER._replace(crash=1, tokens=True),
        _PREFIX,
        _NEIGHBOUR,
        _LOSSY,
        _THREE._replace(change=1),
        _THREE._replace(crash=1, tokens=True),
        _STALE,
        _EXPIRY,
    ],
    ids=[
        "one-reader",
        "one-writer",
        "prefix",
        "neighbour",
        "lossy",
        "change",
        "second-failover",
        "stale",
        "expiry",
    ],
)
def test_no_interleaving_breaks_the_protocol(config: Config, witness: bool) -> None:
    assert explore(config, witness=witness) > 1_000


@pytest.mark.parametrize("rule", [*RULES, *WITNESS_RULES])
def test_every_rule_is_needed(rule: str) -> None:
    config = _NEEDED_BY.get(rule, _ONE_READER)
    with pytest.raises(Violation):
        explore(config, broken=rule, witness=rule in WITNESS_RULES)
