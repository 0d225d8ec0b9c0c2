"""A list of tasks in a DynamoDB table."""

import json
import os
from uuid import uuid4

import boto3

tasks = boto3.resource("dynamodb").Table(os.environ["TASKS"])
missing = tasks.meta.client.exceptions.ConditionalCheckFailedException


def handler(event, context):
    id = event.get("pathParameters", {}).get("id", "")
    try:
        return ROUTES[event["routeKey"]](id, event)
    except ValueError as error:
        return answer(422, {"detail": str(error)})
    except missing:
        return answer(404, {"detail": f"there is no task {id}"})


def add(id, event):
    task = {"id": str(uuid4()), **read(event)}
    tasks.put_item(Item=task)
    return answer(201, {"id": task["id"]})


def show_all(id, event):
    page = tasks.scan()
    found = page["Items"]
    while "LastEvaluatedKey" in page:
        page = tasks.scan(ExclusiveStartKey=page["LastEvaluatedKey"])
        found += page["Items"]
    return answer(200, found)


def show(id, event):
    found = tasks.get_item(Key={"id": id}, ConsistentRead=True).get("Item")
    return answer(404, {"detail": f"there is no task {id}"}) if found is None else answer(200, found)


def change(id, event):
    task = {"id": id, **read(event)}
    tasks.put_item(Item=task, ConditionExpression="attribute_exists(id)")
    return answer(200, task)


def remove(id, event):
    tasks.delete_item(Key={"id": id}, ConditionExpression="attribute_exists(id)")
    return {"statusCode": 204}


def read(event):
    """The task in the request. Raises `ValueError` for what is none."""
    task = json.loads(event.get("body") or "null")
    if not isinstance(task, dict):
        raise ValueError("a task is an object")
    task.setdefault("done", False)
    if not isinstance(task.get("title"), str) or not 1 <= len(task["title"]) <= 200:
        raise ValueError("title is text of 1 to 200 characters")
    if not isinstance(task["done"], bool):
        raise ValueError("done is true or false")
    return {"title": task["title"], "done": task["done"]}


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


ROUTES = {
    "POST /tasks": add,
    "GET /tasks": show_all,
    "GET /tasks/{id}": show,
    "PUT /tasks/{id}": change,
    "DELETE /tasks/{id}": remove,
}
