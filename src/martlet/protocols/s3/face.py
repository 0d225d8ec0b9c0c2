"""The endpoint: from a request to the service's method and back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from martlet.errors import InvalidInput, MartletError, ServiceError, Unauthenticated, Unsupported
from martlet.protocols import asgi, codec
from martlet.protocols.asgi import Answer, ASGIApp, Request
from martlet.protocols.codec import Caller, Malformed, OperationModel, Wire, WireAnswer, WireRequest
from martlet.protocols.rooms import Rooms
from martlet.protocols.s3 import cors
from martlet.protocols.s3.addresses import bucket_of_host
from martlet.protocols.s3.bodies import ChunkedBody, PlainBody, body_of, decoded_encoding
from martlet.protocols.s3.failures import unbelieved
from martlet.protocols.s3.forms import Form
from martlet.types import ACCOUNT, ANONYMOUS, Principal

__all__ = ["app"]

_log = logging.getLogger("martlet.protocols")

_DOCUMENT_BYTES: Final = 4_194_304  # of a body that is no object: a list of 10,000 parts is the longest
_STREAMED: Final = frozenset({"PutObject", "UploadPart"})
_EMPTY: Final = (b"part-number-marker=", b"max-parts=", b"max-keys=", b"max-uploads=")  # numbers that are not there
_PRESIGN: Final = "x-martlet-presign"
_RANGED: Final = frozenset({"GetObject", "HeadObject"})
_OF_CONDITIONS: Final = ("user-agent", "referer")
_ABOUT_OBJECTS: Final = frozenset({"CompleteMultipartUpload", "CopyObject"})  # whose checksum headers are not of their body
_STATUS: Final = {"PutBucketPolicy": 204, "PutBucketTagging": 204}  # where it is not the model's
_CAPITALS: Final = {"etag": "ETag", "content-md5": "Content-MD5"}


def app(rooms: Rooms) -> ASGIApp:
    """The endpoint of S3. Expects `rooms.services["s3"]`; `scope["martlet.context"]` stands for a signature."""
    return asgi.app(_Face(rooms).respond, lambda error, request: asgi.problem_answer(error, request.id), rooms.audit)


class _Visit:
    """One request on its way; what is known of it so far decides in which form it is answered."""

    __slots__ = ("bucket", "key", "operation", "principal", "region", "request", "wire", "wire_request")

    def __init__(self, request: Request) -> None:
        self.request = request
        host = bucket_of_host(request.headers.get("host", ""))
        path = request.raw_path if not host else b"/" + host.encode() + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        self.wire_request = WireRequest(request.method, path, request.raw_query, headers, b"")
        bucket, _, key = path[1:].partition(b"/")
        self.bucket = unquote(bucket.decode("latin-1"))
        self.key = key
        self.wire: Wire | None = None
        self.operation: OperationModel | None = None
        self.principal: Principal = ANONYMOUS
        self.region = ""  # that the request is signed for


class _Face:
    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._service: Any = rooms.services.get("s3")

    async def respond(self, request: Request) -> Answer:
        """The answer to a request, errors included, in S3's form."""
        visit = _Visit(request)
        try:
            answer = await self._respond(visit)
        except Unauthenticated as error:
            request.error = error
            believed = unbelieved(error, request.raw_query, request.headers.get("authorization", ""), self._rooms.now_ms())
            answer = self._failed(believed, visit)
        except (MartletError, Malformed) as error:
            request.error = error if isinstance(error, MartletError) else None
            answer = self._failed(error, visit)
        except asgi.ClientGone:
            raise
        except OSError as error:
            _log.error("request %s %s failed: %s", request.id, visit.operation, error)
            failed = ServiceError("InternalError", "We encountered an internal error. Please try again.", 500)
            answer = self._failed(failed, visit)
        except Exception:
            _log.exception("request %s %s failed", request.id, visit.operation)
            failed = ServiceError("InternalError", "We encountered an internal error. Please try again.", 500)
            answer = self._failed(failed, visit)
        return self._sent(answer, visit)

    async def _respond(self, visit: _Visit) -> WireAnswer:
        if self._service is None:
            raise Unsupported("this platform has no objects")
        model = codec.load("s3")
        assert model is not None
        visit.wire = codec.wire_for(model)
        request = visit.request
        if request.method == "OPTIONS":
            return self._preflight(visit)
        if _is_form(visit):
            return await self._form(visit)
        routed = codec.route(("s3",), visit.wire_request)
        visit.operation = routed.operation
        payload, signer = self._authenticate(visit)
        if _PRESIGN in request.headers and request.context is not None:
            return await self._presigned(visit)
        body: PlainBody | ChunkedBody | None = None
        wire_request = visit.wire_request
        streamed = routed.operation.name in _STREAMED
        has_body = request.method in ("PUT", "POST") or request.content_length()
        if has_body:
            body = body_of(request.stream(), request.headers, payload, signer)
            if not streamed:
                wire_request = await self._document(visit, body)
        elif payload not in ("", "UNSIGNED-PAYLOAD", hashlib.sha256(b"").hexdigest()):
            async for _ in PlainBody(request.stream(), 0, payload):
                pass
        value = routed.wire.decode(routed.operation, _adjusted(wire_request), routed.labels)
        if streamed:
            value["Body"] = body
        return await self._perform(visit, value)

    async def _presigned(self, visit: _Visit) -> WireAnswer:
        """A sandbox asks for a URL that it may hand to others: "GET 900" in a header of ours."""
        method, _, seconds = visit.request.headers[_PRESIGN].partition(" ")
        if method not in ("GET", "PUT", "HEAD", "DELETE") or not seconds.isdigit() or not 1 <= int(seconds) <= 604_800:
            raise InvalidInput(f"{_PRESIGN} is a method and 1 to 604800 seconds")
        if self._rooms.presign is None:
            raise Unsupported("this platform signs no URLs")
        url = await self._rooms.presign(visit.principal, method, visit.wire_request.path.decode("latin-1"), int(seconds))
        return WireAnswer(200, (("content-type", "text/plain"),), url.encode())

    async def _perform(self, visit: _Visit, value: dict[str, Any]) -> WireAnswer:
        operation, wire = visit.operation, visit.wire
        assert operation is not None
        assert wire is not None
        method = codec.method_of(self._service, operation)
        result = await method(self._caller(visit), value) or {}
        answer = wire.encode(operation, {**result, "Body": None} if "Body" in result else result, visit.request.id)
        if operation.name in _STATUS:
            return msgspec.structs.replace(answer, status=_STATUS[operation.name])
        if operation.name == "HeadBucket":
            return msgspec.structs.replace(answer, headers=(*answer.headers, ("content-type", "application/xml")))
        if operation.name in _RANGED:
            headers = tuple(pair for pair in answer.headers if pair[0] != "x-amz-missing-meta")
            status = 206 if result.get("ContentRange") else answer.status
            body: Any = result["Body"] if operation.name == "GetObject" else b""
            return WireAnswer(status, headers, aiter(body) if operation.name == "GetObject" else body)
        return answer

    # --- who

    def _authenticate(self, visit: _Visit) -> tuple[str, Any]:
        """(what the body must be, who checks its chunks)."""
        request = visit.request
        headers = request.headers
        authorization = headers.get("authorization", "")
        if authorization.startswith("AWS "):
            text = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
            raise ServiceError("InvalidRequest", text, 400)
        if request.context is not None:
            visit.principal = request.context
            said = headers.get("x-amz-content-sha256", "")
            return said if not said.startswith("STREAMING-AWS4") else _unsigned_chunks(said), None
        auth: Any = self._rooms.auth
        query, path = request.raw_query, visit.wire_request.path
        signed = None if authorization else auth.identify_query(request.method, path, query, headers)
        signed = signed or auth.identify(request.method, request.raw_path, query, request.raw_headers)
        if signed is None:
            said = headers.get("x-amz-content-sha256", "")
            return said if said.startswith("STREAMING-UNSIGNED") else "", None
        visit.principal = signed.principal
        self._check_region(signed.claim)
        visit.region = signed.claim.region if signed.claim is not None else ""
        return signed.payload, signed.signer

    def _check_region(self, claim: Any) -> None:
        """Only S3's own name for "anywhere" is told apart: any real region reaches the one there is."""
        if claim is not None and claim.region == "aws-global":
            text = f"The authorization header is malformed; the region 'aws-global' is wrong; expecting '{self._rooms.region}'"
            raise ServiceError("AuthorizationHeaderMalformed", text, 400, Region=self._rooms.region)

    def _caller(self, visit: _Visit) -> Caller:
        request = visit.request
        conditions = {
            f"aws:{name.replace('-', '')}": request.headers[name] for name in _OF_CONDITIONS if name in request.headers
        }
        conditions["aws:securetransport"] = "false"
        for name, value in request.headers.items():
            if name.startswith("x-amz-") and name != "x-amz-security-token":
                conditions[f"s3:{name}"] = value
        return Caller(
            principal=visit.principal,
            region=visit.region or self._rooms.region,
            account=ACCOUNT,
            request_id=request.id,
            endpoint=f"http://{request.headers.get('host', '127.0.0.1')}",
            source_ip=request.client_ip,
            conditions=conditions,
        )

    # --- bodies that are documents

    async def _document(self, visit: _Visit, body: PlainBody | ChunkedBody) -> WireRequest:
        if (body.size or 0) > _DOCUMENT_BYTES:
            text = "Your request was too big."
            raise ServiceError("MaxMessageLengthExceeded", text, 400, MaxMessageLengthBytes=_DOCUMENT_BYTES)
        raw = b"".join([part async for part in body])
        headers = visit.request.headers
        _check_md5(headers.get("content-md5"), raw)
        if visit.operation is None or visit.operation.name not in _ABOUT_OBJECTS:
            self._service.check_document(headers | dict(body.trailers), raw)
        return msgspec.structs.replace(visit.wire_request, body=raw)

    # --- forms

    async def _form(self, visit: _Visit) -> WireAnswer:
        request = visit.request
        form = await Form.read(request.stream(), request.headers.get("content-type", ""), request.content_length())
        auth: Any = self._rooms.auth
        given = self._service.form(form.fields, self._rooms.now_ms(), visit.bucket)
        if given.credential:
            visit.principal = auth.signed_policy(given.credential, given.policy, given.signature, given.token)
        value = {"Bucket": visit.bucket, **given.request, "Body": form.file(given.least, given.most)}
        result = await self._service.put_object(self._caller(visit), value, event="ObjectCreated:Post")
        status, headers, body = given.answer(result, f"http://{request.headers.get('host', '')}", visit.bucket)
        found = (("etag", result["ETag"]), ("x-amz-request-id", request.id), *headers)
        for name, value in result.items():
            if name.startswith("Checksum"):
                header = "type" if name == "ChecksumType" else name.removeprefix("Checksum").lower()
                found = (*found, (f"x-amz-checksum-{header}", value))
        if result.get("VersionId"):
            found = (*found, ("x-amz-version-id", result["VersionId"]))
        return WireAnswer(status, found, body)

    # --- cross-origin

    def _rules(self, visit: _Visit) -> Any:
        bucket = self._service.objects.find(visit.bucket) if self._service is not None and visit.bucket else None
        return None if bucket is None else bucket.settings.get("cors")

    def _preflight(self, visit: _Visit) -> WireAnswer:
        exists = bool(visit.bucket) and self._service.objects.find(visit.bucket) is not None
        found = cors.preflight(visit.request.headers, self._rules(visit), exists=exists, of_object=bool(visit.key))
        return WireAnswer(200, (("x-amz-request-id", visit.request.id), *found), b"")

    # --- answers

    def _failed(self, error: MartletError | Malformed, visit: _Visit) -> WireAnswer:
        wire = visit.wire
        if wire is None:
            model = codec.load("s3")
            wire = codec.wire_for(model) if model is not None else None
        answer = codec.answer(error, wire, visit.operation, visit.wire_request, visit.request.id)
        more = getattr(error, "details", {}).get("headers", ())
        return msgspec.structs.replace(answer, headers=(*answer.headers, *more)) if more else answer

    def _sent(self, answer: WireAnswer, visit: _Visit) -> Answer:
        headers = answer.headers
        if not any(name == "x-amz-id-2" for name, _ in headers):
            headers = (*headers, ("x-amz-id-2", base64.b64encode(visit.request.id.encode()).decode()))
        if "origin" in visit.request.headers and visit.request.method != "OPTIONS":
            headers = (*headers, *cors.headers_for(visit.request.headers, visit.request.method, self._rules(visit)))
        named = tuple((_spelled(name), value) for name, value in headers)
        return Answer(answer.status, answer.body, (*named, ("server", "AmazonS3")))


