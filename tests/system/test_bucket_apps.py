"""An app with a bucket, end to end; the same by a template; and kill -9 in the middle of it all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import urllib.request
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from tests.running_platform import RunningPlatform
from tests.system.test_queue_apps import until

from martlet.config import Settings
from martlet.server import Server

APP = """
from martlet import App, Bucket
from martlet import AccessDenied, Conflict, NotFound

app = App("pics")
files = Bucket("files", versioning=True)

@app.function(uses=[files])
def use(event, context):
    etag = files.put("in/a.txt", "hello", content_type="text/x", metadata={"m": "1"})
    found = {"etag": etag, "got": files.get("in/a.txt").decode(), "part": files.get("in/a.txt", first=1, last=2).decode()}
    try:
        files.put("in/a.txt", b"", if_absent=True)
    except Conflict:
        found["conflict"] = True
    try:
        files.get("none")
    except NotFound:
        found["none"] = not files.exists("none")
    return found | {"url": files.presign("in/a.txt")}

@app.function()
def stranger(event, context):
    try:
        files.put("in/b.txt", "x")
    except AccessDenied as error:
        return str(error)

@app.function(uses=[files])
def keys(event, context):
    return [one.key for one in files.list("out/")]

@app.on(files.created, prefix="in/", suffix=".txt", uses=[files])
def shout(event, context):
    for record in event["Records"]:
        key = record["s3"]["object"]["key"]
        files.put("out/" + key, files.get(key).upper())
"""


async def test_an_app_keeps_objects_and_is_told_of_them(tmp_path: Path) -> None:
    source = tmp_path / "pics"
    source.mkdir()
    (source / "app.py").write_text(APP)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True))
    await server.start()

    async def run(name: str) -> Any:
        _, outcome = await server.functions.invoke(f"pics-{name}", b"{}", source="test")
        assert not outcome.error, outcome.payload
        return json.loads(outcome.payload)

    try:
        await server.apps.deploy(source)
        found = await run("use")
        assert (found["got"], found["part"], found["conflict"], found["none"]) == ("hello", "el", True, True)
        answer = await asyncio.to_thread(lambda: urllib.request.urlopen(found["url"]).read())
        assert answer == b"hello"
        assert "s3:PutObject" in await run("stranger")
        await until(lambda: server.objects.store.read(lambda reader: reader.scan(*_objects(), limit=10))[1:])
        assert await run("keys") == ["out/in/a.txt"]
        assert server.objects.demand("pics-files").versioning == "Enabled"
        (source / "app.py").write_text(APP.replace("@app.on(files.created, prefix", "@app.on(files.removed, prefix"))
        await server.apps.deploy(source)
        (told,) = server.objects.demand("pics-files").settings["apps"]
        assert told["events"] == ["s3:ObjectRemoved:*"]
    finally:
        await server.stop()


def _objects() -> tuple[bytes, bytes]:
    from martlet.objects import rows
    from martlet.store import keys

    return keys.prefix_range(rows.OBJECT, "pics-files")


TEMPLATE = """
AWSTemplateFormatVersion: '2010-09-09'
Transform: AWS::Serverless-2016-10-31
Resources:
  Upload:
    Type: AWS::S3::Bucket
    Properties:
      BucketName: upload-bucket
      VersioningConfiguration: {Status: Enabled}
      CorsConfiguration: {CorsRules: [{AllowedMethods: [GET], AllowedOrigins: ['*']}]}
      LifecycleConfiguration: {Rules: [{Id: old, Status: Enabled, Prefix: tmp/, ExpirationInDays: 3}]}
  Policy:
    Type: AWS::S3::BucketPolicy
    Properties:
      Bucket: !Ref Upload
      PolicyDocument:
        Version: '2012-10-17'
        Statement: [{Effect: Deny, Principal: '*', Action: 's3:DeleteObject', Resource: !Sub '${Upload.Arn}/*'}]
  Seen:
    Type: AWS::Serverless::Function
    Properties:
      Handler: index.handler
      Runtime: python3.11
      InlineCode: |
        def handler(event, context):
            print("SEEN", event["Records"][0]["s3"]["object"]["key"])
      Events:
        New: {Type: S3, Properties: {Bucket: !Ref Upload, Events: 's3:ObjectCreated:*',
              Filter: {S3Key: {Rules: [{Name: prefix, Value: in/}]}}}}
