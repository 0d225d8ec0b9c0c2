"""The protocols themselves: an operation's request → its input, its result → an answer. Compiled once an operation.

`wire_for(service, protocol)` gives the one object of a service and a protocol; it is stateless but for what it has compiled.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from typing import Any, Final

import msgspec
import orjson

from martlet.errors import Unsupported
from martlet.protocols.codec import cbor_body, form_body, json_body, rest, xml_body
from martlet.protocols.codec.dynamodb_texts import mistyped
from martlet.protocols.codec.eventstream import CONTENT_TYPE, EventEncoder
from martlet.protocols.codec.model import OperationModel, ServiceModel, Shape
from martlet.protocols.codec.wire import Malformed, WireAnswer, WireRequest

__all__ = ["CborWire", "Ec2Wire", "JsonWire", "QueryWire", "RestJsonWire", "RestXmlWire", "Wire", "wire_for"]

Decode = Callable[[WireRequest, Mapping[str, str]], dict[str, Any]]
Encode = Callable[[dict[str, Any], str], WireAnswer]

_XML: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_INFLATED_BYTES_MAX: Final = 10 * 1024 * 1024
_BODILESS: Final = frozenset({204, 304})
# Services whose answers carry a CRC-32 of the body, which their clients check.
_WITH_CRC: Final = frozenset({"dynamodb", "dynamodbstreams"})
# Blobs that are a whole body and have a better type than octet-stream. https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_BLOB_TYPES: Final = {("lambda", "Invoke"): "application/json"}


class Wire:
    """One service in one protocol."""

    syntax = "json"  # in which errors are written: json, cbor, xml
    content_type = "application/json"

    def __init__(self, service: ServiceModel) -> None:
        self.service = service
        self._decoders: dict[str, Decode] = {}
        self._encoders: dict[str, Encode] = {}

    def decode(
        self, operation: OperationModel, request: WireRequest, labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The operation's input. `labels`: what the router found in the path. Raises `Malformed`, `Unsupported`."""
        compiled = self._decoders.get(operation.name)
        if compiled is None:
            compiled = self._decoders[operation.name] = self.decoder(operation)
        if operation.compressed and request.headers.get("content-encoding", "").lower() == "gzip":
            request = msgspec.structs.replace(request, body=_inflated(request.body))
        try:
            return compiled(request, labels or {})
        except RecursionError as error:
            raise Malformed("the body is nested too deeply", "body") from error

    def encode(self, operation: OperationModel, result: dict[str, Any] | None, request_id: str = "") -> WireAnswer:
        """The answer to a call that went well. Members that are None or that the model does not know are left out."""
        compiled = self._encoders.get(operation.name)
        if compiled is None:
            compiled = self._encoders[operation.name] = self.encoder(operation)
        return compiled(result or {}, request_id)

    def decoder(self, operation: OperationModel) -> Decode:
        raise NotImplementedError

    def encoder(self, operation: OperationModel) -> Encode:
        raise NotImplementedError

    def structure_body(self, shape: Shape, value: dict[str, Any]) -> bytes:
        """A structure as a body of this syntax: events, errors."""
        raise NotImplementedError

    def events(self, shape: Shape) -> EventEncoder:
        return EventEncoder(shape, self.structure_body, self.content_type)


def _inflated(body: bytes) -> bytes:
    """A compressed body, as CloudWatch's clients send; no more of it than one that is not compressed could have."""
    try:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        found = stream.decompress(body, _INFLATED_BYTES_MAX)
    except zlib.error as error:
        raise Malformed("the body is not what Content-Encoding says", "body") from error
    if not stream.eof:
        raise Malformed("the compressed body is too large or does not end", "body")
    return found


def _no_events_in(operation: OperationModel) -> None:
    if operation.input is not None and operation.input.stream_member() is not None:
        raise Unsupported(f"{operation.name}: event streams in a request are not supported")


