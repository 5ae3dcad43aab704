"""The header fields that say who a client is: its token, and the tenant it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tenantbase.errors import InvalidRequest
from tenantbase.scope import Scope

_AUTHORIZATION: Final = "Authorization"
_TENANT: Final = "X-Tenant"
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750


class _Secret(str):
    """The value of a field that no ``repr`` shows: aiohttp's errors, and reports of errors with the
    variables of each frame, show whole headers."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def check_tenant(name: str) -> str:
    """Return the name of a tenant. Raises ValueError if it cannot be one."""
    try:
        return Scope(name).tenant
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
        if not _BEARER.fullmatch(token):
            raise ValueError("token must be letters, digits and -._~+/, without white space around")
        if _AUTHORIZATION.lower() in given:
            raise ValueError(f"give token or the header {_AUTHORIZATION}, not both")
        fields[_AUTHORIZATION] = f"Bearer {token}"
    if tenant is not None:
        check_tenant(tenant)
        if _TENANT.lower() in given:
            raise ValueError(f"give tenant or the header {_TENANT}, not both")
        fields[_TENANT] = tenant
    return {
        name: _Secret(text) if name.lower() == _AUTHORIZATION.lower() else text
        for name, text in fields.items()
    }
