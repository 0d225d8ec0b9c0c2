"""The edge and end users: who is let in, what the event says of them, and that nobody is let in by accident."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.gateway.test_edge import Functions, get, route, start  # noqa: F401

from martlet.errors import Unauthenticated
from martlet.gateway.visitors import Visitors
from martlet.types import Outcome, Route

CLAIMS = {"sub": "7", "groups": ["a", "b"], "email_verified": True, "exp": 12, 'quo"te': "\u2028</script>"}


def identify(app: str, users: str, token: str) -> dict[str, Any]:
    if (app, users, token) != ("shop", "people", "good"):
        raise Unauthenticated("no", reason="invalid_token")
    return CLAIMS


async def endpoints(scope: Any, receive: Any, send: Any) -> None:
    mounted = scope["martlet.context"]
    body = f"{mounted.app} {mounted.users} {mounted.path}".encode()
    scope["martlet.respond"](200, [(b"content-type", b"text/plain")], body)


async def test_only_a_valid_token_reaches_the_function(start: Any) -> None:  # noqa: F811
    functions = Functions(Outcome(b'{"statusCode":200,"body":"in"}'))
    edge, server = await start(functions, route("GET", "/me", user="people"))
    answer = await server.ask(get("/me", "Authorization: Bearer good\r\n"))
    assert (answer.status, functions.seen) == (403, [])  # before anybody said who knows end users
    edge.set_visitors(Visitors(endpoints, identify))
    for header in ("", "Authorization: Bearer bad\r\n", "Authorization: good\r\n", "Authorization: Basic good\r\n"):
        answer = await server.ask(get("/me", header))
        assert (answer.status, answer.headers["www-authenticate"], functions.seen) == (401, "Bearer", [])
    answer = await server.ask(get("/me", "Authorization: bearer  good\r\n"))
    assert (answer.status, answer.body) == (200, b"in")
    context = json.loads(functions.seen[0].payload)["requestContext"]
    told = {"sub": "7", "groups": "[a b]", "email_verified": "true", "exp": "12", 'quo"te': "\u2028</script>"}
    assert context["authorizer"] == {"jwt": {"claims": told, "scopes": None}}


async def test_requests_to_the_endpoints_count_as_in_flight(start: Any) -> None:  # noqa: F811
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await leave.wait()
        await endpoints(scope, receive, send)

    mounted = ("shop", Route(method="ANY", path="/auth/{proxy+}", users="people"), "shop-")
    edge, server = await start(Functions(), mounted, limits={"requests_in_flight": 1})
    edge.set_visitors(Visitors(slow, identify))
    first = asyncio.ensure_future(server.ask(get("/auth/a")))
    await entered.wait()
    assert (await server.ask(get("/auth/b"))).status == 503
    leave.set()
    assert (await first).status == 200
    assert not edge.streams
    assert (await server.ask(get("/auth/c"))).status == 200


async def test_a_client_cannot_say_who_it_is_by_itself(start: Any) -> None:  # noqa: F811
    functions = Functions(Outcome(b'{"statusCode":200}'))
    _, server = await start(functions, route("GET", "/open"))
    await server.ask(get("/open", 'X-Amzn-Authorizer: {"sub":"root"}\r\nAuthorization: Bearer good\r\n'))
    assert "authorizer" not in json.loads(functions.seen[0].payload)["requestContext"]


async def test_what_is_mounted_is_told_whose_it_is(start: Any) -> None:  # noqa: F811
    edge, server = await start(Functions(), ("shop", Route(method="ANY", path="/auth/{proxy+}", users="people"), "shop-"))
    edge.set_visitors(Visitors(endpoints, identify))
    answer = await server.ask(get("/auth/password-reset/confirm"))
    assert (answer.status, answer.body) == (200, b"shop people password-reset/confirm")
    assert answer.headers["apigw-requestid"]
