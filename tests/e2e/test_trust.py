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


def test_who_may_not_read_the_audit_log_does_not(start: Start, tmp_path: Path) -> None:
    platform = start(write_app(tmp_path / "shop", SHOP), "--no-watch")
    for path in ("/v1/audit", "/v1/audit/verify", "/v1/policy/suggest?principal=root", "/v1/policy/principals"):
        assert httpx.get(f"{platform.api_url}{path}", timeout=30).status_code == 401
