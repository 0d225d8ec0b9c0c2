"""SQS as its clients speak it, over HTTP: boto3 (json), and the query protocol as older SDKs and curl send it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from martlet.config import Settings
from martlet.server import Server

NAMESPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"


class Platform:
    """The whole platform on a loop of its own, so that synchronous clients can speak to it."""

    def __init__(self, data: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = Server(Settings(data=str(data), port=0, sandbox="process", quiet=True))
        self._run(self.server.start())
        self.url = f"http://127.0.0.1:{self.server.api_port}"
        found = json.loads((data / "credentials.json").read_text())
        self.key, self.secret = found["access_key_id"], found["secret_access_key"]

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def stop(self) -> None:
        self._run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def client(self, endpoint: str = "") -> Any:
        return boto3.client(
            "sqs",
            endpoint_url=endpoint or self.url,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def query(self, url: str, parameters: dict[str, str], *, get: bool = False) -> tuple[int, str]:
        """A request of the query protocol, signed: (status, XML)."""
        credentials = Credentials(self.key, self.secret)
        if get:
            request = AWSRequest("GET", url, params=parameters)
            SigV4QueryAuth(credentials, "sqs", "us-east-1").add_auth(request)
        else:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            request = AWSRequest("POST", url, data=urlencode(parameters), headers=headers)
            SigV4Auth(credentials, "sqs", "us-east-1").add_auth(request)
        prepared = request.prepare()
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
        sent = urllib.request.Request(prepared.url, body, dict(prepared.headers), method=request.method)
        try:
            with urllib.request.urlopen(sent) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    running = Platform(tmp_path / "data")
    yield running
    running.stop()


@pytest.fixture
def sqs(platform: Platform) -> Any:
    return platform.client()


def test_boto3_sends_receives_and_deletes_and_checks_every_digest(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q", tags={"a": "b"})["QueueUrl"]
    attributes = {"n": {"DataType": "Number", "StringValue": "1"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}}
    entries = [{"Id": str(at), "MessageBody": f"ü{at}", "MessageAttributes": attributes} for at in range(10)]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert [message["Body"] for message in found["Messages"]] == [f"ü{at}" for at in range(10)]
    assert found["Messages"][0]["MessageAttributes"] == attributes
    handles = [{"Id": str(at), "ReceiptHandle": one["ReceiptHandle"]} for at, one in enumerate(found["Messages"])]
    assert len(sqs.delete_message_batch(QueueUrl=url, Entries=handles)["Successful"]) == 10
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert counts["Attributes"] == {"ApproximateNumberOfMessages": "0"}
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


def test_errors_have_both_of_their_names(sqs: Any) -> None:
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as caught:
        sqs.get_queue_url(QueueName="nope")
    error = caught.value.response["Error"]
    assert (error["Code"], error["QueryErrorCode"]) == ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    with pytest.raises(ClientError) as refused:
        sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=11)
    error = refused.value.response["Error"]
    assert (error["Code"], error["QueryErrorCode"]) == ("InvalidParameterValue", "InvalidParameterValueException")
    sqs.purge_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.PurgeQueueInProgress) as purged:
        sqs.purge_queue(QueueUrl=url)
    assert purged.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_json_at_a_queue_s_own_address(platform: Platform, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    there = platform.client(url)
    there.send_message(QueueUrl=url, MessageBody="x")
    assert there.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "x"


def test_the_query_protocol(platform: Platform, sqs: Any) -> None:
    status, text = platform.query(
        platform.url,
        {
            "Action": "CreateQueue",
            "Version": "2012-11-05",
            "QueueName": "q",
            "Attribute.1.Name": "VisibilityTimeout",
            "Attribute.1.Value": "77",
            "Tag.1.Key": "k",
            "Tag.1.Value": "v",
        },
    )
    url = ElementTree.fromstring(text).findtext(f".//{NAMESPACE}QueueUrl") or ""
    assert (status, url) == (200, f"{platform.url}/000000000000/q")
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"k": "v"}
    send = {
        "Action": "SendMessage",
        "MessageBody": "a <b> & c",
        "MessageAttribute.1.Name": "n",
        "MessageAttribute.1.Value.DataType": "String",
        "MessageAttribute.1.Value.StringValue": "v",
    }
    status, text = platform.query(url, send)
    assert "<MD5OfMessageBody>" in text
    batch = {"Action": "SendMessageBatch", "QueueUrl": url}
    for at in (1, 2):
        batch |= {f"SendMessageBatchRequestEntry.{at}.Id": f"i{at}", f"SendMessageBatchRequestEntry.{at}.MessageBody": "m"}
    status, text = platform.query(platform.url, batch)
    assert text.count("<SendMessageBatchResultEntry>") == 2
    receive = {
        "Action": "ReceiveMessage",
        "MaxNumberOfMessages": "1",
        "AttributeName.1": "All",
        "MessageAttributeName.1": "All",
    }
    status, text = platform.query(url, receive, get=True)
    message = ElementTree.fromstring(text).find(f".//{NAMESPACE}Message")
    assert message is not None
    assert message.findtext(f"{NAMESPACE}Body") == "a <b> & c"
    names = [one.text for one in message.findall(f"{NAMESPACE}Attribute/{NAMESPACE}Name")]
    assert names == ["SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp"]
    assert message.findtext(f"{NAMESPACE}MessageAttribute/{NAMESPACE}Value/{NAMESPACE}StringValue") == "v"
    handle = message.findtext(f"{NAMESPACE}ReceiptHandle") or ""
    status, text = platform.query(url, {"Action": "DeleteMessage", "ReceiptHandle": handle})
    assert "<DeleteMessageResponse" in text
    found = platform.query(url, {"Action": "GetQueueAttributes", "AttributeName.1": "VisibilityTimeout"}, get=True)
    assert "<Attribute><Name>VisibilityTimeout</Name><Value>77</Value></Attribute>" in found[1]


def test_errors_of_the_query_protocol(platform: Platform, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    for parameters, status, code, text in (
        ({"Action": "Foo"}, 400, "InvalidAction", "The action Foo is not valid for this endpoint."),
        ({"Action": "ListQueues"}, 400, "InvalidAction", "The action ListQueues is not valid for this endpoint."),
        ({"Action": "SendMessage"}, 400, "MissingParameter", "The request must contain the parameter MessageBody."),
        (
            {"Action": "PurgeQueue", "QueueUrl": url + "x"},
            400,
            "AWS.SimpleQueueService.NonExistentQueue",
            "The specified queue does not exist for this wsdl version.",
        ),
    ):
        got, body = platform.query(url, parameters, get=True)
        root = ElementTree.fromstring(body)
        names = ("Type", "Code", "Message")
        found = [root.findtext(f"{NAMESPACE}Error/{NAMESPACE}{name}") for name in names]
        assert (got, found) == (status, ["Sender", code, text])
    assert platform.query(url, {}, get=True)[0] == 404


def test_nobody_gets_in_without_a_signature(platform: Platform, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}?Action=ReceiveMessage")
    with refused.value as error:
        assert (error.code, b"<Code>MissingAuthenticationToken</Code>" in error.read()) == (403, True)
    stranger = boto3.client(
        "sqs", endpoint_url=platform.url, region_name="us-east-1", aws_access_key_id="A" * 20, aws_secret_access_key="x" * 40
    )
    with pytest.raises(ClientError):
        stranger.receive_message(QueueUrl=url)


def test_a_client_that_hangs_up_while_it_waits_takes_no_message_along(platform: Platform, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    impatient = boto3.client(
        "sqs",
        endpoint_url=platform.url,
        region_name="us-east-1",
        aws_access_key_id=platform.key,
        aws_secret_access_key=platform.secret,
        config=Config(read_timeout=0.3, retries={"total_max_attempts": 1}),
    )
    with pytest.raises(Exception, match="Read timeout"):
        impatient.receive_message(QueueUrl=url, WaitTimeSeconds=20)
    impatient.close()
    deadline = time.monotonic() + 10
    while platform.server.queues._waiting._rooms and time.monotonic() < deadline:
        time.sleep(0.01)
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "x"


def test_what_is_there_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Platform(tmp_path / "data")
    sqs = first.client()
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    for body in "ab":
        sqs.send_message(QueueUrl=url, MessageBody=body)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    first.stop()
    second = Platform(tmp_path / "data")
    sqs = second.client()
    url = sqs.get_queue_url(QueueName="q")["QueueUrl"]
    assert [one["Body"] for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]] == ["b"]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert (
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["ApproximateNumberOfMessagesNotVisible"]
        == "1"
    )
    second.stop()
