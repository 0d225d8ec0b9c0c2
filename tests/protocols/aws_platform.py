"""The platform's AWS endpoint with its own HTTP server, auth room and store, for boto3 in a thread beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.protocols.fakes import World

from martlet.auth import Auth, Credentials, Identities, Sessions, authorize
from martlet.clock import Clock
from martlet.functions.log_groups import LogGroups
from martlet.functions.logs import LogStore
from martlet.gateway.asgi import AsgiHandler
from martlet.gateway.http import HttpServer
from martlet.protocols import app
from martlet.protocols.rooms import Rooms
from martlet.store import Store
from martlet.store.engines.memory import MemoryEngine


class MovedClock(Clock):
    """The machine's clock, as far ahead as a test says."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class Access:
    def __init__(self, auth: Auth) -> None:
        self.authenticate = auth.authenticate
        self.authorize = authorize


@dataclass
class AwsPlatform:
    port: int
    root: Credentials
    clock: MovedClock
    logs: LogStore
    store: Store
    services: dict[str, object]
    clients: list[Any] = field(default_factory=list)

    def client(self, service: str, key: str = "", secret: str = "", token: str | None = None, **config: Any) -> Any:
        made = boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=key or self.root.access_key_id,
            aws_secret_access_key=secret or self.root.secret_access_key,
            aws_session_token=token,
            config=Config(retries={"max_attempts": 0}, **config),
        )
        self.clients.append(made)
        return made

    def client_of(self, service: str, credentials: dict[str, Any]) -> Any:
        """A client with the credentials that STS gave."""
        return self.client(service, credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])


async def called(method: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    """boto3's answer; it works in a thread, the platform on this loop."""
    found: dict[str, Any] = await asyncio.to_thread(lambda: method(**parameters))
    return found


async def failed(method: Callable[..., Any], **parameters: Any) -> dict[str, Any]:
    """boto3's error response."""
    try:
        answer = await called(method, **parameters)
    except ClientError as error:
        found: dict[str, Any] = error.response
        return found
    raise AssertionError(f"it went well: {answer}")


async def code_of(method: Callable[..., Any], **parameters: Any) -> str:
    return str((await failed(method, **parameters))["Error"]["Code"])


@asynccontextmanager
async def aws_platform(path: Path, **services: object) -> AsyncIterator[AwsPlatform]:
    clock = MovedClock()
    store = Store(MemoryEngine(), clock=clock)
    auth = Auth(store, clock)
    root = await auth.ensure_root(path / "credentials.json")
    logs = LogStore(path / "logs", clock)
    ours: dict[str, object] = {
        "iam": Identities(store),
        "sts": Sessions(store, clock),
        "logs": LogGroups(logs, store, clock),
        **services,
    }
    world = World().rooms
    rooms = Rooms(
        auth=Access(auth),
        apps=world.apps,
        functions=world.functions,
        documents=world.documents,
        logs=world.logs,
        usage=world.usage,
        metrics=world.metrics,
        status=world.status,
        now_ms=clock.now_ms,
        version="9.9.9",
        services=ours,
    )
    server = HttpServer(AsgiHandler(app(rooms)), clock=clock, name="test")
    port = await server.listen("127.0.0.1", 0)
    platform = AwsPlatform(port, root, clock, logs, store, ours)
    try:
        yield platform
    finally:
        for client in platform.clients:
            client.close()
        await server.shutdown(1.0)
        await logs.close()
        await store.close()
