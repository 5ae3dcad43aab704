"""A client's token goes to its server in one header field, and shows nowhere else."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import aiohttp
import pytest

from tenantbase.client import (
    Client,
    ClientError,
    Forbidden,
    NewToken,
    Refused,
    TokenScope,
    Unauthenticated,
)
from tests.scripted import EVENT, STORED, STREAM, Scripted

TOKEN = "tb_" + "s3cr-t_" * 6 + "x"
AUTHORIZATION = f"\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


async def test_every_request_carries_token_and_tenant(scripted: Scripted) -> None:
    scripted.will(200, STORED)
    scripted.will(204)
    scripted.will(200, b'{"values":[]}')
    scripted.will(200, EVENT, **STREAM)
    async with Client(scripted.url, token=TOKEN, tenant="acme", headers={"X-More": "1"}) as client:
        await client.set("k", 1)
        await client.delete("k")
        await client.get_many(["k"])
        await anext(client.watch())
    assert len(scripted.requests) == 4
    for request in scripted.requests:
        assert request.count(AUTHORIZATION) == 1
        assert b"\r\nX-Tenant: acme\r\n" in request and b"\r\nX-More: 1\r\n" in request
        assert TOKEN.encode() not in request.replace(AUTHORIZATION, b"")


async def test_without_a_token_nothing_is_said(scripted: Scripted) -> None:
    scripted.will(204)
    async with Client(scripted.url) as client:
        await client.delete("k")
    (request,) = scripted.requests
    assert b"authorization" not in request.lower() and b"x-tenant" not in request.lower()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", ["get", "set", "watch"])
async def test_token_is_not_taken_to_another_origin(
    scripted: Scripted, call: str, status: int
) -> None:
    async with Scripted() as other:
        scripted.will(status, Location=f"{other.url}/get-value?key=k")
        async with Client(scripted.url, token=TOKEN, attempts=2) as client:
            with pytest.raises(ClientError):
                if call == "get":
                    await client.get("k")
                elif call == "set":
                    await client.set("k", 1)
                else:
                    await anext(client.watch())
        assert len(scripted.requests) == 1 and other.requests == []


def frames(error: BaseException | None) -> str:
    """What a report of an error shows that has the variables of all frames."""
    shown = []
    while error is not None:
        shown += [repr(error), str(error), *traceback.format_exception(error)]
        trace = error.__traceback__
        while trace is not None:
            for name, value in trace.tb_frame.f_locals.items():
                if trace.tb_frame.f_code.co_filename != __file__:
                    shown += [name, repr(value), repr(getattr(value, "__dict__", None))]
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"not HTTP at all\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\ncut",
        b"HTTP/1.1 401 No\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        b"",
    ],
    ids=["bad length", "not HTTP", "cut", "refused", "nothing"],
)
async def test_token_is_in_no_error_and_no_log(
    scripted: Scripted, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    scripted.answers += [answer] * 3
    client = Client(scripted.url, token=TOKEN, attempts=1)
    async with client:
        for call in (client.get("k"), client.set("k", 1), anext(client.watch())):
            with pytest.raises(ClientError) as caught:
                await call
            shown = frames(caught.value)
            assert "_send_once" in shown or "watch" in shown
            assert TOKEN not in shown
    assert TOKEN not in repr(client) + repr(vars(client)) + caplog.text
    assert all(AUTHORIZATION in request for request in scripted.requests)


async def test_own_authorization_field_is_hidden_too(scripted: Scripted) -> None:
    scripted.will(500, b"{}")
    async with Client(
        scripted.url, headers={"authorization": f"Bearer {TOKEN}"}, attempts=1
    ) as client:
        with pytest.raises(ClientError) as caught:
            await client.get("k")
    assert TOKEN not in frames(caught.value)
    assert f"\r\nauthorization: Bearer {TOKEN}\r\n".encode() in scripted.requests[0]


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f" {TOKEN}", f"{TOKEN}\r\nX-Tenant: b", "é"])
def test_malformed_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="^a token is") as caught:
        Client("http://localhost", token=token)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tenant": "Acme"}, "a tenant's name is"),
        ({"tenant": "a\r\nb: c"}, "a tenant's name is"),
        ({"token": TOKEN, "headers": {"authorization": "Basic x"}}, "give token or the header"),
        ({"tenant": "a", "headers": {"x-tenant": "b"}}, "give tenant or the header"),
        ({"wait_when_limited": -1.0}, "must not be negative"),
        ({"wait_when_limited": float("nan")}, "finite"),
    ],
)
def test_contradictory_arguments_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Client("http://localhost", **arguments)


@pytest.mark.parametrize("part", ["user:s3cret@", "s3cret@", ":s3cret@"])
def test_url_with_a_password_is_refused_without_showing_it(part: str) -> None:
    with pytest.raises(ValueError) as caught:
        Client(f"http://{part}localhost:8000")
    assert "s3cret" not in str(caught.value)


async def test_session_of_the_caller_carries_the_token(scripted: Scripted) -> None:
    scripted.will(204)
    async with aiohttp.ClientSession() as session:
        async with Client(scripted.url, token=TOKEN, session=session) as client:
            await client.delete("k")
        assert TOKEN not in repr(vars(session))
    assert AUTHORIZATION in scripted.requests[0]


@pytest.mark.parametrize(
    ("status", "name", "error"),
    [(401, "unauthenticated", Unauthenticated), (403, "forbidden", Forbidden)],
)
async def test_refusal_of_the_caller_is_final(
    scripted: Scripted, status: int, name: str, error: type[Refused]
) -> None:
    for _ in range(3):
        scripted.will_refuse(status, name)
    async with Client(scripted.url, token=TOKEN) as client:
        for call in (client.get("k"), client.set("k", 1), anext(client.watch())):
            with pytest.raises(error) as caught:
                await call
            assert type(caught.value) is error and caught.value.problem.status == status


async def test_write_from_another_origin_is_another_refusal(scripted: Scripted) -> None:
    scripted.will_refuse(403, "cross-origin-write")
    async with Client(scripted.url) as client:
        with pytest.raises(Refused) as caught:
            await client.set("k", 1)
    assert type(caught.value) is Refused


async def test_watch_ends_when_its_token_is_revoked(scripted: Scripted) -> None:
    scripted.will(200, b"retry: 1\n\n" + EVENT, **STREAM)
    scripted.will_refuse(401, "unauthenticated")
    async with Client(scripted.url, token=TOKEN) as client, asyncio.timeout(20):
        with pytest.raises(Unauthenticated):
            async for event in client.watch():
                assert event.version == 7


def test_new_token_does_not_show_its_secret() -> None:
    token = NewToken(
        id="i",
        name="n",
        scope=TokenScope.READ,
        tenant="default",
        prefix=None,
        created_at=1.0,
        expires_at=None,
        token=TOKEN,
    )
    assert token.token == TOKEN
    assert TOKEN not in repr(token) + str(token) + f"{[token]}"
