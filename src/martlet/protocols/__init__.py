"""Charter of the room protocols.

Owns: the wire protocols of the platform's own endpoint: the management API (ours) and AWS's, `codec` among them.
Offers: `app(rooms)`, one ASGI application that tells the protocols apart; `PROTOCOLS`, each one alone; `Rooms`,
what they need.
Never: decides anything that is a rule of another room, keeps state, or answers a request that it does not
understand with success.
"""

from __future__ import annotations

from collections.abc import Callable

from martlet.protocols import aws, management, s3
from martlet.protocols.asgi import ASGIApp, Receive, Request, Scope, Send
from martlet.protocols.aws import Forward
from martlet.protocols.rooms import Rooms

__all__ = ["PROTOCOLS", "Forward", "Rooms", "app"]

PROTOCOLS: dict[str, Callable[[Rooms], ASGIApp]] = {"management": management.app, "aws": aws.app, "s3": s3.app}


def app(rooms: Rooms) -> ASGIApp:
    """The platform's endpoint. What only an AWS client sends (a dated path, X-Amz-Target, a signature for a service) goes to
    AWS's protocols, which refuse by name what they do not have; everything else is the management API's."""
    apps = {name: make(rooms) for name, make in PROTOCOLS.items()}

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            name = "management"
        else:
            request = Request.of(scope, receive)
            is_s3 = "s3" in rooms.services and s3.is_s3(aws.wire_request(request))
            name = "s3" if is_s3 else "aws" if aws.is_aws(request) else "management"
        await apps[name](scope, receive, send)

    return serve