Outputs:
  Name: {Value: !Ref Upload}
"""


async def test_a_template_makes_a_bucket_whose_objects_call_a_function(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True))
    await server.start()
    try:
        await server.stacks.deploy(tmp_path / "template.yaml", "uploads", is_lenient=True)
        bucket = server.objects.demand("upload-bucket")
        assert bucket.versioning == "Enabled"
        assert set(bucket.settings) >= {"cors", "lifecycle", "notification", "policy"}
        await server.objects.store_bytes("upload-bucket", "in/one", b"x")

        async def lines() -> str:
            records = await server.logs.read(None, None, 100)
            return "\n".join(line for record in records for line in record.render())

        async with asyncio.timeout(20):
            while "SEEN in/one" not in await lines():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        await server.stop()


def test_kill_in_the_middle_of_uploads(tmp_path: Path) -> None:
    """What was acknowledged is there after kill -9, whole; what was not is there whole, or not at all; no bytes stay behind."""
    data = tmp_path / "data"
    acknowledged: dict[str, str] = {}
    tried: dict[str, set[str]] = {}
    done: list[list[int]] = [[] for _ in range(4)]
    for life in range(3):
        platform = RunningPlatform(None, data, "--sandbox", "process")
        s3 = _client(platform)
        if life == 0:
            s3.create_bucket(Bucket="crash")
        _check(s3, acknowledged, tried)
        threads = [threading.Thread(target=_upload, args=(s3, at, acknowledged, tried, done[at])) for at in range(4)]
        for thread in threads:
            thread.start()
        before = sum(map(len, done))
        while sum(map(len, done)) < before + 30:
            threads[0].join(0.01)
        platform.kill()
        for thread in threads:
            thread.join()
    platform = RunningPlatform(None, data, "--sandbox", "process")
    try:
        s3 = _client(platform)
        _check(s3, acknowledged, tried)
        listed = [
            one["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket="crash") for one in page["Contents"]
        ]
        assert set(acknowledged) <= set(listed)
        for key in listed:
            s3.delete_object(Bucket="crash", Key=key)
    finally:
        assert platform.stop() == 0
    platform = RunningPlatform(None, data, "--sandbox", "process")
    try:
        left = data / "objects"
        for _ in range(200):
            files = [path for path in left.rglob("*") if path.is_file() and path.name != "owner"]  # whose folder it is
            if not files:
                break
            threading.Event().wait(0.05)
        assert files == []
    finally:
        platform.stop()


def _client(platform: RunningPlatform) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=platform.api_url,
        region_name="us-east-1",
        aws_access_key_id=platform.credentials["access_key_id"],
        aws_secret_access_key=platform.credentials["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=20),
    )


def _upload(s3: Any, at: int, acknowledged: dict[str, str], tried: dict[str, set[str]], done: list[int]) -> None:
    for turn in range(10_000):
        key = f"{at}-{turn % 7}"
        body = os.urandom(1_000 if turn % 2 else 400_000)
        digest = hashlib.md5(body).hexdigest()
        tried.setdefault(key, set()).add(digest)
        try:
            s3.put_object(Bucket="crash", Key=key, Body=body)
        except Exception:
            return
        acknowledged[key] = digest
        tried[key] = {digest}
        done.append(turn)


def _check(s3: Any, acknowledged: dict[str, str], tried: dict[str, set[str]]) -> None:
    for key in acknowledged:
        body = s3.get_object(Bucket="crash", Key=key)["Body"].read()
        digest = hashlib.md5(body).hexdigest()
        assert digest in tried[key] | {acknowledged[key]}, key
        acknowledged[key] = digest
