import json
import os

import boto3

people = boto3.resource("dynamodb").Table(os.environ["TABLE"])
connections = boto3.client("apigatewaymanagementapi", endpoint_url=os.environ["CONNECTIONS"])


def judge(event, context):
    name = event["queryStringParameters"]["name"]
    effect = "Deny" if name == "mallory" else "Allow"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    return {"principalId": name, "policyDocument": policy, "context": {"name": name}}


def join(event, context):
    request = event["requestContext"]
    people.put_item(Item={"id": request["connectionId"], "name": request["authorizer"]["name"]})
    return {"statusCode": 200}


def leave(event, context):
    people.delete_item(Key={"id": event["requestContext"]["connectionId"]})
    return {"statusCode": 200}


def send(event, context):
    """To everybody in the room; who is gone is crossed off."""
    name = event["requestContext"]["authorizer"]["name"]
    text = json.dumps({"from": name, "text": json.loads(event["body"])["text"]})
    for person in people.scan()["Items"]:
        try:
            connections.post_to_connection(ConnectionId=person["id"], Data=text.encode())
        except connections.exceptions.GoneException:
            people.delete_item(Key={"id": person["id"]})
    return {"statusCode": 200}


def who(event, context):
    names = sorted(person["name"] for person in people.scan(ConsistentRead=True)["Items"])
    return {"statusCode": 200, "body": json.dumps(names)}
