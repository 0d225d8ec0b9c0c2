"""CSV files → NDJSON → a DynamoDB table, and a report of it every morning."""

import csv
import json
import os
from collections import Counter
from urllib.parse import unquote_plus

import boto3
from boto3.dynamodb.conditions import Key

s3 = boto3.client("s3")
dynamodb = boto3.resource("dynamodb")


def convert(event, context):
    """Each good row becomes a line of NDJSON; the others are told by line in a file beside it."""
    for bucket, key in objects(event):
        text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode("utf-8-sig", errors="replace")
        rows, errors = parsed(text)
        for name, lines in (("errors.txt", errors), ("ndjson", map(json.dumps, rows))):
            body = "".join(f"{line}\n" for line in lines).encode()
            s3.put_object(Bucket=os.environ["CLEAN"], Key=f"{key}.{name}", Body=body)


def parsed(text):
    rows, errors = [], []
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        try:
            sale = {"product": row["product"].strip(), "quantity": int(row["quantity"]), "cents": int(row["cents"])}
            if not sale["product"] or sale["quantity"] <= 0 or sale["cents"] < 0:
                raise ValueError("a sale has a product, a quantity and a price")
            rows.append(sale)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            errors.append(f"line {reader.line_num}: {error!r}")
    return rows, errors


def load(event, context):
    """A sale's key is its file and place, so a file that comes again, or better, replaces what it brought before."""
    sales = dynamodb.Table(os.environ["SALES"])
    for bucket, key in objects(event):
        rows = [json.loads(line) for line in s3.get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()]
        before = list(pages(sales.query, KeyConditionExpression=Key("file").eq(key) & Key("place").gte(len(rows))))
        with sales.batch_writer() as batch:
            for place, row in enumerate(rows):
                batch.put_item(Item={"file": key, "place": place, **row})
            for item in before:
                batch.delete_item(Key={"file": key, "place": item["place"]})


def report(event, context):
    cents, pieces = Counter(), Counter()
    for item in pages(dynamodb.Table(os.environ["SALES"]).scan):
        cents[item["product"]] += item["cents"]
        pieces[item["product"]] += item["quantity"]
    latest = {product: {"pieces": pieces[product], "cents": cents[product]} for product in sorted(cents)}
    dynamodb.Table(os.environ["REPORTS"]).put_item(Item={"id": "latest", "products": latest})


def show(event, context):
    found = dynamodb.Table(os.environ["REPORTS"]).get_item(Key={"id": "latest"}, ConsistentRead=True).get("Item")
    if found is None:
        return answer(404, {"detail": "there is no report yet"})
    return answer(200, found["products"])


def pages(ask, **wanted):
    page = ask(ConsistentRead=True, **wanted)
    yield from page["Items"]
    while "LastEvaluatedKey" in page:
        page = ask(ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"], **wanted)
        yield from page["Items"]


def objects(event):
    found = [record["s3"] for record in event["Records"]]
    return [(one["bucket"]["name"], unquote_plus(one["object"]["key"])) for one in found]


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body, default=float)}
