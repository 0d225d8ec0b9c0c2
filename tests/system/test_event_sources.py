"""Event source mappings over the Lambda API, by boto3."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from martlet.config import Settings
from martlet.server import Server

APP = """
from martlet import App, Collection

app = App("shop")
seen = Collection("seen")

@app.function(uses=[seen])
def work(event, context):
    for record in event["Records"]:
        seen.put(record["body"], record)
"""


async def test_boto3_maps_a_queue_to_a_function(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "app.py").write_text(APP)
    server = Server(Settings(data=str(tmp_path / "data"), port=0, sandbox="process", quiet=True, stem_cells=1))
    await server.start()
    try:
        await server.apps.deploy(tmp_path / "shop", "shop")
        await asyncio.to_thread(use, server, tmp_path)
        async with asyncio.timeout(20):
            while server.documents.get("shop", "seen", "hello") is None:  # noqa: ASYNC110 - a document tells nobody
                await asyncio.sleep(0.02)
    finally:
        await server.stop()


def use(server: Server, folder: Path) -> None:
    from json import loads

    found = loads((folder / "data" / "credentials.json").read_text())
    options: dict[str, Any] = {
        "endpoint_url": f"http://127.0.0.1:{server.api_port}",
        "region_name": "us-east-1",
        "aws_access_key_id": found["access_key_id"],
        "aws_secret_access_key": found["secret_access_key"],
    }
    sqs, functions = boto3.client("sqs", **options), boto3.client("lambda", **options)
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    made = functions.create_event_source_mapping(EventSourceArn=arn, FunctionName="shop-work", BatchSize=2)
    assert (made["State"], made["ResponseMetadata"]["HTTPStatusCode"]) == ("Creating", 202)
    assert [one["UUID"] for one in functions.list_event_source_mappings()["EventSourceMappings"]] == [made["UUID"]]
    with pytest.raises(ClientError) as refused:
        functions.create_event_source_mapping(EventSourceArn=arn, FunctionName="nope")
    assert refused.value.response["Error"]["Code"] == "InvalidParameterValueException"
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_event_source_mapping(UUID="00000000-0000-0000-0000-000000000000")
    sqs.send_message(QueueUrl=url, MessageBody="hello")