def _spelled(name: str) -> str:
    """A header's name as S3 spells it: its own in lower case, HTTP's in capitals. Some clients tell them apart."""
    if name.startswith("x-amz-") or name in ("accept-ranges", "server", "content-length"):
        return name
    return _CAPITALS.get(name) or name.title()


def _is_form(visit: _Visit) -> bool:
    request = visit.request
    if request.method != "POST" or visit.key or not visit.bucket:
        return False
    if b"delete" in request.raw_query.split(b"&") or b"delete=" in request.raw_query or b"uploads" in request.raw_query:
        return False
    return not request.raw_query or request.headers.get("content-type", "").startswith("multipart/form-data")


def _unsigned_chunks(said: str) -> str:
    """Inside a sandbox nobody's signature is checked: the connection itself says who it is."""
    return "STREAMING-UNSIGNED-PAYLOAD-TRAILER" if said.endswith("TRAILER") else said


def _adjusted(request: WireRequest) -> WireRequest:
    """Headers as they describe the object."""
    headers = dict(request.headers)
    if "content-encoding" in headers:
        kept = decoded_encoding(headers["content-encoding"])
        if kept:
            headers["content-encoding"] = kept
        else:
            del headers["content-encoding"]
    if "x-amz-decoded-content-length" in headers:
        headers["content-length"] = headers["x-amz-decoded-content-length"]
    query = b"&".join(part for part in request.query.split(b"&") if part not in _EMPTY)
    return msgspec.structs.replace(request, headers=headers, query=query)


def _check_md5(text: str | None, raw: bytes) -> None:
    if text is None:
        return
    try:
        given = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        given = b""
    if len(given) != 16:
        raise ServiceError("InvalidDigest", "The Content-MD5 you specified was invalid.", 400, **{"Content-MD5": text})
    found = hashlib.md5(raw, usedforsecurity=False).digest()
    if found != given:
        members = {"ExpectedDigest": text, "CalculatedDigest": base64.b64encode(found).decode()}
        raise ServiceError("BadDigest", "The Content-MD5 you specified did not match what we received.", 400, **members)
