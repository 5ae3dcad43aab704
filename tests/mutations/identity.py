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
        "tenantbase/auth/directory.py",
        ["tests/auth/test_directory.py"],
        {
            "an-expired-token-is-accepted": (
                "return None if found is None or found.expired(now) else found",
                "return found",
            ),
            "expiry-begins-no-generation": (
                "if self._next_expiry is not None and self._next_expiry <= now:",
                "if False:",
            ),
            "a-change-begins-no-generation": ("self.generation += 1", "pass"),
            "other-machines-are-let-in": (" or not self._may_be_open", ""),
            "a-changed-token-is-admitted": (
                "self._principals.get(principal.digest) == principal and",
                "self._principals.get(principal.digest) is not None and",
            ),
        },
    ),
    **of(
        "tenantbase/auth/principal.py",
        ["tests/auth/test_principal.py", "tests/auth/test_directory.py"],
        {"a-token-outlives-its-end": ("ends <= now", "ends < now")},
    ),
    **of(
        "tenantbase/auth/rates.py",
        ["tests/auth/test_rates.py"],
        {
            "what-is-given-back-is-lost": ("min(left + returned, rate)", "min(left, rate)"),
            "a-lease-has-no-end": (
                "if not self._left or now >= self._until:",
                "if not self._left:",
            ),
            "requests-are-not-taken": ("left - taken, now)", "left, now)"),
        },
    ),
    **of(
        "tenantbase/web/caller.py",
        _CALLERS,
        {
            "long-answers-outlive-their-token": (
                "            if not self.admits(caller):\n                del",
                "            if False:\n                del",
            ),
            "administration-counts-for-a-tenant": (
                "if route in ADMINISTRATIVE:",
                "if False:",
            ),
        },
    ),
    **of(
        "tenantbase/web/handlers/lists.py",
        ["tests/web/test_callers.py::test_long_answers_are_cut_with_their_token"],
        {
            "lists-outlive-their-token": (
                "holding(request[CALLER], listing.share.transport.abort)",
                "holding(request[CALLER], bool)",
            ),
        },
    ),
    **of(
        "tenantbase/interfaces/planning/usage.py",
        ["tests/web/test_tenant_limits.py"],
        {
            "one-entry-more-than-allowed": (
                "self.entries + entries <= self.max_entries",
                "self.entries + entries <= self.max_entries + 1",
            ),
            "bytes-have-no-limit": ("self.bytes + bytes <= self.max_bytes", "True"),
        },
    ),
    **of(
        "tenantbase/interfaces/sqlite/access.py",
        ["tests/interfaces/test_store.py::test_tokens_are_removed_a_week_after_they_expired"],
        {
            "expired-tokens-go-at-once": ("(now - EXPIRED_TOKENS_KEPT_SECONDS,)", "(now,)"),
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
