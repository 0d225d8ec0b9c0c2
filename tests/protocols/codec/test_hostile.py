"""Requests that mean harm: each gets the right error, none gets a 500, none takes long or much."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocols.codec.generated import ours

from martlet.errors import ServiceError
from martlet.protocols.codec import Malformed, WireRequest, answer, candidates, check, route, wire_for
from martlet.protocols.codec.errors import fault_of
from martlet.protocols.codec.wire import DEPTH_MAX

SCOPE = "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
FORM = "application/x-www-form-urlencoded"


def request(
    service: str, body: bytes, *, method: str = "POST", path: bytes = b"/", query: bytes = b"", **more: str
) -> WireRequest:
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    return WireRequest(method, path, query, {"authorization": SCOPE.format(service), **headers}, body)


def decoded(sent: WireRequest) -> dict[str, Any]:
    routed = route(candidates(sent), sent)
    value = routed.wire.decode(routed.operation, sent, routed.labels)
    check(routed.operation, value)
    return value


def refused(sent: WireRequest) -> str:
    """The code of the error that the sender gets."""
    try:
        decoded(sent)
    except (Malformed, ServiceError) as error:
        wire = wire_for(ours(candidates(sent)[0]))
        found = answer(error, wire, None, sent, "id")
        assert found.status < 500
        family = {"s3": "s3", "query": "query", "json": "rpc"}.get(
            "s3" if wire.service.name == "s3" else wire.service.protocol, "json"
        )
        return fault_of(error, family, wire.service.name).name
    raise AssertionError("it was taken")


def put_item(body: bytes) -> WireRequest:
    return request("dynamodb", body, x_amz_target="DynamoDB_20120810.PutItem")


def put_tagging(body: bytes) -> WireRequest:
    return request("s3", body, method="PUT", path=b"/b", query=b"tagging")


def create_function(body: bytes) -> WireRequest:
    return request("lambda", body, path=b"/2015-03-31/functions")


def create_role(body: bytes) -> WireRequest:
    return request("iam", b"Action=CreateRole&Version=2010-05-08&" + body, content_type=FORM)


def put_metric(body: bytes) -> WireRequest:
    path = b"/service/GraniteServiceVersion20100801/operation/PutMetricData"
    return request("monitoring", body, path=path, smithy_protocol="rpc-v2-cbor")


NOT_JSON = [
    b"{",
    b'{"TableName":',
    b'{"TableName":"t"',
    b"{'TableName':'t'}",
    b'{"TableName":"\xff\xfe"}',
    b'{"TableName":"\\ud800"}',
    b'{"TableName":NaN}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"nonsense",
    b"\x00",
]


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_no_json(body: bytes) -> None:
    assert refused(put_item(body)) == "SerializationException"
    assert refused(create_function(body)) == "InvalidRequestContentException"


WRONG_TYPES = [
    (b"[]", "Structure"),
    (b'"x"', "Unexpected value type in payload"),
    (b"1", "Unexpected value type in payload"),
    (b'{"TableName":1,"Item":{}}', "NUMBER_VALUE cannot be converted to String"),
    (b'{"TableName":1.5,"Item":{}}', "DECIMAL_VALUE cannot be converted to String"),
    (b'{"TableName":true,"Item":{}}', "TRUE_VALUE cannot be converted to String"),
    (b'{"TableName":["t"],"Item":{}}', "Unrecognized collection type class java.lang.String"),
    (b'{"TableName":{"a":1},"Item":{}}', "Start of structure or map found where not expected"),
    (
        b'{"TableName":"t","Item":[]}',
        "Unrecognized collection type java.util.Map<java.lang.String, com.amazonaws.dynamodb.v20120810.AttributeValue>",
    ),
    (b'{"TableName":"t","Item":"x"}', "Unexpected field type"),
    (
        b'{"TableName":"t","Item":{"a":{"B":"not base64!"}}}',
        "Base64 encoded length is expected a multiple of 4 bytes but found: 11",
    ),
    (b'{"TableName":"t","Item":{"a":{"B":"YQ"}}}', "Base64 encoded length is expected a multiple of 4 bytes but found: 2"),
    (b'{"TableName":"t","Item":{"a":{"B":"+/+="}}}', "Invalid last non-pad Base64 character dectected"),
    (b'{"TableName":"t","Item":{"a":{"B":7}}}', "only base-64-encoded strings are convertible to bytes"),
    (b'{"TableName":"t","Item":{"a":"x"}}', "Unexpected value type in payload"),
    (b'{"TableName":"t","Item":{"a":{"L":["x"]}}}', "Unexpected value type in payload"),
    (b'{"TableName":"t","Item":{"a":{"BOOL":"true"}}}', "Unexpected token received from parser"),
    (b'{"TableName":"t","Item":{"a":{"SS":{}}}}', "Start of structure or map"),
]


@pytest.mark.parametrize(("body", "text"), WRONG_TYPES, ids=range(len(WRONG_TYPES)))
def test_wrong_types_in_json(body: bytes, text: str) -> None:
    with pytest.raises(Malformed) as caught:
        decoded(put_item(body))
    assert text in caught.value.message or text == "Structure"
    assert refused(put_item(body)) == "SerializationException"


@pytest.mark.parametrize("number", [b"2147483648", b"-2147483649", b"1e400", b"1.5", b'"1"', b"1" * 5_000, b"9" * 400, b"true"])
def test_numbers_out_of_range(number: bytes) -> None:
    sent = request("logs", b'{"logGroupName":"g","limit":' + number + b"}", x_amz_target="Logs_20140328.FilterLogEvents")
    assert refused(sent) == "SerializationException"


@pytest.mark.parametrize("seconds", [b"1e300", b"-1e300", b"253402300800", b'"2020"', b"[]"])
def test_times_out_of_range(seconds: bytes) -> None:
    body = b'{"RuleName":"r","StartTime":' + seconds + b"}"
    body = b'{"ArchiveName":"a","EventSourceArn":"arn","EventStartTime":' + seconds + b',"ReplayName":"r","EventEndTime":1}'
    assert refused(request("events", body, x_amz_target="AWSEvents.StartReplay")) == "SerializationException"


def test_the_last_of_two_equal_names_counts() -> None:
    found = decoded(put_item(b'{"TableName":"first","TableName":"last","Item":{},"Item":{"a":{"S":"x"}}}'))
    assert (found["TableName"], found["Item"]) == ("last", {"a": {"S": "x"}})


def test_nesting_that_the_parser_takes_but_the_shapes_do_not() -> None:
    deep = b'{"L":[' * 400 + b'{"S":"x"}' + b"]}" * 400
    assert refused(put_item(b'{"TableName":"table","Item":{"a":' + deep + b"}}")) == "SerializationException"
    fine = b'{"L":[' * 30 + b'{"S":"x"}' + b"]}" * 30
    assert decoded(put_item(b'{"TableName":"table","Item":{"a":' + fine + b"}}"))["TableName"] == "table"


BAD_XML = [
    b"",
    b"<Tagging>",
    b"<Tagging></Other>",
    b"not xml",
    b"<?xml version='1.0'?>",
    b"<Tagging>&undefined;</Tagging>",
    b"\xff\xfe<\x00T",
    b'<?xml version="1.0" encoding="no-such"?><Tagging/>',
    b"<!DOCTYPE Tagging [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;'>]><Tagging><TagSet>&b;</TagSet></Tagging>",
    b"<!DOCTYPE Tagging [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><Tagging>&x;</Tagging>",
    b"<!DOCTYPE Tagging SYSTEM 'http://127.0.0.1:1/evil.dtd'><Tagging/>",
    b"<!DOCTYPE Tagging><Tagging/>",
    b"<a>" * 50_000 + b"</a>" * 50_000,
    b"<Tagging/><Tagging/>",
    b"<Tagging>\x00</Tagging>",
]


@pytest.mark.parametrize("body", BAD_XML[1:], ids=range(len(BAD_XML) - 1))
def test_what_is_no_xml_or_a_bomb(body: bytes) -> None:
    assert refused(put_tagging(body)) == "MalformedXML"


def test_xml_may_be_nested_as_deep_as_said_and_no_deeper() -> None:
    def nested(depth: int) -> WireRequest:
        return put_tagging(b"<Tagging>" + b"<x>" * depth + b"</x>" * depth + b"</Tagging>")

    assert decoded(nested(DEPTH_MAX - 1)) == {"Bucket": "b", "Tagging": {}}
    assert refused(nested(DEPTH_MAX)) == "MalformedXML"


BAD_FORMS = [
    b"RoleName=%",
    b"RoleName=%zz",
    b"RoleName=%ff",
    b"%ff=x",
    b"&".join(b"Tags.member.%d.Key=k" % number for number in range(25_000)),
    b".".join([b"a"] * 100) + b"=x",
]


@pytest.mark.parametrize("body", BAD_FORMS, ids=range(len(BAD_FORMS)))
def test_forms_that_are_malformed_or_bombs(body: bytes) -> None:
    assert refused(create_role(body)) == "MalformedQueryString"


@pytest.mark.parametrize(
    "body",
    [b"MaxSessionDuration=x", b"MaxSessionDuration=", b"MaxSessionDuration=99999999999", b"MaxSessionDuration=1e3"],
)
def test_wrong_values_in_forms(body: bytes) -> None:
    assert refused(create_role(body + b"&RoleName=r&AssumeRolePolicyDocument=x")) == "MalformedInput"


def test_a_form_whose_indexes_are_huge_or_strange() -> None:
    body = b"RoleName=r&AssumeRolePolicyDocument=x"
    for index, count in ((b"999999999", 1), (b"9" * 50, 0), (b"-1", 0), (b"x", 0), ("١".encode(), 0), (b"", 0)):
        sent = create_role(body + b"&Tags.member." + index + b".Key=k&Tags.member." + index + b".Value=v")
        routed = route(candidates(sent), sent)
        assert len(routed.wire.decode(routed.operation, sent)["Tags"]) == count, index


BAD_CBOR = [
    b"\xa1",
    b"\xff",
    b"\x1c",
    b"\xbf",
    b"\x9f" * 100_000,
    b"\x81" * 100_000,
    b"\xdb" * 1_000,
    b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xa1\x01\x02",
    b"\x61\xff",
    b"\xa0\xa0",
    b"\xc1\x60",
    b"\x7f\x41a\xff",
    b"\xf8\x20",
    b"\x80",
    b"\xa1iNamespace\x01",
]


@pytest.mark.parametrize("body", BAD_CBOR, ids=range(len(BAD_CBOR)))
def test_what_is_no_cbor(body: bytes) -> None:
    assert refused(put_metric(body)) == "SerializationException"


def test_a_length_is_not_believed() -> None:
    tracemalloc.start()
    for head in (b"\x9b", b"\xbb", b"\x5b", b"\x7b"):
        assert refused(put_metric(head + b"\x00\x00\x00\xff\xff\xff\xff\xff")) == "SerializationException"
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_compressed_bodies_where_the_model_has_them() -> None:
    body = b"Action=PutMetricData&Version=2010-08-01&Namespace=" + b"n" * 100
    sent = request("monitoring", gzip.compress(body), content_type=FORM, content_encoding="gzip")
    routed_operation = ours("cloudwatch").operations["PutMetricData"]
    wire = wire_for(routed_operation.service, "query")
    assert wire.decode(routed_operation, sent)["Namespace"] == "n" * 100
    for bad in (b"not gzip", gzip.compress(body)[:-9], gzip.compress(b"a" * 11_000_000)):
        sent = request("monitoring", bad, content_type=FORM, content_encoding="gzip")
        with pytest.raises(Malformed):
            wire.decode(routed_operation, sent)


@pytest.mark.parametrize("path", [b"/2015-03-31/functions/%ff", b"/2015-03-31/functions/%c3%28"])
def test_paths_that_are_not_utf8(path: bytes) -> None:
    with pytest.raises(Malformed):
        decoded(request("lambda", b"", method="GET", path=path))


@pytest.mark.parametrize("query", [b"Qualifier=%", b"Qualifier=%ff", b"&".join(b"a=b" for _ in range(2_000))])
def test_queries_that_are_malformed(query: bytes) -> None:
    with pytest.raises(Malformed):
        decoded(request("lambda", b"", method="GET", path=b"/2015-03-31/functions/f", query=query))


def test_a_value_cannot_end_its_header() -> None:
    operation = ours("s3").operations["GetObject"]
    found = wire_for(operation.service).encode(operation, {"ContentType": "a\r\nSet-Cookie: x", "Metadata": {"k": "a\nb"}})
    assert all("\r" not in value and "\n" not in value for _, value in found.headers)


SURFACES = [put_item, create_function, create_role, put_tagging, put_metric]


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.__name__)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.binary(max_size=200))
def test_any_bytes_at_all(surface: Any, body: bytes) -> None:
    try:
        decoded(surface(body))
    except (Malformed, ServiceError):
        pass  # refused in order


@settings(max_examples=100, deadline=None)
@given(
    path=st.lists(st.binary(max_size=5), max_size=6).map(lambda parts: b"/" + b"/".join(parts)),
    query=st.binary(max_size=20),
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"]),
)
def test_any_path_at_all(path: bytes, query: bytes, method: str) -> None:
    for service in ("s3", "lambda", "apigateway"):
        try:
            decoded(request(service, b"", method=method, path=path, query=query))
        except (Malformed, ServiceError):
            pass  # refused in order
