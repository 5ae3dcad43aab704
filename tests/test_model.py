"""The protocol in every interleaving: correct as it is, wrong without any one of its rules."""

from __future__ import annotations

import pytest

from tests.model import RULES, Violation, explore

pytestmark = pytest.mark.torture  # starts nothing, but visits every state


def test_no_interleaving_breaks_the_protocol() -> None:
    assert explore() > 100_000


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed(rule: str) -> None:
    with pytest.raises(Violation):
        explore(broken=rule)
