"""The whole platform in this process, on a loop of its own, and clients for it."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from martlet.config import Settings
from martlet.server import Server

ACCOUNT = "000000000000"
REGION = "us-east-1"


def open_to(queue_arn: str, *services: str, source: str = "arn:aws:*:*:*:*") -> str:
    """A queue's policy that lets `services` send to it for what is called `source`."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": list(services)},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnLike": {"aws:SourceArn": source}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Platform:
    """Synchronous clients speak to it. `hosts` may be called by deliveries although they are local."""

    def __init__(self, data: Path, hosts: str = "") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = Server(Settings(data=str(data), port=0, sandbox="process", quiet=True, integration_hosts=hosts))
        self.run(self.server.start())
        self.url = f"http://127.0.0.1:{self.server.api_port}"
        found = json.loads((data / "credentials.json").read_text())
        self.key, self.secret = found["access_key_id"], found["secret_access_key"]
        self._clients: dict[str, Any] = {}

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def stop(self) -> None:
        self.run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=REGION,
                aws_access_key_id=self.key,
                aws_secret_access_key=self.secret,
                config=Config(retries={"total_max_attempts": 1}),
            )
        return self._clients[service]

    # --- what tests need again and again

    def queue(self, name: str, **attributes: str) -> tuple[str, str]:
        """(URL, ARN). Its policy lets the services send to it, unless another one is given."""
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        attributes.setdefault("Policy", open_to(arn, "events.amazonaws.com", "s3.amazonaws.com", "sns.amazonaws.com"))
        return self.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"], arn

    def messages(self, url: str, count: int, seconds: float = 10.0) -> list[dict[str, Any]]:
        """So many messages, with all their attributes; fewer when they do not come in time."""
        found: list[dict[str, Any]] = []
        until = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < until:
            answer = self.client("sqs").receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1,
                AttributeNames=["All"], MessageAttributeNames=["All"],
            )  # fmt: skip
            for message in answer.get("Messages", []):
                found.append(message)
                self.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def bodies(self, url: str, count: int) -> list[Any]:
        return [json.loads(message["Body"]) for message in self.messages(url, count)]

    def nothing(self, url: str) -> bool:
        """Whether the queue stays empty while everything that is under way settles."""
        self.run(self.server.triggers.run_due())
        return not self.client("sqs").receive_message(QueueUrl=url, WaitTimeSeconds=0).get("Messages")

    def dead_letters(self) -> list[Any]:
        """Those of the triggers, newest first, read where the platform reads."""

        async def look() -> list[Any]:
            return list(self.server.triggers.dead_letters())

        found: list[Any] = self.run(look())
        return found

    def function(self, name: str, code: str, **options: Any) -> str:
        """Create a function; its ARN."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("app.py", code)
        role = f"arn:aws:iam::{ACCOUNT}:role/none"
        self.client("lambda").create_function(
            FunctionName=name, Runtime="python3.12", Role=role, Handler="app.handler",
            Code={"ZipFile": archive.getvalue()}, **options,
        )  # fmt: skip
        self.client("lambda").get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def eventually(check: Callable[[], Any], seconds: float = 10.0) -> Any:
    until = time.monotonic() + seconds
    while True:
        found = check()
        if found or time.monotonic() > until:
            return found
        time.sleep(0.02)
