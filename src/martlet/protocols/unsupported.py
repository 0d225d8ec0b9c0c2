"""Requests for AWS services that Martlet does not have: refused in the wire format that the client expects, by name."""

from __future__ import annotations

import re
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from martlet.protocols import asgi
from martlet.protocols.asgi import Answer, Request

__all__ = ["is_aws", "is_other_service", "refuse"]

_SCOPE = re.compile(r"Credential=[^/,\s]+/[^/,\s]+/[^/,\s]*/(?P<service>[A-Za-z0-9_-]+)/aws4_request")
_OUR_SERVICES = frozenset({"lambda", "martlet", "execute-api"})
_DATED = re.compile(rb"/20\d\d-\d\d-\d\d/")
_FORM_BYTES = 1_048_576


def signed_service(request: Request) -> str:
    """The service in the credential scope of a SigV4 header or of a presigned URL, or ""."""
    found = _SCOPE.search(request.headers.get("authorization", ""))
    if found:
        return found["service"]
    parts = parse_qs(request.raw_query.decode("latin-1")).get("X-Amz-Credential", [""])[0].split("/")
    return parts[-2] if len(parts) >= 5 and parts[-1] == "aws4_request" else ""


def is_other_service(request: Request) -> bool:
    """True for a request that is signed for, or addressed to, an AWS service that is not Lambda."""
    return "x-amz-target" in request.headers or signed_service(request) not in ("", *_OUR_SERVICES)


def is_aws(request: Request) -> bool:
    """True for what only an AWS client sends: another service's request, or one of Lambda's dated paths."""
    return is_other_service(request) or _DATED.match(request.raw_path) is not None


async def refuse(request: Request) -> Answer:
    """501, naming service and operation, in JSON for JSON protocols and in XML for the others."""
    target = request.headers.get("x-amz-target", "")
    service = signed_service(request) or "lambda"
    path = request.raw_path.decode("latin-1")
    if target:
        return _json(request, f"the operation {target} is not supported")
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form = await request.body_up_to(_FORM_BYTES)
        action = parse_qs((form or b"").decode("latin-1")).get("Action", ["?"])[0]
        return _xml(request, f"the operation {service}:{action} is not supported", wrapped=True)
    if service == "s3":
        return _xml(request, f"the operation s3 {request.method} {path} is not supported", wrapped=False)
    return _json(request, f"the operation {service} {request.method} {path} is not supported")


def _json(request: Request, message: str) -> Answer:
    body = {"__type": "NotImplementedException", "Type": "User", "message": message}
    return asgi.json_answer(body, 501, (("x-amzn-errortype", "NotImplementedException"), ("x-amzn-requestid", request.id)))


def _xml(request: Request, message: str, *, wrapped: bool) -> Answer:
    inner = f"<Code>NotImplemented</Code><Message>{escape(message)}</Message>"
    if wrapped:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{inner}</Error><RequestId>{request.id}</RequestId></ErrorResponse>"
    else:
        text = f"<Error>{inner}<RequestId>{request.id}</RequestId></Error>"
    headers = (("content-type", "application/xml"), ("x-amzn-requestid", request.id))
    return Answer(501, f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode(), headers)
