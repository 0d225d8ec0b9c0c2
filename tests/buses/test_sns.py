"""SNS as boto3 speaks it, and what its subscribers hear."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509 import load_pem_x509_certificate

from .platform import ACCOUNT, REGION, Platform, eventually
from .receiver import Receiver

ARN = f"arn:aws:sns:{REGION}:{ACCOUNT}:"


def fails(call: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def topic(platform: Platform, name: str, **attributes: str) -> str:
    given = {"FifoTopic": "true", **attributes} if name.endswith(".fifo") else attributes
    return str(platform.client("sns").create_topic(Name=name, Attributes=given)["TopicArn"])


def subscribed(platform: Platform, arn: str, queue: str, **attributes: str) -> tuple[str, str]:
    """(URL of a queue that hears the topic, ARN of its subscription)"""
    url, queue_arn = platform.queue(queue, **({"FifoQueue": "true"} if queue.endswith(".fifo") else {}))
    answer = platform.client("sns").subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn, Attributes=attributes)
    return url, str(answer["SubscriptionArn"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.stop()


def verify(platform: Platform, message: dict[str, Any]) -> None:
    status, pem = fetch(message["SigningCertURL"])
    assert status == 200
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if message["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    key: Any = load_pem_x509_certificate(pem).public_key()
    algorithm = hashes.SHA1() if message["SignatureVersion"] == "1" else hashes.SHA256()
    key.verify(base64.b64decode(message["Signature"]), text.encode(), PKCS1v15(), algorithm)


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_message_reaches_a_queue_signed(platform: Platform, version: str) -> None:
    arn = topic(platform, f"signed{version}", SignatureVersion=version)
    url, subscription = subscribed(platform, arn, f"signed{version}")
    attributes = {
        "n": {"DataType": "Number", "StringValue": "1"},
        "b": {"DataType": "Binary", "BinaryValue": b"\x01\xff"},
    }
    id = platform.client("sns").publish(TopicArn=arn, Message="Grüße\n", Subject="Sub", MessageAttributes=attributes)[
        "MessageId"
    ]
    [message] = platform.messages(url, 1)
    assert "MessageAttributes" not in message
    assert message["Body"].startswith('{\n  "Type" : "Notification",\n  "MessageId" : ')
    body = json.loads(message["Body"])
    verify(platform, body)
    assert (body["MessageId"], body["Message"], body["Subject"], body["TopicArn"]) == (id, "Grüße\n", "Sub", arn)
    assert body["MessageAttributes"] == {"n": {"Type": "Number", "Value": "1"}, "b": {"Type": "Binary", "Value": "Af8="}}
    assert body["UnsubscribeURL"].endswith(f"/?Action=Unsubscribe&SubscriptionArn={subscription}")


def test_raw_delivery_is_the_message_itself(platform: Platform) -> None:
    arn = topic(platform, "raw")
    url, _ = subscribed(platform, arn, "raw", RawMessageDelivery="true")
    attributes = {"b": {"DataType": "Binary", "BinaryValue": b"\x01\xff"}, "s": {"DataType": "String", "StringValue": "x"}}
    platform.client("sns").publish(TopicArn=arn, Message="plain", MessageAttributes=attributes)
    [message] = platform.messages(url, 1)
    assert (message["Body"], message["MessageAttributes"]["b"]["BinaryValue"]) == ("plain", b"\x01\xff")
    assert message["MessageAttributes"]["s"] == {"DataType": "String", "StringValue": "x"}


def test_a_structured_message_has_a_text_for_each_protocol(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "structured")
    url, _ = subscribed(platform, arn, "structured")
    for message in ({"default": "d"}, {"default": "d", "sqs": '{"q": 1}', "http": "h"}):
        sns.publish(TopicArn=arn, Message=json.dumps(message), MessageStructure="json")
    assert sorted(body["Message"] for body in platform.bodies(url, 2)) == ["d", '{"q": 1}']
    for text, reason in (
        ('{"sqs": "x"}', "No default entry in JSON message body"),
        ('{"default": 1}', "No default entry in JSON message body"),
        ("{", "JSON message body failed to parse"),
    ):
        assert fails(sns.publish, TopicArn=arn, Message=text, MessageStructure="json") == (
            "InvalidParameter", f"Invalid parameter: Message Structure - {reason}",
        )  # fmt: skip


def test_filters_hold_back(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "filtered")
    policy = json.dumps({"kind": ["a", {"prefix": "b"}], "sum": [{"numeric": [">=", 10]}], "no": [{"exists": False}]})
    by_attributes, _ = subscribed(platform, arn, "by-attributes", FilterPolicy=policy, RawMessageDelivery="true")
    policy = json.dumps({"order": {"tags": ["x"]}, "$or": [{"a": [1]}, {"b": [2]}]})
    by_body, subscription = subscribed(
        platform, arn, "by-body", FilterPolicy=policy, FilterPolicyScope="MessageBody", RawMessageDelivery="true"
    )

    def say(text: str, **values: Any) -> None:
        attributes = {
            name: {"DataType": "Number" if isinstance(value, int) else "String", "StringValue": str(value)}
            for name, value in values.items()
        }
        sns.publish(TopicArn=arn, Message=text, MessageAttributes=attributes)

    say("1", kind="a", sum=10)
    say("2", kind="bb", sum=11)
    say("3", kind="c", sum=10)
    say("4", kind="a", sum=9)
    say("5", kind="a", sum=10, no="x")
    say('{"order": {"tags": ["y", "x"]}, "b": 2}')
    say('{"order": {"tags": ["y"]}, "b": 2}')
    say('{"order": {"tags": ["x"]}}')
    assert sorted(message["Body"] for message in platform.messages(by_attributes, 2)) == ["1", "2"]
    assert [message["Body"] for message in platform.messages(by_body, 1)] == ['{"order": {"tags": ["y", "x"]}, "b": 2}']
    assert platform.nothing(by_attributes)
    assert platform.nothing(by_body)
    sns.set_subscription_attributes(SubscriptionArn=subscription, AttributeName="FilterPolicy", AttributeValue="{}")
    say("now")
    assert [message["Body"] for message in platform.messages(by_body, 1)] == ["now"]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"key": [["value"]]}, "Match value must be String, number, true, false, or null"),
        ({"key": [{"wrong-operator": True}]}, "Unrecognized match type wrong-operator"),
        ({"key": []}, "Empty arrays are not allowed"),
        ({"key": "x"}, '"key" must be an object or an array'),
        ({"key": [{"suffix": 100}]}, "suffix match pattern must be a string"),
        ({"key": [{"cidr": "bad-filter"}]}, "Malformed CIDR, one '/' required"),
        ({"key": [{"numeric": [">", 20, 30]}]}, "Bad value in numeric range: 30"),
        ({"key": [{"exists": None}]}, "exists match pattern must be either true or false."),
        ({"key": [{"anything-but": {"suffix": "x"}}]}, "Unsupported anything-but pattern: suffix"),
        ({f"k{number}": ["x"] for number in range(6)}, "Filter policy can not have more than 5 keys"),
        ({"a": list(range(151))}, "Filter policy is too complex"),
    ],
)
def test_a_bad_filter_is_refused_in_the_words_of_the_service(platform: Platform, policy: Any, reason: str) -> None:
    arn = topic(platform, "bad-filters")
    _, queue = platform.queue("bad-filters")
    code, text = fails(
        platform.client("sns").subscribe, TopicArn=arn, Protocol="sqs", Endpoint=queue,
        Attributes={"FilterPolicy": json.dumps(policy)},
    )  # fmt: skip
    assert (code, text) == ("InvalidParameter", f"Invalid parameter: Attributes Reason: FilterPolicy: {reason}")


def test_a_fifo_topic_keeps_order_and_forgets_repetitions(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "ordered.fifo", ContentBasedDeduplication="true")
    url, _ = subscribed(platform, arn, "ordered.fifo", RawMessageDelivery="true")
    first = sns.publish(TopicArn=arn, Message="0", MessageGroupId="g")
    again = sns.publish(TopicArn=arn, Message="0", MessageGroupId="g")
    assert first["MessageId"] == again["MessageId"]
    assert first["SequenceNumber"] == again["SequenceNumber"] == "10000000000000000000"
    entries = [{"Id": str(number), "Message": str(number), "MessageGroupId": "g"} for number in range(1, 10)]
    answer = sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=entries)
    assert [one["SequenceNumber"][-1] for one in answer["Successful"]] == [str(number) for number in range(1, 10)]
    assert [message["Body"] for message in platform.messages(url, 10)] == [str(number) for number in range(10)]
    assert platform.nothing(url)
    plain = topic(platform, "plain-fifo-rules")
    _, fifo_queue = platform.queue("rules.fifo", FifoQueue="true")
    assert fails(sns.subscribe, TopicArn=plain, Protocol="sqs", Endpoint=fifo_queue)[1] == (
        "Invalid parameter: Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be subscribed to standard SNS topics"
    )
    assert fails(sns.publish, TopicArn=arn, Message="x")[1] == (
        "Invalid parameter: The MessageGroupId parameter is required for FIFO topics"
    )
    bare = topic(platform, "bare.fifo")
    assert fails(sns.publish, TopicArn=bare, Message="x", MessageGroupId="g")[1] == (
        "Invalid parameter: The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
        "explicitly"
    )
    assert "not valid for this topic type" in fails(sns.publish, TopicArn=plain, Message="x", MessageDeduplicationId="d")[1]


def test_an_http_endpoint_confirms_then_hears(platform: Platform, receiver: Receiver) -> None:
    sns, arn = platform.client("sns"), topic(platform, "http")
    answer = sns.subscribe(TopicArn=arn, Protocol="http", Endpoint=f"{receiver.url}/in?x=1")
    assert answer["SubscriptionArn"] == "pending confirmation"
    assert eventually(lambda: receiver.heard)
    asked = receiver.heard.pop()
    message = json.loads(asked.body)
    verify(platform, message)
    assert (asked.path, asked.headers["x-amz-sns-message-type"]) == ("/in?x=1", "SubscriptionConfirmation")
    assert asked.headers["content-type"] == "text/plain; charset=UTF-8"
    assert "x-amz-sns-subscription-arn" not in asked.headers
    sns.publish(TopicArn=arn, Message="too early")
    assert sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"][0]["SubscriptionArn"] == "PendingConfirmation"
    url = message["SubscribeURL"]
    assert fetch(url.replace("Token=", "Token=0"))[0] == 400
    assert fetch(url.replace(REGION, "eu-central-1"))[0] == 400
    assert platform.client("sns").list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"][0]["SubscriptionArn"] == (
        "PendingConfirmation"
    )
    assert fetch(url.replace(f":{ACCOUNT}:http", f":{ACCOUNT}:other"))[0] == 200  # the token says whose it is
    status, text = fetch(message["SubscribeURL"])
    assert (status, b"<SubscriptionArn>" in text) == (200, True)
    assert fetch(message["SubscribeURL"])[0] == 200
    [one] = sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
    sns.publish(TopicArn=arn, Message="hello")
    assert eventually(lambda: receiver.heard)
    heard = receiver.heard.pop()
    body = json.loads(heard.body)
    verify(platform, body)
    assert (body["Message"], heard.headers["x-amz-sns-subscription-arn"]) == ("hello", one["SubscriptionArn"])
    sns.set_subscription_attributes(
        SubscriptionArn=one["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue="true"
    )
    sns.publish(TopicArn=arn, Message="raw")
    assert eventually(lambda: receiver.heard)
    heard = receiver.heard.pop()
    assert (heard.body, heard.headers["x-amz-sns-rawdelivery"]) == (b"raw", "true")
    assert fetch(body["UnsubscribeURL"])[0] == 200
    assert sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"] == []
    assert eventually(lambda: receiver.heard)
    told = receiver.heard.pop()
    farewell = json.loads(told.body)
    verify(platform, farewell)
    assert (farewell["Type"], told.headers["x-amz-sns-message-type"]) == ("UnsubscribeConfirmation", "UnsubscribeConfirmation")
    assert one["SubscriptionArn"] in farewell["Message"]
    assert fetch(message["SubscribeURL"])[0] == 400  # the token that made it is over
    assert fetch(farewell["SubscribeURL"])[0] == 200
    assert [found["SubscriptionArn"] for found in sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]] == [
        one["SubscriptionArn"]
    ]
    sns.publish(TopicArn=arn, Message="back")
    assert eventually(lambda: receiver.heard)
    assert receiver.heard.pop().body == b"back"


def test_what_is_wrong_is_said_before_what_is_not_supported(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "unsupported")
    sms = {"Protocol": "sms", "Endpoint": "+15551234567"}
    for request in (sms, {"Protocol": "sqs", "Endpoint": "no queue"}):
        assert fails(sns.subscribe, TopicArn=f"{ARN}not-there", **request) == ("NotFound", "Topic does not exist")
    wrong = {"FilterPolicy": '{"a": [{"b": 1}]}'}
    assert fails(sns.subscribe, TopicArn=arn, Attributes=wrong, **sms)[0] == "InvalidParameter"
    assert fails(sns.subscribe, TopicArn=arn, **sms) == (
        "NotImplemented", "subscriptions of the protocol sms are not supported"
    )  # fmt: skip
    assert sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"] == []


def test_a_subscription_is_the_same_when_it_says_the_defaults(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "same")
    _, queue_arn = platform.queue("same")

    def subscribe(**attributes: str) -> str:
        request = {"TopicArn": arn, "Protocol": "sqs", "Endpoint": queue_arn, "Attributes": attributes}
        return str(sns.subscribe(**request, ReturnSubscriptionArn=True)["SubscriptionArn"])

    one = subscribe(RawMessageDelivery="True", FilterPolicyScope="MessageBody")
    assert subscribe(RawMessageDelivery="true") == subscribe(FilterPolicyScope="MessageBody") == subscribe() == one
    with pytest.raises(ClientError, match="already exists with different attributes"):
        subscribe(FilterPolicyScope="MessageAttributes")
    shown = sns.get_subscription_attributes(SubscriptionArn=one)["Attributes"]
    assert (shown["SubscriptionPrincipal"], "FilterPolicyScope" in shown) == (f"arn:aws:iam::{ACCOUNT}:root", False)
    sns.set_subscription_attributes(SubscriptionArn=one, AttributeName="FilterPolicy", AttributeValue='{"a": ["b"]}')
    assert sns.get_subscription_attributes(SubscriptionArn=one)["Attributes"]["FilterPolicyScope"] == "MessageBody"


def test_a_standard_queue_behind_a_fifo_topic_knows_no_groups(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "mixed.fifo", ContentBasedDeduplication="true")
    url, subscription = subscribed(platform, arn, "mixed")
    _, dead_arn = platform.queue("mixed-dead")
    policy = json.dumps({"deadLetterTargetArn": dead_arn})
    sns.set_subscription_attributes(SubscriptionArn=subscription, AttributeName="RedrivePolicy", AttributeValue=policy)
    sns.publish(TopicArn=arn, Message="m", MessageGroupId="g")
    [message] = platform.messages(url, 1)
    assert "MessageGroupId" not in message["Attributes"]
    plain = topic(platform, "groups")
    url, _ = subscribed(platform, plain, "groups")
    sns.publish(TopicArn=plain, Message="m", MessageGroupId="g")
    [message] = platform.messages(url, 1)
    assert message["Attributes"]["MessageGroupId"] == "g"


def test_queues_know_the_trace_of_the_publisher(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "traced")
    url, _ = subscribed(platform, arn, "traced")
    trace = "Root=1-3152b799-8954dae64eda91bc9a23a7e8;Parent=7fa8c0f79203be72;Sampled=1"

    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = trace

    sns.meta.events.register("before-sign.sns.Publish", add)
    try:
        sns.publish(TopicArn=arn, Message="traced")
    finally:
        sns.meta.events.unregister("before-sign.sns.Publish", add)
    sns.publish(TopicArn=arn, Message="untraced")
    found = {json.loads(one["Body"])["Message"]: one["Attributes"].get("AWSTraceHeader") for one in platform.messages(url, 2)}
    assert found == {"traced": trace, "untraced": None}


def test_nobody_unsubscribes_a_queue_by_its_address(platform: Platform) -> None:
    arn = topic(platform, "kept")
    url, subscription = subscribed(platform, arn, "kept")
    assert fetch(f"{platform.url}/?Action=Unsubscribe&SubscriptionArn={subscription}")[0] == 403
    platform.client("sns").publish(TopicArn=arn, Message="still")
    assert [body["Message"] for body in platform.bodies(url, 1)] == ["still"]


def test_an_endpoint_that_fails_is_tried_again_then_its_message_is_dead(platform: Platform, receiver: Receiver) -> None:
    sns, arn = platform.client("sns"), topic(platform, "tried")
    dead, dead_arn = platform.queue("tried-dead")
    policy = {"healthyRetryPolicy": {"numRetries": 2, "numNoDelayRetries": 2, "minDelayTarget": 1, "maxDelayTarget": 1}}
    attributes = {
        "DeliveryPolicy": json.dumps(policy), "RedrivePolicy": json.dumps({"deadLetterTargetArn": dead_arn}),
        "RawMessageDelivery": "true",
    }  # fmt: skip
    sns.subscribe(TopicArn=arn, Protocol="http", Endpoint=receiver.url, Attributes=attributes)
    assert eventually(lambda: receiver.heard)
    fetch(json.loads(receiver.heard.pop().body)["SubscribeURL"])
    receiver.statuses = [500, 503]
    sns.publish(TopicArn=arn, Message="third time")
    assert eventually(lambda: len(receiver.heard) == 3)
    receiver.heard.clear()
    receiver.statuses = [500, 500, 500]
    sns.publish(TopicArn=arn, Message="never", MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}})
    [message] = platform.messages(dead, 1)
    assert (message["Body"], message["MessageAttributes"]["a"]["StringValue"]) == ("never", "b")
    assert len(receiver.heard) == 3
    receiver.heard.clear()
    receiver.statuses = [404]
    sns.publish(TopicArn=arn, Message="refused")
    assert [message["Body"] for message in platform.messages(dead, 1)] == ["refused"]
    assert len(receiver.heard) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "0.0.0.0", "2130706433", "127.1"])
def test_addresses_of_this_host_are_not_called(platform: Platform, receiver: Receiver, host: str) -> None:
    sns, name = platform.client("sns"), f"inside{abs(hash(host)) % 10**6}"
    arn = topic(platform, name)
    _, dead_arn = platform.queue(f"{name}-dead")
    before = len(platform.dead_letters())
    sns.subscribe(
        TopicArn=arn, Protocol="http", Endpoint=f"http://{host}:{receiver.port}/",
        Attributes={"RedrivePolicy": json.dumps({"deadLetterTargetArn": dead_arn})},
    )  # fmt: skip
    letters = eventually(lambda: platform.dead_letters()[: len(platform.dead_letters()) - before])
    assert "may not be called" in letters[0].error["detail"] or "no connection" in letters[0].error["detail"]
    assert receiver.heard == []


def test_a_function_hears_when_its_policy_lets_the_topic(platform: Platform) -> None:
    sns, functions, arn = platform.client("sns"), platform.client("lambda"), topic(platform, "told-f")
    seen, seen_arn = platform.queue("seen-sns")
    dead, dead_arn = platform.queue("refused-sns")
    function = platform.function("listens", "def handler(event, context):\n    return event\n")
    functions.put_function_event_invoke_config(
        FunctionName="listens", DestinationConfig={"OnSuccess": {"Destination": seen_arn}}
    )
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": dead_arn})}
    subscription = sns.subscribe(TopicArn=arn, Protocol="lambda", Endpoint=function, Attributes=redrive)["SubscriptionArn"]
    sns.publish(TopicArn=arn, Message="refused")
    assert [json.loads(message["Body"])["Message"] for message in platform.messages(dead, 1)] == ["refused"]
    functions.add_permission(
        FunctionName="listens", StatementId="s", Action="lambda:InvokeFunction", Principal="sns.amazonaws.com", SourceArn=arn
    )
    sns.publish(TopicArn=arn, Message="heard")
    [record] = platform.bodies(seen, 1)
    [event] = record["requestPayload"]["Records"]
    message = event.pop("Sns")
    assert event == {"EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": subscription}
    assert (message["Message"], message["Subject"], message["MessageAttributes"]) == ("heard", None, {})
    assert set(message) == {
        "Type", "MessageId", "TopicArn", "Subject", "Message", "Timestamp", "SignatureVersion", "Signature", "SigningCertUrl",
        "UnsubscribeUrl", "MessageAttributes",
    }  # fmt: skip


def test_a_rule_of_a_bus_publishes_to_a_topic(platform: Platform) -> None:
    arn = topic(platform, "from-bus")
    url, _ = subscribed(platform, arn, "from-bus")
    events = platform.client("events")
    events.create_event_bus(Name="to-topic")
    events.put_rule(Name="to-topic", EventBusName="to-topic", EventPattern='{"source": ["shop"]}')
    events.put_targets(Rule="to-topic", EventBusName="to-topic", Targets=[{"Id": "t", "Arn": arn}])
    entry = {"Source": "shop", "DetailType": "d", "Detail": '{"a": 1}', "EventBusName": "to-topic"}
    events.put_events(Entries=[entry])
    [body] = platform.bodies(url, 1)
    assert json.loads(body["Message"])["detail"] == {"a": 1}


def test_a_data_protection_policy_is_refused_since_nothing_enforces_it(platform: Platform) -> None:
    sns, policy = platform.client("sns"), '{"Name": "p", "Statement": []}'
    assert fails(sns.create_topic, Name="guarded", DataProtectionPolicy=policy)[0] == "NotImplemented"
    arn = topic(platform, "guarded")
    wanted = {"TopicArn": arn, "AttributeName": "DataProtectionPolicy", "AttributeValue": policy}
    assert fails(sns.set_topic_attributes, **wanted)[0] == "NotImplemented"


def test_errors_are_in_the_words_of_the_service(platform: Platform) -> None:
    sns, arn = platform.client("sns"), topic(platform, "words")
    _, queue = platform.queue("words-sns")
    parameter = "InvalidParameter"
    for name in ("", "a" * 257, "a.b", "x.fifo", "spaced name"):
        assert fails(sns.create_topic, Name=name) == (parameter, "Invalid parameter: Topic Name")
    assert fails(sns.create_topic, Name="x", Attributes={"FifoTopic": "true"}) == (parameter, "Invalid parameter: Topic Name")
    assert fails(sns.get_topic_attributes, TopicArn=f"{ARN}nope") == ("NotFound", "Topic does not exist")
    assert fails(sns.publish, TopicArn=f"{ARN}nope", Message="x") == ("NotFound", "Topic does not exist")
    assert fails(sns.publish, TopicArn="randomstring", Message="x") == (
        parameter, "Invalid parameter: TopicArn Reason: An ARN must have at least 6 elements, not 1",
    )  # fmt: skip
    other = arn.replace(REGION, "eu-west-1")
    assert fails(sns.publish, TopicArn=other, Message="x") == (parameter, "Invalid parameter: TopicArn")
    assert fails(sns.publish, TopicArn=arn, Message="") == (parameter, "Invalid parameter: Empty message")
    assert fails(sns.publish, TopicArn=arn, Message="x", Subject="") == (parameter, "Invalid parameter: Subject")
    assert fails(sns.publish, TopicArn=arn, Message="x" * 262_145) == (parameter, "Invalid parameter: Message too long")
    missing = {"a": {"DataType": "String", "StringValue": ""}}
    assert fails(sns.publish, TopicArn=arn, Message="x", MessageAttributes=missing) == (
        "ParameterValueInvalid",
        "The message attribute 'a' must contain non-empty message attribute value for message attribute type 'String'.",
    )
    assert fails(sns.subscribe, TopicArn=arn, Protocol="test-protocol", Endpoint="x")[1] == (
        "Invalid parameter: Amazon SNS does not support this protocol string: test-protocol"
    )
    for protocol, endpoint in (
        ("email", "a@example.com"),
        ("sms", "+15551234567"),
        ("application", "arn:x"),
        ("firehose", "arn:x"),
    ):
        _, text = fails(sns.subscribe, TopicArn=arn, Protocol=protocol, Endpoint=endpoint)
        assert f"the protocol {protocol} are not supported" in text
    assert "not supported" in fails(sns.publish, PhoneNumber="+15551234567", Message="x")[1]
    assert (
        fails(sns.subscribe, TopicArn=arn, Protocol="sqs", Endpoint="http://queue")[1] == "Invalid parameter: SQS endpoint ARN"
    )
    one = sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue)["SubscriptionArn"]
    assert sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue)["SubscriptionArn"] == one
    change = {"SubscriptionArn": one, "AttributeName": "RawMessageDelivery", "AttributeValue": "test-ValUe"}
    assert fails(sns.set_subscription_attributes, **change)[1] == (
        "Invalid parameter: RawMessageDelivery: Invalid value [test-ValUe]. Must be true or false."
    )
    assert fails(sns.unsubscribe, SubscriptionArn="randomstring")[1].endswith("at least 6 elements, not 1")
    assert fails(sns.confirm_subscription, TopicArn=arn, Token="randomtoken")[1] == "Invalid token"
    assert fails(sns.confirm_subscription, TopicArn=arn, Token="0" * 288)[1] == "Invalid parameter: Token"
    sns.unsubscribe(SubscriptionArn=one)
    sns.unsubscribe(SubscriptionArn=one)
    entries = [{"Id": "a", "Message": "x"}, {"Id": "a", "Message": "y"}]
    assert fails(sns.publish_batch, TopicArn=arn, PublishBatchRequestEntries=entries)[0] == "BatchEntryIdsNotDistinct"


def test_topics_are_described_and_go(platform: Platform) -> None:
    sns = platform.client("sns")
    arn = sns.create_topic(Name="shown", Attributes={"DisplayName": "D"}, Tags=[{"Key": "k", "Value": "v"}])["TopicArn"]
    assert sns.create_topic(Name="shown", Tags=[{"Key": "k", "Value": "v"}])["TopicArn"] == arn
    assert "different tags" in fails(sns.create_topic, Name="shown", Tags=[{"Key": "k", "Value": "w"}])[1]
    assert "different attributes" in fails(sns.create_topic, Name="shown", Attributes={"DisplayName": "E"})[1]
    _, subscription = subscribed(platform, arn, "shown")
    found = sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    assert (found["DisplayName"], found["SubscriptionsConfirmed"], found["Owner"]) == ("D", "1", ACCOUNT)
    assert json.loads(found["EffectiveDeliveryPolicy"])["http"]["defaultHealthyRetryPolicy"]["numRetries"] == 3
    assert json.loads(found["Policy"])["Id"] == "__default_policy_ID"
    assert sns.list_tags_for_resource(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
    sns.add_permission(TopicArn=arn, Label="l", AWSAccountId=["111122223333"], ActionName=["Publish"])
    policy = json.loads(sns.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"])
    assert policy["Statement"][1]["Principal"] == {"AWS": "arn:aws:iam::111122223333:root"}
    sns.delete_topic(TopicArn=arn)
    sns.delete_topic(TopicArn=arn)
    assert fails(sns.get_subscription_attributes, SubscriptionArn=subscription)[0] == "NotFound"
