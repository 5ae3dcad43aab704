"""The header fields that say who a client is: its token, and the tenant it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tenantbase import scope
from tenantbase.errors import InvalidRequest
from tenantbase.secret import Secret, bearer_token

_AUTHORIZATION: Final = "Authorization"
_TENANT: Final = "X-Tenant"


def check_tenant(name: str) -> str:
    """Return the name of a tenant. Raises ValueError if it cannot be one."""
    try:
        return scope.check_tenant(name)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


def header_fields(
    headers: Mapping[str, str] | None, token: str | None, tenant: str | None
) -> dict[str, str]:
    """The fields to send with every request.

    Args:
        headers: those of the caller.

    Raises:
        ValueError: the token or the tenant's name is malformed, or ``headers`` has one as well. The
            text does not contain the token.
    """
    fields = dict(headers or {})
    given = {name.lower() for name in fields}
    if token is not None:
        if _AUTHORIZATION.lower() in given:
            raise ValueError(f"give token or the header {_AUTHORIZATION}, not both")
        fields[_AUTHORIZATION] = f"Bearer {bearer_token(token)}"
    if tenant is not None:
        check_tenant(tenant)
        if _TENANT.lower() in given:
            raise ValueError(f"give tenant or the header {_TENANT}, not both")
        fields[_TENANT] = tenant
    return {
        name: Secret(text) if name.lower() == _AUTHORIZATION.lower() else text
        for name, text in fields.items()
    }
