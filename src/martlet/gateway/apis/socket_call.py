"""A connection of a WebSocket API, as its events see it. Shapes as recorded from the real service.

https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-route-keys-connect-disconnect.html
"""

from __future__ import annotations

from typing import Any

import orjson

from martlet.clock import uuid4_text
from martlet.gateway.apis.call import Call, extended_id
from martlet.gateway.payload import clf_time
from martlet.types import ACCOUNT

__all__ = ["SocketCall"]


class SocketCall(Call):
    """The opening request of a connection, and what later events say of it."""

    __slots__ = ("connected_at_ms", "connection_id")

    connection_id: str
    connected_at_ms: int

    def arn(self, region: str, route_key: str = "$connect") -> str:
        return f"arn:aws:execute-api:{region}:{ACCOUNT}:{self.api_id}/{self.stage}/{route_key}"

    def event_context(self, route_key: str, kind: str, now_ms: int, **more: Any) -> dict[str, Any]:
        """`requestContext` of an event. Ids are new for each but the first."""
        first = kind == "CONNECT"
        id = self.extended_id if first else extended_id(uuid4_text())
        agent = self.request.header(b"user-agent")
        identity = {"sourceIp": self.request.client[0]}
        if agent is not None:
            identity["userAgent"] = agent.decode("latin-1")
        found: dict[str, Any] = {
            "routeKey": route_key,
            **more,
            "eventType": kind,
            "extendedRequestId": id,
            "requestTime": clf_time(now_ms // 1000),
            "messageDirection": "IN",
            "stage": self.stage,
            "connectedAt": self.connected_at_ms,
            "requestTimeEpoch": now_ms,
            "identity": identity,
            "requestId": id,
            "domainName": self.domain,
            "connectionId": self.connection_id,
            "apiId": self.api_id,
        }
        if self.authorizer is not None:
            found["authorizer"] = self.authorizer
        return found

    def context(self) -> dict[str, Any]:
        """What access logs and identity sources see."""
        return {**self.event_context("$connect", "CONNECT", self.now_ms), "status": None, "accountId": ACCOUNT}

    def opening(self) -> dict[str, Any]:
        """The members of an event that speak of the opening request."""
        many, query = self.many_headers, self.query
        found: dict[str, Any] = {
            "headers": {name: values[-1] for name, values in many.items()},
            "multiValueHeaders": many,
        }
        if query:
            found["queryStringParameters"] = {name: values[-1] for name, values in query.items()}
            found["multiValueQueryStringParameters"] = query
        if self.variables:
            found["stageVariables"] = self.variables
        return found

    def authorizer_event(self, region: str) -> bytes:
        """What a Lambda authorizer is asked."""
        context = self.event_context("$connect", "CONNECT", self.now_ms)
        return orjson.dumps({"type": "REQUEST", "methodArn": self.arn(region), **self.opening(), "requestContext": context})
