"""CloudEvents in and out over HTTP."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from .platform import ACCOUNT, REGION, Platform, eventually
from .receiver import Receiver


def post(platform: Platform, bus: str, body: bytes, **headers: str) -> tuple[int, Any]:
    token = json.loads((platform.server.data / "credentials.json").read_text())["token"]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        f"{platform.url}/v1/buses/{bus}/events", body, {"Authorization": f"Bearer {token}", **named}, method="POST"
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


EVENT = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.made", "time": "2026-01-02T03:04:05.5Z"}


def listening(platform: Platform, name: str) -> str:
    url, arn = platform.queue(f"ce-{name}")
    events = platform.client("events")
    events.create_event_bus(Name=f"ce-{name}")
    events.put_rule(Name="all", EventBusName=f"ce-{name}", EventPattern='{"source": ["/shop"]}')
    events.put_targets(Rule="all", EventBusName=f"ce-{name}", Targets=[{"Id": "t", "Arn": arn}])
    return url


def test_all_three_modes_become_events(platform: Platform) -> None:
    url = listening(platform, "modes")
    structured = json.dumps({**EVENT, "subject": "o/1", "traceparent": "00-a", "data": {"sum": 1}}).encode()
    status, answer = post(platform, "ce-modes", structured, Content_Type="application/cloudevents+json; charset=utf-8")
    assert (status, answer) == (202, {"ids": ["e-1"]})
    binary = {f"ce-{name}": value for name, value in EVENT.items()}
    assert post(platform, "ce-modes", b'{"sum": 2}', Content_Type="application/json", **binary)[0] == 202
    assert post(platform, "ce-modes", b"\x00\xff", Content_Type="application/octet-stream", **binary)[0] == 202
    batch = json.dumps([{**EVENT, "data": "text"}, EVENT]).encode()
    assert post(platform, "ce-modes", batch, Content_Type="application/cloudevents-batch+json")[0] == 202
    found = platform.bodies(url, 5)
    first = next(event for event in found if event["detail"] == {"sum": 1})
    assert first == {
        "version": "0", "id": "e-1", "detail-type": "order.made", "source": "/shop", "account": ACCOUNT, "region": REGION,
        "time": "2026-01-02T03:04:05.5Z", "resources": ["o/1"], "detail": {"sum": 1}, "cloudevent": {"traceparent": "00-a"},
    }  # fmt: skip
    details = [event["detail"] for event in found]
    assert {"sum": 2} in details
    assert {"data_base64": base64.b64encode(b"\x00\xff").decode()} in details
    assert {"data": "text"} in details
    assert {} in details


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({**EVENT, "specversion": "0.3"}, "structured", "specversion"),
        ({**EVENT, "id": ""}, "structured", "attribute id"),
        ({**EVENT, "type": 3}, "structured", "attribute type"),
        ({**EVENT, "time": "noon"}, "structured", "time"),
        ({**EVENT, "Bad-Name": "x"}, "structured", "attribute name"),
        ({**EVENT, "data": 1, "data_base64": "eA=="}, "structured", "not both"),
        ({**EVENT, "list": [1]}, "structured", "attribute list"),
        ([], "batch", "at least one"),
        ({}, "plain", "no CloudEvent"),
    ],
)
def test_what_is_no_cloud_event_is_refused_by_name(platform: Platform, body: Any, kind: str, reason: str) -> None:
    types = {
        "structured": "application/cloudevents+json",
        "batch": "application/cloudevents-batch+json",
        "plain": "application/json",
    }  # fmt: skip
    status, answer = post(platform, "default", json.dumps(body).encode(), Content_Type=types[kind])
    assert (status, reason in answer["detail"]) == (400, True), answer
    assert post(platform, "nowhere", json.dumps(EVENT).encode(), Content_Type=types["structured"])[0] == 404


def test_an_api_destination_is_called_as_its_connection_says(platform: Platform) -> None:
    receiver = Receiver()
    try:
        events = platform.client("events")
        listening(platform, "out")
        more = {
            "HeaderParameters": [{"Key": "content-type", "Value": "application/cloudevents+json", "IsValueSecret": False}],
            "QueryStringParameters": [{"Key": "q", "Value": "1", "IsValueSecret": False}],
        }
        basic = {"BasicAuthParameters": {"Username": "user", "Password": "pass"}, "InvocationHttpParameters": more}
        connection = events.create_connection(Name="ce-out", AuthorizationType="BASIC", AuthParameters=basic)["ConnectionArn"]
        shown = events.describe_connection(Name="ce-out")["AuthParameters"]
        assert shown["BasicAuthParameters"] == {"Username": "user"}
        made = events.create_api_destination(
            Name="ce-out", ConnectionArn=connection, HttpMethod="POST", InvocationEndpoint=f"{receiver.url}/in/*/end"
        )
        target = {
            "Id": "http", "Arn": made["ApiDestinationArn"],
            "HttpParameters": {"PathParameterValues": ["a/b"], "HeaderParameters": {"X-Own": "v"}},
        }  # fmt: skip
        events.put_targets(Rule="all", EventBusName="ce-out", Targets=[target])
        receiver.statuses = [503]
        body = json.dumps({**EVENT, "traceparent": "00-a", "data": {"sum": 1}}).encode()
        assert post(platform, "ce-out", body, Content_Type="application/cloudevents+json")[0] == 202
        assert eventually(lambda: len(receiver.heard) == 2)
        heard = receiver.heard[-1]
        assert (heard.path, heard.headers["x-own"]) == ("/in/a%2Fb/end?q=1", "v")
        assert heard.headers["authorization"] == f"Basic {base64.b64encode(b'user:pass').decode()}"
        assert heard.headers["content-type"] == "application/cloudevents+json"
        assert json.loads(heard.body) == {
            **EVENT, "traceparent": "00-a", "datacontenttype": "application/json", "data": {"sum": 1},
        }  # fmt: skip
    finally:
        receiver.stop()


def test_an_oauth_connection_fetches_a_token_once(platform: Platform) -> None:
    receiver = Receiver({"access_token": "tok", "token_type": "Bearer", "expires_in": 3600})
    try:
        events = platform.client("events")
        url, queue = platform.queue("oauth")
        events.create_event_bus(Name="oauth")
        oauth = {
            "AuthorizationEndpoint": f"{receiver.url}/token", "HttpMethod": "post",
            "ClientParameters": {"ClientID": "id", "ClientSecret": "secret"},
            "OAuthHttpParameters": {"BodyParameters": [{"Key": "scope", "Value": "s", "IsValueSecret": False}]},
        }  # fmt: skip
        auth = {"OAuthParameters": oauth}
        made = events.create_connection(Name="oauth", AuthorizationType="OAUTH_CLIENT_CREDENTIALS", AuthParameters=auth)
        assert made["ConnectionState"] == "AUTHORIZING"
        destination = events.create_api_destination(
            Name="oauth", ConnectionArn=made["ConnectionArn"], HttpMethod="PUT", InvocationEndpoint=f"{receiver.url}/in"
        )["ApiDestinationArn"]
        events.put_rule(Name="oauth", EventBusName="oauth", EventPattern='{"source": ["s"]}')
        target = {"Id": "t", "Arn": destination, "InputPath": "$.detail", "DeadLetterConfig": {"Arn": queue}}
        events.put_targets(Rule="oauth", EventBusName="oauth", Targets=[target])
        for number in range(2):
            entry = {"Source": "s", "DetailType": "d", "Detail": json.dumps({"n": number}), "EventBusName": "oauth"}
            events.put_events(Entries=[entry])
            assert eventually(lambda: sum(one.path == "/in" for one in receiver.heard) == number + 1)  # noqa: B023
        token, *calls = receiver.heard
        assert json.loads(token.body) == {
            "grant_type": "client_credentials", "client_id": "id", "client_secret": "secret", "scope": "s",
        }  # fmt: skip
        assert [(one.method, one.headers["authorization"], one.body) for one in calls] == [
            ("PUT", "Bearer tok", b'{"n":0}'), ("PUT", "Bearer tok", b'{"n":1}'),
        ]  # fmt: skip
        assert "secret" not in json.dumps(events.describe_connection(Name="oauth")["AuthParameters"])
        assert platform.nothing(url)
    finally:
        receiver.stop()
