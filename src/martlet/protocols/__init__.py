"""Charter of the room protocols.

Owns: the wire protocols of the platform's own endpoint: the management API (ours) and AWS's, `codec` among them.
Offers: `app(rooms)`, one ASGI application that tells the protocols apart; `PROTOCOLS`, each one alone; `Rooms`,
what they need.
Never: decides anything that is a rule of another room, keeps state, or answers a request that it does not
understand with success.
"""

from __future__ import annotations

from collections.abc import Callable

from martlet.protocols import aws, management
from martlet.protocols.asgi import ASGIApp, Receive, Request, Scope, Send
from martlet.protocols.aws import Forward
from martlet.protocols.rooms import Rooms

__all__ = ["PROTOCOLS", "Forward", "Rooms", "app"]

PROTOCOLS: dict[str, Callable[[Rooms], ASGIApp]] = {"management": management.app, "aws": aws.app}


def app(rooms: Rooms) -> ASGIApp:
    """The platform's endpoint. What only an AWS client sends (a dated path, X-Amz-Target, a signature for a service) goes to
    AWS's protocols, which refuse by name what they do not have; everything else is the management API's."""
    apps = {name: make(rooms) for name, make in PROTOCOLS.items()}

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_aws = scope["type"] == "http" and aws.is_aws(Request.of(scope, receive))
        await apps["aws" if is_aws else "management"](scope, receive, send)

    return serve
