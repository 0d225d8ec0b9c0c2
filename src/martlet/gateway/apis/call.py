"""One request to an API, as events, templates and mappings see it."""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson

from martlet.gateway.head import Request
from martlet.gateway.payload import clf_time, forwarded, query_pairs
from martlet.types import ACCOUNT

__all__ = ["Call", "extended_id"]

_IDENTITY: Final = (
    "accessKey",
    "accountId",
    "caller",
    "cognitoAuthenticationProvider",
    "cognitoAuthenticationType",
    "cognitoIdentityId",
    "cognitoIdentityPoolId",
    "principalOrgId",
)
# What a REST API does not hand on to a function (recorded): hop-by-hop fields and those that it sets itself.
_NOT_IN_EVENTS: Final = frozenset(
    (
        "connection", "content-length", "content-md5", "expect", "keep-alive", "max-forwards", "proxy-authenticate",
        "proxy-connection", "server", "te", "trailer", "transfer-encoding", "upgrade", "www-authenticate", "host",
        "x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto",
    )
)  # fmt: skip


def extended_id(request_id: str) -> str:
    """A request id in API Gateway's short form, from a UUID: "JKJaXmPLvHcESHA="."""
    return base64.b64encode(bytes.fromhex(request_id.replace("-", "")[:22])).decode("ascii")


class Call:
    """A request that has found its API and stage, and soon its route."""

    __slots__ = (
        "_document",
        "_many_headers",
        "_query",
        "api_id",
        "authorizer",
        "domain",
        "extended_id",
        "full_path",
        "now_ms",
        "params",
        "path",
        "request",
        "request_id",
        "resource",
        "resource_id",
        "stage",
        "trace",
        "variables",
    )

    def __init__(
        self, request: Request, *, api_id: str, domain: str, request_id: str, trace: str, now_ms: int, full_path: str
    ) -> None:
        self.request = request
        self.api_id = api_id
        self.domain = domain
        self.request_id = request_id
        self.extended_id = extended_id(request_id)
        self.trace = trace
        self.now_ms = now_ms
        self.full_path = full_path  # with the stage
        self.path = full_path  # without it
        self.stage = ""
        self.variables: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.resource = ""
        self.resource_id = ""
        self.authorizer: dict[str, Any] | None = None
        self._query: dict[str, list[str]] | None = None
        self._many_headers: dict[str, list[str]] | None = None
        self._document: tuple[bool, Any] | None = None

    # the request's parts

    @property
    def query(self) -> dict[str, list[str]]:
        """Decoded parameters, all values of each, in order."""
        if self._query is None:
            found: dict[str, list[str]] = {}
            for name, value in query_pairs(self.request.query):
                found.setdefault(name, []).append(value)
            self._query = found
        return self._query

    @property
    def many_headers(self) -> dict[str, list[str]]:
        """Fields with the names as they were sent, and those that the gateway adds."""
        if self._many_headers is None:
            request = self.request
            found: dict[str, list[str]] = {}
            for raw_name, raw_value in request.headers:
                name = raw_name.decode("ascii")
                if name.lower() not in _NOT_IN_EVENTS:
                    found.setdefault(name, []).append(raw_value.decode("latin-1"))
            if request.host:
                found["Host"] = [request.host.decode("ascii")]
            found["X-Amzn-Trace-Id"] = [self.trace]
            for name, value in forwarded(request).items():
                found[name.title()] = [value]
            self._many_headers = found
        return self._many_headers

    def header(self, name: str) -> list[str]:
        """All values of a field, by its name in any case."""
        low = name.lower().encode("latin-1", "replace")
        if low == b"x-amzn-trace-id":
            return [self.trace]
        return [value.decode("latin-1") for key, value in self.request.headers if key.lower() == low]

    def content_type(self) -> str:
        """The media type of the body, lower-case and without parameters; "" when none is named."""
        raw = self.request.header(b"content-type") or b""
        return raw.partition(b";")[0].strip().lower().decode("latin-1")

    def document(self) -> tuple[bool, Any]:
        """(is JSON, the body as JSON)."""
        if self._document is None:
            try:
                self._document = (True, orjson.loads(self.request.body))
            except orjson.JSONDecodeError:
                self._document = (False, None)
        return self._document

    # contexts

    def identity(self) -> dict[str, Any]:
        agent = self.request.header(b"user-agent")
        identity: dict[str, Any] = dict.fromkeys(_IDENTITY)
        identity["sourceIp"] = self.request.client[0]
        identity["user"] = None
        identity["userAgent"] = agent.decode("latin-1") if agent is not None else None
        identity["userArn"] = None
        return identity

    def context(self) -> dict[str, Any]:
        """`requestContext` of format 1.0, which is also what `$context` begins with."""
        found: dict[str, Any] = {
            "resourceId": self.resource_id,
            "resourcePath": self.resource,
            "httpMethod": self.request.method,
            "extendedRequestId": self.extended_id,
            "requestTime": clf_time(self.now_ms // 1000),
            "path": self.full_path,
            "accountId": ACCOUNT,
            "protocol": f"HTTP/{self.request.version}",
            "stage": self.stage,
            "domainPrefix": self.domain.partition(".")[0],
            "requestTimeEpoch": self.now_ms,
            "requestId": self.request_id,
            "identity": self.identity(),
            "domainName": self.domain,
            "apiId": self.api_id,
        }
        if self.authorizer is not None:
            found["authorizer"] = self.authorizer
        return found

    def arn(self, region: str) -> str:
        """The ARN of this very request, which authorizers and policies name."""
        path = self.path.strip("/")  # routes do not see a slash at the end, so a policy must not either
        return f"arn:aws:execute-api:{region}:{ACCOUNT}:{self.api_id}/{self.stage}/{self.request.method}/{path}"
