"""Mistakes about who may do what: principals and the callers of requests."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import of

_ISOLATION: Final = [
    "tests/web/test_isolation.py::test_nothing_tells_what_is_outside_of_a_prefix",
    "tests/web/test_isolation.py::test_each_scope_reaches_its_routes_alone",
    "tests/web/test_isolation.py::test_another_tenants_cursor_leads_to_its_place_among_ones_own_keys",
]
_CALLERS: Final = ["tests/web/test_callers.py"]

MUTATIONS: Final = {
    **of(
        "tenantbase/auth/principal.py",
        _CALLERS,
        {
            "any-tenant-may-be-named": (
                "if named is not None and named != self.tenant:",
                "if False:",
            ),
            "a-token-without-a-tenant-reads-default": ("return NOTHING", "return DEFAULT"),
        },
    ),
    **of(
        "tenantbase/auth/principal.py",
        _ISOLATION,
        {
            "a-prefix-limits-nothing": ('allowed=self.prefix or ""', 'allowed=""'),
            "a-token-to-read-may-write": (
                "may_write = self.scope is TokenScope.WRITE",
                "may_write = True",
            ),
        },
    ),
    **of(
        "tenantbase/web/caller.py",
        _CALLERS,
        {
            "any-scheme-is-bearer": (
                "if principal is not None and scheme.lower() == _BEARER:",
                "if principal is not None:",
            ),
        },
    ),
}
