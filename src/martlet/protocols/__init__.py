"""Charter of the room protocols.

Owns: the wire protocols of the platform's own endpoint: the management API (ours) and the Lambda API (AWS's).
Offers: `app(rooms)`, one ASGI application that tells the protocols apart; `PROTOCOLS`, each one alone; `Rooms`,
what they need.
Never: decides anything that is a rule of another room, keeps state, or answers a request that it does not
understand with success.
"""

from __future__ import annotations

from collections.abc import Callable

from martlet.protocols import lambda_, management, unsupported
from martlet.protocols.asgi import ASGIApp, Receive, Request, Scope, Send
from martlet.protocols.rooms import Rooms

__all__ = ["PROTOCOLS", "Rooms", "app"]

PROTOCOLS: dict[str, Callable[[Rooms], ASGIApp]] = {"management": management.app, "lambda": lambda_.app}


def app(rooms: Rooms) -> ASGIApp:
    """The platform's endpoint. What only an AWS client sends (a dated path, X-Amz-Target, a signature for another service)
    goes to the Lambda protocol, which refuses by name what it does not have; everything else is the management API's."""
    apps = {name: make(rooms) for name, make in PROTOCOLS.items()}

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        aws = scope["type"] == "http" and unsupported.is_aws(Request(scope, receive))
        await apps["lambda" if aws else "management"](scope, receive, send)

    return serve