class JsonWire(Wire):
    """json 1.0 and 1.1: POST /, the operation in X-Amz-Target, everything in the body."""

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self.content_type = f"application/x-amz-json-{service.json_version}"
        self._in: json_body.JsonDecoders = json_body.JsonDecoders()
        self._out: json_body.JsonEncoders = json_body.JsonEncoders()

    def parse(self, body: bytes) -> Any:
        return json_body.parse(body)

    def dump(self, value: Any) -> bytes:
        return orjson.dumps(value)

    def structure_body(self, shape: Shape, value: dict[str, Any]) -> bytes:
        convert = self._out.structure({n: (s.wire_name(n), s) for n, s in shape.members.items() if not s.event_stream})
        return self.dump(convert(value))

    def decoder(self, operation: OperationModel) -> Decode:
        _no_events_in(operation)
        shape = operation.input
        convert = None if shape is None else self._in.of(shape)
        own_words = self.service.name == "dynamodb"

        def decode(request: WireRequest, labels: Mapping[str, str]) -> dict[str, Any]:
            value = self.parse(request.body) if request.body else None
            if value is None:
                value = {}
            if convert is not None and shape is not None:
                try:
                    found: dict[str, Any] = convert(value)
                except Malformed as error:
                    if not own_words:
                        raise
                    raise Malformed(mistyped(shape, value) or error.message) from error
                return found
            if type(value) is not dict:
                raise Malformed("Unexpected value type in payload")
            return {}

        return decode

    def encoder(self, operation: OperationModel) -> Encode:
        output = operation.output
        if output is not None and (stream := output.stream_member()) is not None:
            return self._event_encoder(output, *stream)
        convert = None if output is None else self._out.of(output)
        crc = self.service.name in _WITH_CRC
        content_type = ("content-type", self.content_type)
        dump = self.dump

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            body = b"" if convert is None else dump(convert(result))
            headers = (content_type, ("x-amzn-requestid", request_id))
            return WireAnswer(200, (*headers, ("x-amz-crc32", str(zlib.crc32(body)))) if crc else headers, body)

        return encode

    def _event_encoder(self, output: Shape, name: str, shape: Shape) -> Encode:
        events = self.events(shape)

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            first = events.initial(output, {key: value for key, value in result.items() if key != name})
            headers = (("content-type", CONTENT_TYPE), ("x-amzn-requestid", request_id))
            return WireAnswer(200, headers, events.stream(result[name], first))

        return encode


class CborWire(JsonWire):
    """smithy-rpc-v2-cbor: POST /service/{service}/operation/{operation}, CBOR both ways."""

    syntax = "cbor"

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self.content_type = "application/cbor"
        self._in = cbor_body.CborDecoders()
        self._out = cbor_body.CborEncoders()

    def parse(self, body: bytes) -> Any:
        return cbor_body.parse(body)

    def dump(self, value: Any) -> bytes:
        return cbor_body.dump(value)

    def encoder(self, operation: OperationModel) -> Encode:
        inner = super().encoder(operation)

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            answer = inner(result, request_id)
            return WireAnswer(answer.status, (*answer.headers, ("smithy-protocol", "rpc-v2-cbor")), answer.body)

        return encode


