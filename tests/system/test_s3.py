"""S3 as its clients speak it, over HTTP: boto3, presigned URLs, forms, chunks with signatures, browsers; and who attacks it."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from tests.system.test_sqs import Platform

BIG = os.urandom(11_000_000)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    found = Platform(tmp_path_factory.mktemp("s3"))
    yield found
    found.stop()


def client(platform: Platform, **config: Any) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=platform.url,
        region_name="us-east-1",
        aws_access_key_id=platform.key,
        aws_secret_access_key=platform.secret,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **config),
    )


@pytest.fixture
def s3(platform: Platform) -> Any:
    return client(platform)


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = "b-" + hashlib.sha1(request.node.name.encode()).hexdigest()[:20]
    s3.create_bucket(Bucket=name)
    return name


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_the_whole_way_of_an_object(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a/\u00e9 +", Body=BIG, Metadata={"x": "y"})
    found = s3.get_object(Bucket=bucket, Key="a/\u00e9 +", ChecksumMode="ENABLED")
    assert found["Body"].read() == BIG  # boto3 checks the CRC32
    assert (found["Metadata"], found["ETag"]) == ({"x": "y"}, f'"{hashlib.md5(BIG).hexdigest()}"')
    part = s3.get_object(Bucket=bucket, Key="a/\u00e9 +", Range="bytes=10-19")
    assert (part["Body"].read(), part["ResponseMetadata"]["HTTPStatusCode"]) == (BIG[10:20], 206)
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a/\u00e9 +"]
    s3.delete_object(Bucket=bucket, Key="a/\u00e9 +")
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="a/\u00e9 +")
    assert code(caught) == "404"
    s3.delete_bucket(Bucket=bucket)


def test_transfers_in_parts(s3: Any, bucket: str) -> None:
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(BIG), bucket, "k", Config=config)
    into = io.BytesIO()
    s3.download_fileobj(bucket, "k", into, Config=config)
    assert into.getvalue() == BIG
    assert s3.head_object(Bucket=bucket, Key="k")["ETag"].endswith('-3"')


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_presigned_urls(platform: Platform, bucket: str, version: str) -> None:
    s3 = client(platform, signature_version=version)
    put = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k", "ContentType": "text/x"})
    request = urllib.request.Request(put, b"presigned", {"content-type": "text/x"}, method="PUT")
    assert urllib.request.urlopen(request).status == 200
    get = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k", "ResponseContentType": "text/y"})
    with urllib.request.urlopen(get) as answer:
        assert (answer.read(), answer.headers["content-type"]) == (b"presigned", "text/y")
    for wrong in (get.replace("/k?", "/other?"), get.replace("text%2Fy", "text%2Fz")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wrong)
        assert caught.value.code == 403
        assert b"SignatureDoesNotMatch" in caught.value.read()
        caught.value.close()
    if version == "s3v4":
        return  # that it expires is held by tests/auth
    expired = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}, ExpiresIn=-5)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(expired)
    assert caught.value.code in (400, 403)
    caught.value.close()


def ask(platform: Platform, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    connection = http.client.HTTPConnection(platform.url.removeprefix("http://"))
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_virtual_hosts(platform: Platform, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"there")
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"})
    query = url.partition("?")[2]
    for host in (f"{bucket}.s3.localhost", f"{bucket}.localhost", f"{bucket}.s3.us-east-1.localhost:80"):
        assert ask(platform, "GET", f"/k?{query}", headers={"host": host})[::2] == (200, b"there")  # version 2 signs no host
        status, _, body = ask(platform, "GET", "/k", headers={"host": host})
        assert (status, b"<Code>AccessDenied</Code>" in body) == (403, True)


def test_the_public(platform: Platform, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"public")
    nobody = boto3.client("s3", endpoint_url=platform.url, region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError) as caught:
        nobody.get_object(Bucket=bucket, Key="k")
    assert code(caught) == "AccessDenied"
    s3.delete_public_access_block(Bucket=bucket)
    allow = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    assert nobody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"public"
    with pytest.raises(ClientError):
        nobody.put_object(Bucket=bucket, Key="k", Body=b"")


def test_forms(platform: Platform, s3: Any, bucket: str) -> None:
    conditions = [["content-length-range", 1, 20], ["starts-with", "$key", "up/"], {"x-amz-meta-a": "1"}]
    post = s3.generate_presigned_post(bucket, "up/${filename}", {"x-amz-meta-a": "1"}, conditions)

    def send(content: bytes, **more: str) -> tuple[int, bytes]:
        fields = {**post["fields"], **more}
        parts = [f'--XX\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
        head = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        body = b"".join(parts) + head + content + b"\r\n--XX--\r\n"
        status, _, answer = ask(platform, "POST", f"/{bucket}", body, {"content-type": "multipart/form-data; boundary=XX"})
        return status, answer

    assert send(b"form")[0] == 204
    found = s3.get_object(Bucket=bucket, Key="up/a.txt")
    assert (found["Body"].read(), found["Metadata"]) == (b"form", {"a": "1"})
    for content, more, error in (
        (b"", {}, b"EntityTooSmall"),
        (b"x" * 21, {}, b"EntityTooLarge"),
        (b"x", {"key": "other"}, b"Policy Condition failed"),
        (b"x", {"acl": "public-read"}, b"Extra input fields"),
        (b"x", {"policy": "bm90aGluZw=="}, b"InvalidPolicyDocument"),
    ):
        status, answer = send(content, **more)
        assert status >= 400
        assert error in answer, answer


def test_cross_origin(platform: Platform, s3: Any, bucket: str) -> None:
    preflight = {"origin": "http://a.test", "access-control-request-method": "PUT", "access-control-request-headers": "x-y"}
    status, _, body = ask(platform, "OPTIONS", f"/{bucket}/k", headers=preflight)
    assert (status, b"CORS is not enabled" in body) == (403, True)
    rule = {
        "AllowedMethods": ["PUT", "GET"],
        "AllowedOrigins": ["http://*.test"],
        "AllowedHeaders": ["x-*"],
        "MaxAgeSeconds": 5,
    }
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    status, headers, _ = ask(platform, "OPTIONS", f"/{bucket}/k", headers=preflight)
    assert (status, headers["access-control-allow-origin"], headers["access-control-max-age"]) == (200, "http://a.test", "5")
    assert headers["access-control-allow-headers"] == "x-y"
    status, _, _ = ask(platform, "OPTIONS", f"/{bucket}/k", headers=preflight | {"origin": "http://evil.example"})
    assert status == 403
    _, headers, _ = ask(platform, "GET", f"/{bucket}/k", headers={"origin": "http://a.test"})
    assert headers["access-control-allow-origin"] == "http://a.test"


# --- bodies


def signed(platform: Platform, method: str, path: str, headers: dict[str, str]) -> AWSRequest:
    request = AWSRequest(method, platform.url + path, headers=headers)
    request.context["payload_signing_enabled"] = True

    class Auth(S3SigV4Auth):
        def payload(self, request: Any) -> str:
            return headers["x-amz-content-sha256"]

        def _modify_request_before_signing(self, request: Any) -> None:
            super()._modify_request_before_signing(request)
            request.headers.replace_header("X-Amz-Content-SHA256", headers["x-amz-content-sha256"])

    Auth(Credentials(platform.key, platform.secret), "s3", "us-east-1").add_auth(request)
    return request


def chunks(platform: Platform, request: AWSRequest, pieces: list[bytes], trailer: bytes = b"", forge: bool = False) -> bytes:
    stamp = request.headers["X-Amz-Date"]
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    key = f"AWS4{platform.secret}".encode()
    for part in (stamp[:8], "us-east-1", "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    previous = request.headers["Authorization"].rpartition("Signature=")[2]
    empty, body = hashlib.sha256(b"").hexdigest(), b""
    for piece in [*pieces, b""]:
        digest = hashlib.sha256(piece).hexdigest()
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{scope}\n{previous}\n{empty}\n{digest}"
        previous = hmac.digest(key, text.encode(), "sha256").hex()
        shown = previous[::-1] if forge and piece == pieces[-1] else previous
        body += b"%x;chunk-signature=%s\r\n" % (len(piece), shown.encode()) + piece + (b"\r\n" if piece else b"")
    if trailer:
        digest = hashlib.sha256(trailer + b"\n").hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{stamp}\n{scope}\n{previous}\n{digest}"
        body += trailer + b"\r\nx-amz-trailer-signature:" + hmac.digest(key, text.encode(), "sha256").hex().encode() + b"\r\n"
    return body + b"\r\n"


@pytest.mark.parametrize("with_trailer", [False, True])
@pytest.mark.parametrize("fault", ["", "forged", "short", "other length", "wrong checksum"])
def test_chunks_with_signatures(platform: Platform, s3: Any, bucket: str, with_trailer: bool, fault: str) -> None:
    pieces = [os.urandom(70_000), b"123456789"]
    content = b"".join(pieces)
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if with_trailer else "")
    headers = {"x-amz-content-sha256": kind, "content-encoding": "aws-chunked,gzip"}
    headers["x-amz-decoded-content-length"] = str(len(content) + (fault == "other length"))
    trailer = b""
    if with_trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-sha256"
        import base64

        digest = hashlib.sha256(content if fault != "wrong checksum" else b"").digest()
        trailer = b"x-amz-checksum-sha256:" + base64.b64encode(digest)
    request = signed(platform, "PUT", f"/{bucket}/k", headers)
    body = chunks(platform, request, pieces, trailer, forge=fault == "forged")
    if fault == "short":
        body = body[:-200] if not with_trailer else body[:-400]
    status, _, answer = ask(platform, "PUT", f"/{bucket}/k", body, dict(request.headers.items()))
    expected = {"": 200, "forged": 403, "wrong checksum": 400 if with_trailer else 200}.get(fault, 400)
    assert status == expected, answer
    found = s3.get_object(Bucket=bucket, Key="k")
    if expected == 200:
        assert (found["Body"].read(), found["ContentEncoding"]) == (content, "gzip")
    else:
        assert found["Body"].read() == b"old"


def test_the_hash_that_was_signed_must_be_the_body_s(platform: Platform, s3: Any, bucket: str) -> None:
    headers = {"x-amz-content-sha256": hashlib.sha256(b"one").hexdigest()}
    request = signed(platform, "PUT", f"/{bucket}/k", headers)
    status, _, answer = ask(platform, "PUT", f"/{bucket}/k", b"two", dict(request.headers.items()))
    assert (status, b"XAmzContentSHA256Mismatch" in answer) == (400, True)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_body_that_stops_keeps_the_old_object(platform: Platform, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    url = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "k"})
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port))) as connection:
        head = f"PUT /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5000000\r\n\r\n"
        connection.sendall(head.encode() + BIG[:4_000_000])
        connection.shutdown(socket.SHUT_WR)
        assert b"IncompleteBody" in connection.recv(65_536)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"


def test_nobody_is_asked_for_a_body_that_is_not_wanted(platform: Platform, s3: Any, bucket: str) -> None:
    host = platform.url.removeprefix("http://")
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port))) as connection:
        head = f"PUT /{bucket}/k HTTP/1.1\r\nhost: {host}\r\ncontent-length: 5000000\r\nexpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")  # and not 100


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'


@pytest.mark.parametrize("body", [b"", b"<", b"<Delete>", BOMB, b"\xff\xfe", b"<a>" * 500, b"{}"])
def test_documents_that_are_none(platform: Platform, s3: Any, bucket: str, body: bytes) -> None:
    import base64

    headers = {
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
        "content-md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
    }
    request = signed(platform, "POST", f"/{bucket}?delete=", headers)
    status, _, answer = ask(platform, "POST", f"/{bucket}?delete=", body, dict(request.headers.items()))
    assert (status, b"MalformedXML" in answer or b"MissingRequestBody" in answer) == (400, True), answer


def test_what_martlet_has_not_is_refused_by_name(s3: Any, bucket: str) -> None:
    for call in (
        lambda: s3.put_bucket_replication(Bucket=bucket, ReplicationConfiguration={"Role": "r", "Rules": []}),
        lambda: s3.put_bucket_website(Bucket=bucket, WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}}),
        lambda: s3.restore_object(Bucket=bucket, Key="k", RestoreRequest={}),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        assert (code(caught), caught.value.response["ResponseMetadata"]["HTTPStatusCode"]) == ("NotImplemented", 501)


def test_changes_reach_topics_and_the_event_bus(platform: Platform, s3: Any, bucket: str) -> None:
    """Both end in one queue here: a subscription of the topic, a rule of the bus."""
    made: dict[str, Any] = {"endpoint_url": platform.url, "region_name": "us-east-1"}
    made |= {"aws_access_key_id": platform.key, "aws_secret_access_key": platform.secret}
    sqs, sns, events = (boto3.client(name, **made) for name in ("sqs", "sns", "events"))
    services = {"Service": ["sns.amazonaws.com", "events.amazonaws.com"]}
    statement = {"Effect": "Allow", "Principal": services, "Action": "sqs:SendMessage", "Resource": "*"}
    attributes = {"Policy": json.dumps({"Statement": [statement]})}
    url = sqs.create_queue(QueueName="heard", Attributes=attributes)["QueueUrl"]
    queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name="objects")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes={"RawMessageDelivery": "true"})
    pattern = {"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}, "object": {"key": [{"prefix": "in/"}]}}}
    events.put_rule(Name="objects", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="objects", Targets=[{"Id": "q", "Arn": queue}])
    wrong = [{"TopicArn": f"{topic}x", "Events": ["s3:ObjectCreated:*"]}]
    with pytest.raises(ClientError, match="Unable to validate the following destination"):
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"TopicConfigurations": wrong})
    told = [{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}]
    both: dict[str, Any] = {"TopicConfigurations": told, "EventBridgeConfiguration": {}}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=both)
    s3.put_object(Bucket=bucket, Key="in/a", Body=b"12345")
    s3.put_object(Bucket=bucket, Key="out/b", Body=b"1")
    keys: dict[str, list[str]] = {"topic": [], "bus": []}
    while len(keys["topic"]) < 2 or not keys["bus"]:
        for message in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10, MaxNumberOfMessages=10).get("Messages", []):
            body = json.loads(message["Body"])
            keys["topic"] += [record["s3"]["object"]["key"] for record in body.get("Records", ())]
            if body.get("detail-type") == "Object Created":
                keys["bus"].append(body["detail"]["object"]["key"])
    assert (sorted(keys["topic"]), keys["bus"]) == (["in/a", "out/b"], ["in/a"])
