"""Problem types have one table of names: the server uses all of them, the client some."""

from __future__ import annotations

from tenantbase.client import errors
from tenantbase.problem_types import ProblemType
from tenantbase.web.problems import KINDS


def test_server_answers_with_each_type_and_no_other() -> None:
    assert set(KINDS) == set(ProblemType)


def test_uri_is_stable() -> None:
    assert ProblemType.NO_SUCH_KEY.uri == "urn:tenantbase:problem:no-such-key"


def test_client_retries_only_if_nothing_was_done() -> None:
    assert errors.RETRYABLE == {
        "urn:tenantbase:problem:over-limit",
        "urn:tenantbase:problem:overloaded",
        "urn:tenantbase:problem:store-unavailable",
    }
