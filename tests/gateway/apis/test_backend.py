"""HTTP integrations against a real server: what is sent, what is passed on, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.gateway.apis.conftest import API, Build, http, rest

from martlet.clock import Clock
from martlet.gateway.apis.backend import Backend, BackendFailed
from martlet.gateway.http import Exchange, HttpServer
from martlet.types import ApiIntegration, ApiIntegrationResponse, ApiRoute

Raw = Callable[[bytes], Awaitable[int]]


class Echo:
    """A backend that tells what it was sent."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.status = 200
        self.connections: set[Any] = set()
        self.port = 0

    def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        self.connections.add(exchange.request.client)
        headers = [(b"X-From", b"backend"), (b"Content-Type", b"application/json"), (b"WWW-Authenticate", b"Basic")]
        exchange.respond(self.status, headers, b'{"said": "' + exchange.request.body.replace(b'"', b"'") + b'"}')


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    backend = Echo()
    server = HttpServer(backend, clock=Clock())
    backend.port = await server.listen("127.0.0.1", 0)
    yield backend
    await server.shutdown(0)


@pytest.fixture
async def raw() -> AsyncIterator[Raw]:
    """A backend that answers every connection with these bytes."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()


def integrated(kind: Any, uri: str, method: str = "POST", **more: Any) -> ApiRoute:
    return ApiRoute(method="ANY", path="/{proxy+}", integration=ApiIntegration(kind=kind, uri=uri, method=method, **more))


async def test_an_http_proxy_passes_everything_on(stand: Build, echo: Echo) -> None:
    served = await stand(rest(integrated("HTTP_PROXY", f"http://localhost:{echo.port}/base/{{proxy}}", "ANY")))
    headers = {"X-A": "1", "TE": "trailers", "User-Agent": "me"}
    said = await served.ask("/dev/a/b?x=1&x=2", "PUT", headers=headers, body=b"hi")
    request = echo.requests[0]
    assert (request.method, request.target, request.body) == ("PUT", b"/base/a/b?x=1&x=2", b"hi")
    assert (request.header(b"x-a"), request.header(b"user-agent"), request.header(b"te")) == (b"1", b"me", None)
    assert request.header(b"x-amzn-apigateway-api-id") == API.encode()
    assert (said.status, said.json, said.headers["x-from"]) == (200, {"said": "hi"}, "backend")
    assert said.headers["x-amzn-remapped-www-authenticate"] == "Basic"


async def test_an_http_integration_maps(stand: Build, echo: Echo) -> None:
    echo.status = 404
    responses = (
        ApiIntegrationResponse(status=200),
        ApiIntegrationResponse(
            status=410,
            pattern="4[0-9]{2}",
            parameters={"method.response.header.Y": "integration.response.header.X-From"},
            templates={"application/json": '{"was": $input.json("$.said")}'},
        ),
    )
    parameters = {
        "integration.request.path.who": "method.request.querystring.who",
        "integration.request.header.X-B": "'fixed'",
        "integration.request.querystring.q": "method.request.header.X-Q",
    }
    uri = f"http://localhost:{echo.port}/{{who}}"
    served = await stand(rest(integrated("HTTP", uri, responses=responses, parameters=parameters)))
    said = await served.ask("/dev/a?who=../x%20y&z=1", headers={"X-Q": "a&b=c", "X-A": "not passed"}, body=b"hi", method="PUT")
    request = echo.requests[0]
    assert (request.method, request.target) == ("POST", b"/../x%20y?q=a%26b%3Dc")
    assert (request.header(b"x-b"), request.header(b"x-a"), request.header(b"accept")) == (b"fixed", None, b"application/json")
    assert request.header(b"user-agent") == f"AmazonAPIGateway_{API}".encode()
    assert (said.status, said.json, said.headers["y"]) == (410, {"was": "hi"}, "backend")


async def test_a_line_break_does_not_reach_the_backend(stand: Build, echo: Echo) -> None:
    parameters = {"integration.request.header.X-Q": "method.request.querystring.q"}
    served = await stand(rest(integrated("HTTP_PROXY", f"http://localhost:{echo.port}/", "GET", parameters=parameters)))
    said = await served.ask("/dev/x?q=a%0d%0aEvil:%201")
    assert (said.status, said.json, echo.requests) == (500, {"message": "Internal server error"}, [])


async def test_a_body_that_is_mapped_must_be_json(stand: Build, echo: Echo) -> None:
    parameters = {"integration.request.header.X-Q": "method.request.body.name"}
    served = await stand(rest(integrated("HTTP_PROXY", f"http://localhost:{echo.port}/", parameters=parameters)))
    said = await served.ask("/dev/x", "POST", body=b"{broken")
    assert (said.status, said.json) == (400, {"message": "Invalid JSON in request body"})


async def test_connections_are_kept(stand: Build, echo: Echo) -> None:
    served = await stand(rest(integrated("HTTP_PROXY", f"http://localhost:{echo.port}/", "GET")))
    for _ in range(5):
        assert (await served.ask("/dev/x")).status == 200
    assert len(echo.connections) == 1


async def test_parameter_mapping_of_http_apis(stand: Build, echo: Echo) -> None:
    mapping = {
        "append:header.x-a": "$request.querystring.q",
        "overwrite:querystring.stage": "$context.stage-${request.path.id}",
        "remove:querystring.q": "''",
        "overwrite:path": "/v2/$request.path.id",
    }
    back = {"200": {"overwrite:statuscode": "202", "append:header.z": "$response.body.said", "remove:header.x-from": "''"}}
    integration = ApiIntegration(
        kind="HTTP_PROXY", uri=f"http://localhost:{echo.port}/old", parameters=mapping, response_parameters=back
    )
    served = await stand(http(ApiRoute(method="ANY", path="/pets/{id}", integration=integration)))
    said = await served.ask("/pets/7?q=hey", "POST", headers={"X-A": "1"}, body=b"hi")
    request = echo.requests[0]
    assert request.target == b"/v2/7?stage=%24default-7"
    assert [value for name, value in request.headers if name.lower() == b"x-a"] == [b"1", b"hey"]
    assert (said.status, said.headers["z"], said.headers.get("x-from")) == (202, "hi", None)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "2130706433", "[::ffff:127.0.0.1]"]
)
async def test_what_is_only_reachable_from_here_is_refused(stand: Build, echo: Echo, host: str) -> None:
    route = integrated("HTTP_PROXY", f"http://{host}:{echo.port}/", "GET", timeout_ms=2000)
    served = await stand(rest(route), backend=Backend())
    said = await served.ask("/dev/x")
    assert said.status == 504
    assert echo.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
        b"",
    ],
)
async def test_backends_that_answer_badly(stand: Build, raw: Raw, answer: bytes) -> None:
    port = await raw(answer)
    served = await stand(rest(integrated("HTTP_PROXY", f"http://localhost:{port}/", "GET")))
    said = await served.ask("/dev/x")
    assert (said.status, said.json) == (504, {"message": "Network error communicating with endpoint"})


@pytest.mark.parametrize(
    ("answer", "method", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", "GET", 201, b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "GET", 200, b"until the end"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", 204, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", 200, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "GET", 200, b"ab"),
    ],
)
async def test_framings_of_answers(raw: Raw, answer: bytes, method: str, status: int, body: bytes) -> None:
    backend = Backend(("localhost",))
    found = await backend.ask(method, f"http://localhost:{await raw(answer)}/", [], b"", 5)
    assert (found.status, found.body) == (status, body)
    await backend.close()


async def test_a_backend_that_does_not_answer_in_time(stand: Build) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    served = await stand(rest(integrated("HTTP_PROXY", f"http://localhost:{port}/", "GET", timeout_ms=60)))
    said = await served.ask("/dev/x")
    assert (said.status, said.json) == (504, {"message": "Endpoint request timed out"})
    server.close()


@pytest.mark.parametrize(
    "url", ["ftp://a/", "http:///x", "http://user:pw@localhost/", "http://localhost:99999/", "http://a b/"]
)
async def test_urls_that_are_none(url: str) -> None:
    backend = Backend(("*",))
    with pytest.raises(BackendFailed):
        await backend.ask("GET", url, [], b"", 2)
    await backend.close()
