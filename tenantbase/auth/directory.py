"""The state of a database's access control, as a process knows it."""

from __future__ import annotations

from tenantbase.access import Access, Tenant
from tenantbase.auth.principal import ANYBODY, Principal
from tenantbase.auth.tokens import digest


class Directory:
    """Finds the principal of a secret. Closed to everyone until it is told the state.

    Args:
        may_be_open: whether a database without tokens is open to every caller. Otherwise every caller is
            refused while it is open, because other machines could reach it.

    Attributes:
        generation: changes whenever an earlier answer may no longer be right.
    """

    def __init__(self, *, may_be_open: bool = True) -> None:
        self._may_be_open = may_be_open
        self._access: Access | None = None
        self._principals: dict[bytes, Principal] = {}
        self._next_expiry: float | None = None
        self.generation = 0

    @property
    def version(self) -> int | None:
        """The version of the state; None: it is not known yet."""
        return None if self._access is None else self._access.version

    @property
    def closed(self) -> bool:
        """Whether every request needs a token."""
        return self._access is None or self._access.closed or not self._may_be_open

    def update(self, access: Access, now: float) -> None:
        """This is the state from now on.

        Args:
            now: Unix seconds.
        """
        self._access = access
        self._principals = {key: Principal(token, key) for key, token in access.tokens.items()}
        self._count_on(now)

    def expire(self, now: float) -> None:
        """Start a new generation if a token has expired since the last one began."""
        if self._next_expiry is not None and self._next_expiry <= now:
            self._count_on(now)

    def _count_on(self, now: float) -> None:
        ends = (p.token.expires_at for p in self._principals.values() if p.token is not None)
        self._next_expiry = min(
            (end for end in ends if end is not None and end > now), default=None
        )
        self.generation += 1

    def bearer(self, secret: str, now: float) -> Principal | None:
        """The principal whose token has this secret; None: it is unknown, revoked or expired."""
        found = self._principals.get(digest(secret))
        return None if found is None or found.expired(now) else found

    def tenant(self, name: str) -> Tenant | None:
        """A tenant, with its limits as of ``version``."""
        return None if self._access is None else self._access.tenants.get(name)

    def admits(self, principal: Principal, now: float) -> bool:
        """Whether an earlier ``bearer``, or anybody, may still make requests."""
        if principal is ANYBODY:
            return not self.closed
        return self._principals.get(principal.digest) == principal and not principal.expired(now)
