"""Who did what, who may what: the audit log and the advice on policies, by the command line and beside boto3."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.e2e.conftest import Start
from tests.e2e.driving import Command, RunningPlatform, write_app

pytestmark = pytest.mark.e2e

SHOP = """
    from martlet import AccessDenied, App, Collection, Queue

    app = App("shop")
    orders, stock, mail = Collection("orders"), Collection("stock"), Queue("mail")

    @app.post("/orders", uses=[orders.write, mail.send, stock.read])
    def place() -> dict:
        orders.put("1", {"pears": 3})
        mail.send("sold")
        return {"placed": True}

    @app.get("/orders", uses=[orders.write])
    def read() -> dict:
        try:
            orders.get("1")
        except AccessDenied:
            return {"denied": True}
        return {"denied": False}
"""


def client(platform: RunningPlatform, service: str, key: str = "", secret: str = "") -> Any:
    root = json.loads((platform.data / "credentials.json").read_text())
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=platform.api_url,
        region_name="us-east-1",
        aws_access_key_id=key or root["access_key_id"],
        aws_secret_access_key=secret or root["secret_access_key"],
        config=Config(retries={"max_attempts": 0}),
    )


def entries(martlet: Command, platform: RunningPlatform, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = martlet("audit", "list", "--json", *arguments, data=platform.data).json["entries"]
    return found


def test_a_function_has_what_it_declares_and_the_least_is_suggested(start: Start, martlet: Command, tmp_path: Path) -> None:
    platform = start(write_app(tmp_path / "shop", SHOP), "--no-watch")
    assert httpx.post(f"{platform.app_url}/orders", timeout=30).json() == {"placed": True}
    assert httpx.get(f"{platform.app_url}/orders", timeout=30).json() == {"denied": True}
    (place,) = martlet("policy", "suggest", "function shop-place", "--json", data=platform.data).json
    assert place["uses"] == ["orders.write", "mail.send"]
    assert place["unused"] == ["stock.read"]
    (read,) = martlet("policy", "suggest", "function shop-read", "--json", data=platform.data).json
    assert [(access["action"], access["resource"]) for access in read["denied"]] == [("documents:Get", "shop/orders")]
    told = martlet("policy", "explain", "function shop-read", "documents:Get", "shop/orders", data=platform.data)
    assert "may not documents:Get on shop/orders" in told.out
    assert '"Action": "documents:Get"' in told.out
    assert "uses=[orders.read]" in told.out
    assert martlet("policy", "suggest", data=platform.data).out.count("uses=[") == 2
    assert martlet("policy", "reset", "function shop-read", data=platform.data).code == 0
    assert martlet("policy", "suggest", "function shop-read", "--json", data=platform.data).json[0]["accesses"] == []
    for wrong in (("explain", "root"), ("reset",), ("explain", "user nobody", "a:B", "c")):
        refused = martlet("policy", *wrong, data=platform.data)
        assert refused.code in (1, 2)
        assert "Traceback" not in refused.err
    denied = entries(martlet, platform, "--outcome", "denied")
    assert [(entry["principal"], entry["action"], entry["resource"]) for entry in denied] == [
        ("shop-read", "documents:Get", "shop/orders")
    ]


def test_who_did_what_is_kept_through_kill_9_and_every_change_is_found(start: Start, martlet: Command, tmp_path: Path) -> None:
    app = write_app(tmp_path / "shop", SHOP)
    platform = start(app, "--no-watch")
    assert martlet("deploy", app, data=platform.data).code == 0
    iam = client(platform, "iam")
    iam.create_user(UserName="ada")
    key = iam.create_access_key(UserName="ada")["AccessKey"]
    ada = client(platform, "sqs", key["AccessKeyId"], key["SecretAccessKey"])
    with pytest.raises(ClientError, match="not authorized"):
        ada.create_queue(QueueName="mine")
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client(platform, "sqs", "AKIAUNKNOWNUNKNOWN00", "x" * 40).list_queues()
    with pytest.raises(ClientError):
        client(platform, "iam").delete_user(UserName="nobody")
    client(platform, "s3").create_bucket(Bucket="plain-bucket")
    os.kill(platform.process.pid, signal.SIGKILL)
    platform.process.wait()
    platform = start(app, "--no-watch", data=platform.data)

    calls = [(entry["principal"], entry["action"], entry["outcome"], entry["error"]) for entry in entries(martlet, platform)]
    user = "arn:aws:iam::000000000000:user/ada"
    for expected in (
        ("root", "apps:Deploy", "done", ""),
        ("root", "iam:CreateUser", "done", ""),
        ("root", "iam:CreateAccessKey", "done", ""),
        (user, "sqs:CreateQueue", "denied", "access_denied"),
        ("key AKIAUNKNOWNUNKNOWN00", "", "denied", "InvalidClientTokenId"),
        ("root", "iam:DeleteUser", "failed", "NoSuchEntity"),
        ("root", "s3:CreateBucket", "done", ""),
    ):
        assert expected in calls
    secrets = json.dumps(calls)
    assert key["SecretAccessKey"] not in secrets

    whole = martlet("audit", "verify", data=platform.data)
    assert (whole.code, "hold together" in whole.out) == (0, True)
    file = tmp_path / "audit.ndjson"
    assert martlet("audit", "export", file, data=platform.data).code == 0
    assert martlet("audit", "verify", file, data=tmp_path / "nowhere").code == 0
    file.write_text(file.read_text().replace("iam:CreateAccessKey", "iam:ListUsers"))
    changed = martlet("audit", "verify", file, data=tmp_path / "nowhere")
    assert (changed.code, "was changed" in changed.err) == (1, True)


def test_what_is_asked_of_explain_is_no_use_and_an_export_that_fails_keeps_the_earlier_one(
    start: Start, martlet: Command, tmp_path: Path
) -> None:
    platform = start(write_app(tmp_path / "shop", SHOP), "--no-watch")
    told = martlet("policy", "explain", "function shop-place", "sqs:SendMessage", "shop-mail", data=platform.data)
    assert "may sqs:SendMessage on arn:aws:sqs:us-east-1:000000000000:shop-mail" in told.out
    denied = martlet("policy", "explain", "function shop-place", "s3:DeleteBucket", "prod", "--json", data=platform.data).json
    assert (denied["allowed"], denied["resource"]) == (False, "arn:aws:s3:::prod")
    assert martlet("policy", "suggest", "function shop-place", "--json", data=platform.data).json[0]["accesses"] == []
    file = tmp_path / "audit.ndjson"
    assert martlet("audit", "export", file, data=platform.data).code == 0
    before = file.read_bytes()
    assert martlet("audit", "export", tmp_path / "nowhere/x", data=platform.data).code == 2
    platform.kill()
    assert martlet("audit", "export", file, data=platform.data).code == 3
    assert file.read_bytes() == before
    added = json.loads(before.splitlines()[-1]) | {"evil": "x"} if before else {}
    file.write_text(json.dumps(added) + "\n")
    assert martlet("audit", "verify", file, data=platform.data).code == 1


def test_a_tables_own_policy_decides_and_its_owner_can_mend_it(start: Start, tmp_path: Path) -> None:
    platform = start(None)
    iam, tables = client(platform, "iam"), client(platform, "dynamodb")
    iam.create_user(UserName="bob")
    key = iam.create_access_key(UserName="bob")["AccessKey"]
    bob = client(platform, "dynamodb", key["AccessKeyId"], key["SecretAccessKey"])
    made = tables.create_table(
        TableName="own",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    arn = made["TableDescription"]["TableArn"]
    tables.put_item(TableName="own", Item={"id": {"S": "1"}})
    with pytest.raises(ClientError, match="not authorized"):
        bob.get_item(TableName="own", Key={"id": {"S": "1"}})
    allow = {
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::000000000000:user/bob"},
        "Action": "dynamodb:GetItem",
        "Resource": arn,
    }
    tables.put_resource_policy(ResourceArn=arn, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    assert bob.get_item(TableName="own", Key={"id": {"S": "1"}})["Item"] == {"id": {"S": "1"}}
    with pytest.raises(ClientError, match="not authorized"):
        bob.put_item(TableName="own", Item={"id": {"S": "2"}})
    deny = {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": arn}
    tables.put_resource_policy(ResourceArn=arn, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow, deny]}))
    with pytest.raises(ClientError, match="explicit deny"):
        bob.get_item(TableName="own", Key={"id": {"S": "1"}})
    tables.delete_resource_policy(ResourceArn=arn)
    assert tables.get_item(TableName="own", Key={"id": {"S": "1"}})["Item"] == {"id": {"S": "1"}}
    tables.delete_table(TableName="own")


def test_who_may_not_read_the_audit_log_does_not(start: Start, tmp_path: Path) -> None:
    platform = start(write_app(tmp_path / "shop", SHOP), "--no-watch")
    for path in ("/v1/audit", "/v1/audit/verify", "/v1/policy/suggest?principal=root", "/v1/policy/principals"):
        assert httpx.get(f"{platform.api_url}{path}", timeout=30).status_code == 401
