"""What the messages of topics point to: GET /?Action=ConfirmSubscription and /?Action=Unsubscribe, without credentials, and the
certificate that their signatures are checked with.

The token in the first address is the permission; the second only ends subscriptions of HTTP endpoints that were confirmed this
way. Source: SNS developer guide, "Amazon SNS message and JSON formats".
"""

from __future__ import annotations

from typing import Any, Final, Protocol
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from martlet.errors import MartletError, ServiceError
from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, ASGIApp, Receive, Request, Scope, Send
from martlet.protocols.codec import Caller
from martlet.types import ACCOUNT, ANONYMOUS

__all__ = ["beside"]

_SPACE: Final = "http://sns.amazonaws.com/doc/2010-03-31/"
_ACTIONS: Final = ("ConfirmSubscription", "Unsubscribe")
_CERTIFICATE: Final = "/SimpleNotificationService-"


class Signer(Protocol):
    def certificate(self, name: str) -> bytes | None: ...


class Sns(Protocol):
    @property
    def signer(self) -> Signer: ...
    async def confirm_subscription(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]: ...
    async def unsubscribe(self, caller: Any, request: dict[str, Any]) -> None: ...


def beside(sns: Sns, region: str, inner: ASGIApp) -> ASGIApp:
    """`inner`, and these addresses beside it."""

    async def respond(request: Request) -> Answer:
        path = request.raw_path.decode("latin-1")
        if path.startswith(_CERTIFICATE):
            pem = sns.signer.certificate(path[1:])
            if pem is None:
                raise ServiceError("NotFound", "there is no such certificate", 404)
            return Answer(200, pem, (("content-type", "application/x-pem-file"),))
        query = {name: values[-1] for name, values in parse_qs(request.raw_query.decode("latin-1")).items()}
        caller = Caller(ANONYMOUS, region, ACCOUNT, request.id, "")
        action = query["Action"]
        found = ""
        if action == "ConfirmSubscription":
            if query.get("TopicArn", "").count(":") != 5:
                raise ServiceError("InvalidParameter", "Invalid parameter: Topic", 400)
            answer = await sns.confirm_subscription(caller, query)
            arn = escape(str(answer["SubscriptionArn"]))
            found = f"<{action}Result><SubscriptionArn>{arn}</SubscriptionArn></{action}Result>"
        else:
            await sns.unsubscribe(caller, query)
        metadata = f"<ResponseMetadata><RequestId>{request.id}</RequestId></ResponseMetadata>"
        return _xml(200, f'<{action}Response xmlns="{_SPACE}">{found}{metadata}</{action}Response>')

    own = asgi.app(respond, _error)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (own if _is_ours(scope) else inner)(scope, receive, send)

    return serve


def _is_ours(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    path = str(scope["path"])
    if path.startswith(_CERTIFICATE):
        return True
    query = scope["query_string"]
    if path != "/" or b"Signature=" in query:
        return False
    if any(name == b"authorization" for name, _ in scope["headers"]):
        return False
    return any(f"Action={action}".encode() in query.split(b"&") for action in _ACTIONS)


def _xml(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), (("content-type", "text/xml"),))


def _error(error: MartletError, request: Request) -> Answer:
    name = (
        error.name if isinstance(error, ServiceError) else "AuthorizationError" if error.http_status == 403 else "InternalError"
    )
    kind = "Sender" if error.http_status < 500 else "Receiver"
    body = f"<Error><Type>{kind}</Type><Code>{name}</Code><Message>{escape(error.message)}</Message></Error>"
    text = f'<ErrorResponse xmlns="{_SPACE}">{body}<RequestId>{request.id}</RequestId></ErrorResponse>'
    return _xml(error.http_status, text)