class QueryWire(Wire):
    """query: a form in (POST, or GET with everything in the query string), XML out."""

    syntax = "xml"
    content_type = "text/xml"

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self._in = form_body.FormDecoders()
        self._out = xml_body.XmlEncoders()
        self._attributes = f' xmlns="{xml_body.escape(service.namespace)}"' if service.namespace else ""

    def structure_body(self, shape: Shape, value: dict[str, Any]) -> bytes:
        out: list[str] = []
        self._out.content(shape.members)(out, value)
        return "".join(out).encode()

    def decoder(self, operation: OperationModel) -> Decode:
        read = None if operation.input is None else self._in.of(operation.input)

        def decode(request: WireRequest, labels: Mapping[str, str]) -> dict[str, Any]:
            tree = form_body.parse(request.body or request.query)
            found: dict[str, Any] = {} if read is None else read(tree)
            return found

        return decode

    def encoder(self, operation: OperationModel) -> Encode:
        output = operation.output
        write = None if output is None else self._out.content(output.members)
        wrapper = "" if output is None else str(output.traits.get("resultWrapper", f"{operation.name}Result"))
        begin, end = f"{_XML}<{operation.name}Response{self._attributes}>", f"</{operation.name}Response>\n"

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            out = [begin]
            if write is not None:
                out.append(f"<{wrapper}>")
                write(out, result)
                out.append(f"</{wrapper}>")
            out.append(f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>")
            out.append(end)
            return WireAnswer(200, _xml_headers(self.content_type, request_id), "".join(out).encode())

        return encode


class Ec2Wire(QueryWire):
    """ec2: like query, with its own names and no wrapper around the result."""

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self._in = form_body.FormDecoders(ec2=True)

    def encoder(self, operation: OperationModel) -> Encode:
        write = None if operation.output is None else self._out.content(operation.output.members)
        begin, end = f"{_XML}<{operation.name}Response{self._attributes}>", f"</{operation.name}Response>\n"

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            out = [begin, f"<requestId>{request_id}</requestId>"]
            if write is not None:
                write(out, result)
            out.append(end)
            return WireAnswer(200, _xml_headers(self.content_type, request_id), "".join(out).encode())

        return encode


def _xml_headers(content_type: str, request_id: str) -> tuple[tuple[str, str], ...]:
    return (("content-type", content_type), ("x-amzn-requestid", request_id))


BodyIn = Callable[[bytes], Any]  # None: nothing there
BodyOut = Callable[[dict[str, Any]], tuple[str, bytes | AsyncIterator[bytes]]]  # (content type or "", body)


class RestWire(Wire):
    """What the two REST protocols share: the binding of members that are not in the body."""

    request_id_header = "x-amzn-requestid"

    def read_structure(self, members: dict[str, Shape]) -> BodyIn:
        """Members of the body that are parts of one document."""
        raise NotImplementedError

    def read_payload(self, shape: Shape) -> BodyIn:
        """A member that is the whole document."""
        raise NotImplementedError

    def write_structure(self, operation: OperationModel, output: Shape) -> BodyOut:
        raise NotImplementedError

    def write_payload(self, name: str, shape: Shape) -> BodyOut:
        raise NotImplementedError

    def decoder(self, operation: OperationModel) -> Decode:
        _no_events_in(operation)
        bound = rest.bind_inputs(operation)
        read, payload = self._reader(operation.input)

        def decode(request: WireRequest, labels: Mapping[str, str]) -> dict[str, Any]:
            found: dict[str, Any] = {}
            query = rest.parse_query(request.query)
            for name, take in bound:
                value = take(labels, query, request.headers)
                if value is not None:
                    found[name] = value
            if read is not None and request.body:
                body = read(request.body)
                if payload:
                    found[payload] = body
                else:
                    found.update(body)
            return found

        return decode

    def _reader(self, shape: Shape | None) -> tuple[BodyIn | None, str]:
        if shape is None:
            return None, ""
        if shape.payload:
            inner = shape.members[shape.payload]
            if inner.kind == "blob":
                return bytes, shape.payload
            return (_text if inner.kind == "string" else self.read_payload(inner)), shape.payload
        members = rest.body_members(shape)
        return (self.read_structure(members) if members else None), ""

    def encoder(self, operation: OperationModel) -> Encode:
        output = operation.output
        bound, status_member = rest.bind_outputs(output)
        write = self._writer(operation, output)
        head = operation.http_method == "HEAD"

        def encode(result: dict[str, Any], request_id: str) -> WireAnswer:
            status = operation.http_status
            if status_member and result.get(status_member) is not None:
                status = int(result[status_member])
            headers = [(self.request_id_header, request_id)]
            for name, put in bound:
                value = result.get(name)
                if value is not None:
                    headers += put(value)
            if head or status in _BODILESS:
                return WireAnswer(status, tuple(headers), b"")
            content_type, body = write(result)
            if content_type and not any(name == "content-type" for name, _ in headers):
                headers.append(("content-type", content_type))
            return WireAnswer(status, tuple(headers), body)

        return encode

    def _writer(self, operation: OperationModel, output: Shape | None) -> BodyOut:
        if output is None:
            return lambda result: ("", b"")
        name = output.payload
        if not name:
            return self.write_structure(operation, output)
        shape = output.members[name]
        if shape.event_stream:
            events = self.events(shape)
            return lambda result: (CONTENT_TYPE, events.stream(result[name]))
        if shape.kind == "blob":
            content_type = _BLOB_TYPES.get((self.service.name, operation.name), "application/octet-stream")
            return lambda result: _blob_out(result.get(name), content_type)
        if shape.kind == "string":
            return lambda result: ("text/plain", str(result.get(name) or "").encode())
        return self.write_payload(name, shape)


def _blob_out(value: Any, content_type: str) -> tuple[str, bytes | AsyncIterator[bytes]]:
    if value is None:
        return "", b""
    if isinstance(value, str):
        return content_type, value.encode()
    return content_type, bytes(value) if isinstance(value, bytearray | memoryview) else value


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Malformed("the body is not UTF-8", "body") from error


class RestJsonWire(RestWire):
    """rest-json."""

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self._in = json_body.JsonDecoders()
        self._out = json_body.JsonEncoders()

    def structure_body(self, shape: Shape, value: dict[str, Any]) -> bytes:
        convert = self._out.structure({n: (s.wire_name(n), s) for n, s in rest.body_members(shape, answer=True).items()})
        return orjson.dumps(convert(value))

    def read_structure(self, members: dict[str, Shape]) -> BodyIn:
        convert = self._in.structure({name: (shape.wire_name(name), shape) for name, shape in members.items()})

        def read(body: bytes) -> Any:
            value = json_body.parse(body)
            return {} if value is None else convert(value)

        return read

    def read_payload(self, shape: Shape) -> BodyIn:
        convert = self._in.of(shape)

        def read(body: bytes) -> Any:
            value = json_body.parse(body)
            return value if value is None or convert is None else convert(value)

        return read

    def write_structure(self, operation: OperationModel, output: Shape) -> BodyOut:
        convert = self._out.structure(
            {name: (s.wire_name(name), s) for name, s in rest.body_members(output, answer=True).items()}
        )
        return lambda result: ("application/json", orjson.dumps(convert(result)))

    def write_payload(self, name: str, shape: Shape) -> BodyOut:
        convert = self._out.of(shape)

        def write(result: dict[str, Any]) -> tuple[str, bytes]:
            value = result.get(name)
            if value is None:
                return "", b""
            return "application/json", orjson.dumps(value if convert is None else convert(value))

        return write


# What S3 calls the root of an answer, where the model does not say.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html
_S3_ROOTS: Final = {
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketAccelerateConfiguration": "AccelerateConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketLocation": "LocationConstraint",
    "GetBucketLogging": "BucketLoggingStatus",
    "GetBucketRequestPayment": "RequestPaymentConfiguration",
    "GetBucketTagging": "Tagging",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketWebsite": "WebsiteConfiguration",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
    "GetObjectTagging": "Tagging",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListParts": "ListPartsResult",
}
_S3_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


class RestXmlWire(RestWire):
    """rest-xml."""

    syntax = "xml"
    content_type = "application/xml"

    def __init__(self, service: ServiceModel) -> None:
        super().__init__(service)
        self._s3 = service.name == "s3"
        self.request_id_header = "x-amz-request-id" if self._s3 else "x-amzn-requestid"
        self._in = xml_body.XmlDecoders()
        self._out = xml_body.XmlEncoders(milliseconds=self._s3)
        namespace = service.namespace or (_S3_NAMESPACE if self._s3 else "")
        self._attributes = f' xmlns="{xml_body.escape(namespace)}"' if namespace else ""

    def structure_body(self, shape: Shape, value: dict[str, Any]) -> bytes:
        out: list[str] = []
        self._out.of(shape)(out, shape.wire_name(shape.name), value)
        return "".join(out).encode()

    def read_structure(self, members: dict[str, Shape]) -> BodyIn:
        read = self._in.structure(members)
        return lambda body: read(xml_body.parse(body))

    def read_payload(self, shape: Shape) -> BodyIn:
        read = self._in.of(shape)
        return lambda body: read(xml_body.parse(body))

    def write_structure(self, operation: OperationModel, output: Shape) -> BodyOut:
        members = rest.body_members(output, answer=True)
        if not members:
            return lambda result: ("", b"")
        if any(inner.traits.get("xmlAttribute") for inner in members.values()):
            return self._whole(output)
        root = str(output.traits.get("locationName") or (_S3_ROOTS.get(operation.name) if self._s3 else "") or output.name)
        begin, end = f"{_XML}<{root}{self._attributes}>", f"</{root}>"
        if self._s3 and operation.name == "GetBucketLocation":  # the one answer whose root holds text

            def location(result: dict[str, Any]) -> tuple[str, bytes]:
                text = result.get("LocationConstraint")
                return "application/xml", (f"{begin}{text}{end}" if text else f"{begin[:-1]}/>").encode()

            return location
        write = self._out.content(members)

        def whole(result: dict[str, Any]) -> tuple[str, bytes]:
            out = [begin]
            write(out, result)
            out.append(end)
            return "application/xml", "".join(out).encode()

        return whole

    def _whole(self, output: Shape) -> BodyOut:
        """An answer whose root has attributes."""
        return lambda result: ("application/xml", _XML.encode() + self.structure_body(output, result))

    def write_payload(self, name: str, shape: Shape) -> BodyOut:
        emit = self._out.of(shape)
        root = str(shape.traits.get("locationName") or shape.name)

        def write(result: dict[str, Any]) -> tuple[str, bytes]:
            value = result.get(name)
            if value is None:
                return "", b""
            out = [_XML]
            emit(out, root, value)
            if self._attributes and "xmlNamespace" not in shape.traits:
                out[1] = out[1].replace(f"<{root}", f"<{root}{self._attributes}", 1)
            return "application/xml", "".join(out).encode()

        return write


_WIRES: Final[dict[str, type[Wire]]] = {
    "json": JsonWire,
    "smithy-rpc-v2-cbor": CborWire,
    "query": QueryWire,
    "ec2": Ec2Wire,
    "rest-json": RestJsonWire,
    "rest-xml": RestXmlWire,
}


@cache
def wire_for(service: ServiceModel, protocol: str = "") -> Wire:
    """The wire of a service, in its own protocol or in another that its clients speak too."""
    return _WIRES[protocol or service.protocol](service)
