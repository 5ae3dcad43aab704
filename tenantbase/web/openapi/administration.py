"""The description of the routes for tenants and tokens."""

from __future__ import annotations

from typing import Final

from tenantbase.entry import JSON
from tenantbase.web.handlers.administration import CreateToken, PutTenant
from tenantbase.web.openapi import schemas as shapes
from tenantbase.web.openapi.model import (
    ADMINISTERING,
    BODY,
    DELETED,
    MANY_HEADERS,
    TENANT_NAME,
    Operation,
    Parameter,
    Reply,
)

ADMINISTRATION: Final = (
    Operation(
        "get",
        "/v1/whoami",
        "whoami",
        "Tenants and tokens",
        "What the caller's token allows",
        "`token` is null while the database is open to everyone.",
        (Reply(200, "The caller.", {JSON: (shapes.Caller,)}, MANY_HEADERS),),
        "curl -s localhost:8000/v1/whoami",
    ),
    Operation(
        "get",
        "/v1/tenants",
        "listTenants",
        "Tenants and tokens",
        "List tenants with their usage and limits",
        "Takes a token with the scope `admin`, as do all routes for tenants and tokens.",
        (Reply(200, "The tenants.", {JSON: (shapes.Tenants,)}, MANY_HEADERS),),
        "curl -s localhost:8000/v1/tenants",
        problems=("store-unavailable",),
    ),
    Operation(
        "put",
        "/v1/tenants/{name}",
        "putTenant",
        "Tenants and tokens",
        "Create a tenant, or change its limits",
        "A limit that is left out keeps its value; null: no limit.",
        (
            Reply(200, "Changed.", {JSON: (shapes.Tenant,)}, MANY_HEADERS),
            Reply(201, "Created.", {JSON: (shapes.Tenant,)}, MANY_HEADERS),
        ),
        "curl -s -X PUT localhost:8000/v1/tenants/acme -d '{\"max_entries\": 1000}'",
        (TENANT_NAME,),
        {JSON: PutTenant},
        body_required=False,
        problems=(*BODY, *ADMINISTERING),
    ),
    Operation(
        "delete",
        "/v1/tenants/{name}",
        "deleteTenant",
        "Tenants and tokens",
        "Remove a tenant with its entries and tokens",
        "Removing an absent one succeeds. The tenant `default` cannot be removed.",
        (DELETED,),
        "curl -s -X DELETE localhost:8000/v1/tenants/acme",
        (TENANT_NAME,),
        problems=("tenant-required", *ADMINISTERING),
    ),
    Operation(
        "get",
        "/v1/tokens",
        "listTokens",
        "Tenants and tokens",
        "List tokens",
        "Without their secrets, which the database does not know.",
        (Reply(200, "The tokens.", {JSON: (shapes.Tokens,)}, MANY_HEADERS),),
        "curl -s localhost:8000/v1/tokens",
        problems=("store-unavailable",),
    ),
    Operation(
        "post",
        "/v1/tokens",
        "createToken",
        "Tenants and tokens",
        "Make a token",
        "The first one closes the database: from then on, every request needs a token. Only tokens to"
        " `read` or `write` have a tenant and may have a prefix.",
        (
            Reply(
                201,
                "The token, which is shown only once.",
                {JSON: (shapes.NewToken,)},
                ("Cache-Control",),
            ),
        ),
        'curl -s localhost:8000/v1/tokens -d \'{"name": "ops", "scope": "admin"}\'',
        body={JSON: CreateToken},
        problems=(*BODY, *ADMINISTERING),
    ),
    Operation(
        "delete",
        "/v1/tokens/{id}",
        "revokeToken",
        "Tenants and tokens",
        "Revoke a token",
        "Revoking an absent one succeeds.",
        (DELETED,),
        "curl -s -X DELETE localhost:8000/v1/tokens/00000000-0000-0000-0000-000000000000",
        (Parameter("id", "path", {"type": "string", "format": "uuid"}, "The token's id.", True),),
        problems=ADMINISTERING,
    ),
)
