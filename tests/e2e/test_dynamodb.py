"""DynamoDB on the real platform: boto3's client and resource from outside, a function of a template from within."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.dynamodb.conditions import Attr, Key
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.e2e.conftest import Start
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Simple:
    Type: AWS::Serverless::SimpleTable
    Properties: {PrimaryKey: {Name: id, Type: String}}
  Orders:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}, {AttributeName: day, AttributeType: N}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      GlobalSecondaryIndexes:
        - {IndexName: by_day, KeySchema: [{AttributeName: day, KeyType: HASH}], Projection: {ProjectionType: ALL}}
  Count:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Environment: {Variables: {TABLE: !Ref Orders, OTHER: !Ref Simple}}
      Policies: [{DynamoDBCrudPolicy: {TableName: !Ref Orders}}]
      InlineCode: |
        import os
        import boto3
        from botocore.exceptions import ClientError

        def handler(event, context):
            table = boto3.resource("dynamodb").Table(os.environ["TABLE"])
            told = table.update_item(
                Key={"id": event["id"]},
                UpdateExpression="ADD n :one",
                ExpressionAttributeValues={":one": 1},
                ReturnValues="UPDATED_NEW",
            )
            try:
                boto3.client("dynamodb").scan(TableName=os.environ["OTHER"])
                other = "allowed"
            except ClientError as error:
                other = error.response["Error"]["Code"]
            return {"n": int(told["Attributes"]["n"]), "other": other}
Outputs:
  Orders: {Value: !Ref Orders}
  Count: {Value: !Ref Count}
"""


@pytest.fixture(scope="module")
def platform(start: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningPlatform:
    folder: Path = tmp_path_factory.mktemp("template")
    (folder / "template.yaml").write_text(TEMPLATE)
    return start(folder / "template.yaml", "--no-watch")


@pytest.fixture
def aws(platform: RunningPlatform) -> Iterator[Any]:
    made = []

    def client(service: str) -> Any:
        found = boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=platform.api_url,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}),
            aws_access_key_id=platform.credentials["access_key_id"],
            aws_secret_access_key=platform.credentials["secret_access_key"],
        )
        made.append(found)
        return found

    yield client
    for found in made:
        found.close()


@pytest.fixture
def resource(platform: RunningPlatform) -> Iterator[Any]:
    made: Any = boto3.resource(
        "dynamodb",
        endpoint_url=platform.api_url,
        region_name="us-east-1",
        aws_access_key_id=platform.credentials["access_key_id"],
        aws_secret_access_key=platform.credentials["secret_access_key"],
    )
    yield made
    made.meta.client.close()


def test_the_resource_layer_of_boto3(resource: Any) -> None:
    table = resource.create_table(
        TableName="music",
        KeySchema=[{"AttributeName": "artist", "KeyType": "HASH"}, {"AttributeName": "year", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "artist", "AttributeType": "S"},
            {"AttributeName": "year", "AttributeType": "N"},
        ],
        ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
    )
    table.wait_until_exists()
    with table.batch_writer() as batch:
        for year in range(1990, 2020):
            batch.put_item(Item={"artist": "a", "year": year, "rate": Decimal("0.1") * (year % 7), "tags": {"x", str(year)}})
    found = table.query(
        KeyConditionExpression=Key("artist").eq("a") & Key("year").between(2000, 2009),
        FilterExpression=Attr("rate").gt(Decimal("0.3")),
        ScanIndexForward=False,
    )
    assert [int(item["year"]) for item in found["Items"]] == [2008, 2007, 2006, 2001, 2000]  # year % 7 is 4 and more
    with pytest.raises(ClientError) as raised:
        table.put_item(Item={"artist": "a", "year": 2000}, ConditionExpression=Attr("artist").not_exists())
    assert raised.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    pages = resource.meta.client.get_paginator("scan").paginate(TableName="music", PaginationConfig={"PageSize": 7})
    assert sum(page["Count"] for page in pages) == 30
    table.delete()
    table.wait_until_not_exists()


def test_a_table_of_a_template_is_used_by_its_function_alone(aws: Any) -> None:
    outputs = aws("cloudformation").describe_stacks()["Stacks"][0]["Outputs"]
    names = {one["OutputKey"]: one["OutputValue"] for one in outputs}
    for expected in (1, 2):
        answer = aws("lambda").invoke(FunctionName=names["Count"], Payload=json.dumps({"id": "x"}))
        assert json.loads(answer["Payload"].read()) == {"n": expected, "other": "AccessDeniedException"}
    item = aws("dynamodb").get_item(TableName=names["Orders"], Key={"id": {"S": "x"}})["Item"]
    assert item == {"id": {"S": "x"}, "n": {"N": "2"}}


def test_what_was_answered_is_there_after_a_kill(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"

    def open_client(running: RunningPlatform) -> Any:
        return boto3.client(
            "dynamodb",
            endpoint_url=running.api_url,
            region_name="us-east-1",
            aws_access_key_id=running.credentials["access_key_id"],
            aws_secret_access_key=running.credentials["secret_access_key"],
        )

    first = start(None, data=data)
    client = open_client(first)
    client.create_table(
        TableName="kept",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}, {"AttributeName": "g", "AttributeType": "S"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by_g",
                "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    for number in range(200):
        client.put_item(TableName="kept", Item={"id": {"N": str(number)}, "g": {"S": "x"}})
    client.close()
    first.process.kill()
    first.process.wait()
    second = open_client(start(None, data=data))
    assert second.scan(TableName="kept", Select="COUNT", ConsistentRead=True)["Count"] == 200
    found = second.query(
        TableName="kept", IndexName="by_g", KeyConditionExpression="g = :x", ExpressionAttributeValues={":x": {"S": "x"}}
    )
    assert sorted(int(item["id"]["N"]) for item in found["Items"]) == list(range(200))
    second.close()
