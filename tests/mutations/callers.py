"""Mistakes with tokens, tenants and limits in the Python client and the command line."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_IDENTITY: Final = ["tests/client/test_identity.py"]
_LIMITED: Final = ["tests/client/test_limited.py"]
_TENANTS: Final = [
    f"tests/cli/test_tenants.py::{name}"
    for name in (
        "test_limits_that_are_not_given_stay",
        "test_tenant_that_exists_is_not_made_again",
        "test_unknown_tenant_is_an_error",
        "test_terminal_is_asked_before_a_tenant_is_deleted",
    )
]
_TOKENS: Final = [
    f"tests/cli/test_tokens.py::{name}"
    for name in (
        "test_revoking_what_does_not_exist_is_an_error",
        "test_variable_names_the_tenant_of_tokens_that_have_one",
        "test_token_that_cannot_be_printed_is_revoked",
        "test_terminal_gets_a_table",
    )
]
_CONFIG: Final = ["tests/process/test_config.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/secret.py",
        _IDENTITY,
        {
            "a-repr-shows-the-token": ("return \"'***'\"", "return str.__repr__(self)"),
            "a-token-may-end-a-line": ("_BEARER.fullmatch(text)", "_BEARER.match(text)"),
        },
    ),
    **of(
        "tenantbase/client/identity.py",
        _IDENTITY,
        {
            "only-a-token-is-hidden": (
                "if name.lower() == _AUTHORIZATION.lower() else text",
                "if name == _AUTHORIZATION else text",
            ),
            "two-tenants-are-sent": ("if _TENANT.lower() in given:", "if False:"),
        },
    ),
    **of(
        "tenantbase/client/settings.py",
        _IDENTITY,
        {"a-password-in-the-url": ('if "@" in parts.netloc:', "if False:")},
    ),
    **of(
        "tenantbase/client/results.py",
        _IDENTITY,
        {"a-new-token-shows-itself": ("token='***')\"", 'token={self.token!r})"')},
    ),
    **of(
        "tenantbase/client/errors.py",
        _LIMITED,
        {
            "a-quota-leaves-it-open": (
                ", ProblemType.QUOTA_EXCEEDED.uri}\n",
                "}\n",
            ),
            "a-limit-of-the-server-leaves-it-open": (
                ".STORE_UNAVAILABLE.uri, OVER_LIMIT}",
                ".STORE_UNAVAILABLE.uri}",
            ),
        },
    ),
    **of(
        "tenantbase/client/retrying.py",
        _LIMITED,
        {
            "a-rate-limit-takes-attempts": (
                "if isinstance(failure, RateLimited):\n            return None",
                "if False:\n            return None",
            ),
            "a-limit-of-the-server-is-not-waited-for": (
                "failure.problem.type == OVER_LIMIT",
                "False",
            ),
            "waits-are-not-added-up": ("self._patience_left -= delay", "pass"),
            "a-wait-is-longer-than-allowed": ("delay = min(delay, self._patience_left)", "pass"),
            "waiting-in-vain": (" and asked <= self._patience_left:", ":"),
        },
    ),
    **of(
        "tenantbase/process/options.py",
        _CONFIG,
        {"a-mistaken-token-is-shown": ("except Unshown:", "except ZeroDivisionError:")},
    ),
    **of(
        "tenantbase/process/config.py",
        _CONFIG,
        {"the-environments-token-wins": ("values.pop(other, None)", "pass")},
    ),
    **of(
        "tenantbase/cli/local.py",
        _TENANTS,
        {
            "any-name-is-a-tenant": (
                "if tenant not in (await database.current_access()).tenants:",
                "if False:",
            ),
        },
    ),
    **of(
        "tenantbase/cli/commands/tenants.py",
        _TENANTS,
        {
            "limits-that-are-not-given-go": ("        if limit is not None\n", ""),
            "create-changes-limits": ("if name in await _by_name(backend):", "if False:"),
            "no-confirmation-is-asked-for": ("if not yes and sys.stdin", "if False and sys.stdin"),
        },
    ),
    **of(
        "tenantbase/cli/commands/tokens.py",
        _TOKENS,
        {
            "a-lost-token-stays": ("            await backend.revoke_token(made)\n", ""),
            "revoking-nothing-succeeds": (
                "if id not in [each.id for each in await backend.tokens()]:",
                "if False:",
            ),
            "the-variable-is-for-administrators": ("if given not in _OWNED and", "if False and"),
        },
    ),
    **of(
        "tenantbase/cli/tables.py",
        _TOKENS,
        {
            "keys-control-the-terminal": ("each if each.isprintable() else", "each if True else"),
            "wide-characters-are-narrow": (
                '1 + (unicodedata.east_asian_width(each) in "WF")',
                "1",
            ),
        },
    ),
}
