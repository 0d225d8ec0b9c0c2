"""Whole service models both ways: what botocore serializes we decode to the same, and what we encode it parses to the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocols.codec.generated import ours, parsed, plain, serialized, shown, structure_of

from martlet.protocols.codec import OperationModel, candidates, route, wire_for

SERVICES = (
    "apigateway",
    "apigatewaymanagementapi",
    "apigatewayv2",
    "cloudformation",
    "cloudwatch",
    "dynamodb",
    "dynamodbstreams",
    "events",
    "iam",
    "kinesis",
    "lambda",
    "logs",
    "pipes",
    "s3",
    "scheduler",
    "secretsmanager",
    "sns",
    "sqs",
    "ssm",
    "stepfunctions",
    "sts",
    "xray",
)
HURRIED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
# Operations that differ in the host they are sent to, or are older names of others on the same path.
SAME_REQUEST = {
    "ListDirectoryBuckets",
    "GetBucketLifecycle",
    "PutBucketLifecycle",
    "GetBucketNotification",
    "PutBucketNotification",
    "WriteGetObjectResponse",
}


def operations(service: str) -> list[OperationModel]:
    return [
        operation
        for operation in ours(service).operations.values()
        if operation.name not in SAME_REQUEST
        and not (operation.input is not None and operation.input.stream_member() is not None)
    ]


def without_named(operation: OperationModel, found: dict[str, Any]) -> dict[str, Any]:
    """A map of the query holds the whole query, also what has a member of its own (Smithy, httpQueryParams)."""
    members = {} if operation.input is None else operation.input.members
    in_query = {name: inner for name, inner in members.items() if inner.location == "querystring"}
    named = {inner.wire_name(name) for name, inner in in_query.items() if inner.kind != "map"}
    maps = [name for name, inner in in_query.items() if inner.kind == "map" and name in found]
    return found | {name: {key: value for key, value in found[name].items() if key not in named} for name in maps}


@pytest.mark.parametrize("service", SERVICES)
@HURRIED
@given(data=st.data())
def test_what_botocore_serializes_is_decoded_to_the_same(service: str, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(operations(service)))
    params: dict[str, Any] = data.draw(structure_of(operation.input)) if operation.input is not None else {}
    request = serialized(service, operation.name, params)
    routed = route(candidates(request), request)
    assert routed.operation is operation, request
    found = without_named(operation, routed.wire.decode(routed.operation, request, routed.labels))
    form = routed.wire.service.protocol in ("query", "ec2")
    assert plain(found, form=form) == plain(params, form=form), f"{operation} {request}\n{shown(found)}"


@pytest.mark.parametrize("service", SERVICES)
@HURRIED
@given(data=st.data())
def test_what_is_encoded_botocore_parses_to_the_same(service: str, data: st.DataObject) -> None:
    # GetBucketLocation's answer is one that botocore's parser cannot read; a hook of its client does (test_codec)
    operation = data.draw(st.sampled_from([found for found in operations(service) if found.name != "GetBucketLocation"]))
    result: dict[str, Any] = {}
    if operation.output is not None and operation.output.stream_member() is None:
        result = data.draw(structure_of(operation.output, answer=True))
    elif operation.output is not None:
        return  # an event stream: test_eventstream
    answer = wire_for(operation.service).encode(operation, result, "the-request")
    found = parsed(service, operation.name, answer)
    assert found.pop("ResponseMetadata").get("RequestId", "the-request") == "the-request"
    unknown = {name for name in found if name not in result}
    for name in unknown:  # an empty body of a blob or text, or a list that has no items
        assert found.pop(name) in ("", b"", [], {}, None, 200, 202, 204), f"{operation} {answer}"
    assert plain(found) == plain(result), f"{operation} {answer}\n{shown(found)}"


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json", "query"])
@HURRIED
@given(data=st.data())
def test_a_service_of_several_protocols_speaks_each(protocol: str, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from(operations("cloudwatch")))
    params: dict[str, Any] = data.draw(structure_of(operation.input)) if operation.input is not None else {}
    request = serialized("cloudwatch", operation.name, params, protocol)
    routed = route(candidates(request), request)
    assert routed.operation is operation
    assert routed.wire is wire_for(operation.service, protocol)
    form = protocol == "query"
    assert plain(routed.wire.decode(operation, request, routed.labels), form=form) == plain(params, form=form)


def test_a_map_of_the_query_holds_what_has_a_member_of_its_own_too() -> None:
    params = {"restApiId": "0", "mode": "merge", "parameters": {"a": "b"}, "body": b"{}"}
    request = serialized("apigateway", "PutRestApi", params)
    routed = route(candidates(request), request)
    found = routed.wire.decode(routed.operation, request, routed.labels)
    assert found == {**params, "parameters": {"a": "b", "mode": "merge"}}
    assert without_named(routed.operation, found) == params
