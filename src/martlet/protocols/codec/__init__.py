"""The codec of AWS's wire protocols, server side, compiled from the services' public models.

Owns: the reading of botocore's service models (its data only), the protocols rest-json, json 1.0 and 1.1, query, ec2, rest-xml,
smithy-rpc-v2-cbor and event streams, the routing of requests to operations, the models' constraints, errors in every
protocol's form.
Offers: `candidates` and `route` (request → wire and operation), `Wire.decode` and `Wire.encode`, `check` (validation),
`answer` (errors), `Caller` and `method_of` (what a service is).
Never: knows a rule of a service beyond its model, keeps state of a request, expands an entity, believes a length.
"""

from martlet.protocols.codec.errors import answer
from martlet.protocols.codec.legacy import is_queue_path
from martlet.protocols.codec.model import OperationModel, ServiceModel, load, method_name
from martlet.protocols.codec.route import FAMILIAR, Routed, candidates, first_wire, is_dated, route, signed_service
from martlet.protocols.codec.service import Caller, method_of, permission_of, precheck
from martlet.protocols.codec.validate import check
from martlet.protocols.codec.wire import Malformed, WireAnswer, WireRequest
from martlet.protocols.codec.wires import Wire, wire_for

__all__ = [
    "FAMILIAR",
    "Caller",
    "Malformed",
    "OperationModel",
    "Routed",
    "ServiceModel",
    "Wire",
    "WireAnswer",
    "WireRequest",
    "answer",
    "candidates",
    "check",
    "first_wire",
    "is_dated",
    "is_queue_path",
    "load",
    "method_name",
    "method_of",
    "permission_of",
    "precheck",
    "route",
    "signed_service",
    "wire_for",
]
