"""`Bus` and `Topic`: where an app tells what happened, kept by the platform (the protocols are EventBridge's and SNS's), over
the sandbox's private loopback."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from martlet.sdk.client import Answer

__all__ = ["Bus", "Listener", "Topic"]

_TIMEOUT_SECONDS = 30.0
_ACCOUNT = "000000000000"


class Bus:
    """A named event bus of this app; `Bus("default")` is the platform's own, which all apps share. A function may publish to it
    after it says `uses=[bus]`, and hears it by `@app.on(bus, pattern={...})`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Bus({self.name!r})"

    @property
    def full_name(self) -> str:
        """The bus's name on the platform, as AWS's own clients know it."""
        return self.name if self.name == "default" else _full(self.name)

    def publish(self, kind: str, detail: Mapping[str, Any], *, source: str | None = None, resources: Sequence[str] = ()) -> str:
        """Publish an event of this `kind` (its detail-type). Returns its id once it is durable. `source`: default the app's
        name. Raises `AccessDenied`, `InvalidInput`, `Unavailable` when no answer came: it may be published then."""
        from martlet.sdk.client import call

        return self._id(call("POST", "/", **self._request(kind, detail, source, resources)))

    async def apublish(
        self, kind: str, detail: Mapping[str, Any], *, source: str | None = None, resources: Sequence[str] = ()
    ) -> str:
        """`publish` for coroutines."""
        from martlet.sdk.client import acall

        return self._id(await acall("POST", "/", **self._request(kind, detail, source, resources)))

    def _request(self, kind: str, detail: Mapping[str, Any], source: str | None, resources: Sequence[str]) -> dict[str, Any]:
        import json
        import os

        from martlet.sdk.encode import dumps

        entry = {
            "EventBusName": self.full_name,
            "Source": source or os.environ.get("MARTLET_APP", "") or "app",
            "DetailType": kind,
            "Detail": dumps(detail),
            "Resources": list(resources),
        }
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "AWSEvents.PutEvents"}
        return {"headers": headers, "body": json.dumps({"Entries": [entry]}).encode(), "timeout_seconds": _TIMEOUT_SECONDS}

    @staticmethod
    def _id(answer: Answer) -> str:
        import json

        from martlet.sdk.errors import InvalidInput

        _check(answer)
        (entry,) = json.loads(answer.body)["Entries"]
        if "EventId" not in entry:
            raise InvalidInput(f"{entry.get('ErrorCode')}: {entry.get('ErrorMessage')}")
        return str(entry["EventId"])


class Topic:
    """A named topic of this app. A function may publish to it after it says `uses=[topic]`, and hears it by `@app.on(topic)`;
    queues and HTTP endpoints subscribe through the SNS API. `fifo`: in order by group, each message once in five minutes."""

    def __init__(self, name: str, *, fifo: bool = False) -> None:
        self.name = name
        self.fifo = fifo

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"

    @property
    def full_name(self) -> str:
        """The topic's name on the platform, as AWS's own clients know it."""
        return f"{_full(self.name)}{'.fifo' if self.fifo else ''}"

    def publish(
        self,
        message: Any,
        *,
        subject: str | None = None,
        attributes: Mapping[str, str | int | float] | None = None,
        group: str | None = None,
        deduplication_id: str | None = None,
    ) -> str:
        """Publish a message, str as it is, anything else as JSON. Returns its id once it is durable. `group`: needed for FIFO,
        there the default is one group for all. Raises `AccessDenied`, `NotFound`, `InvalidInput`, `Unavailable` when no answer
        came: it may be published then."""
        from martlet.sdk.client import call

        return self._id(call("POST", "/", **self._request(message, subject, attributes, group, deduplication_id)))

    async def apublish(
        self,
        message: Any,
        *,
        subject: str | None = None,
        attributes: Mapping[str, str | int | float] | None = None,
        group: str | None = None,
        deduplication_id: str | None = None,
    ) -> str:
        """`publish` for coroutines."""
        from martlet.sdk.client import acall

        return self._id(await acall("POST", "/", **self._request(message, subject, attributes, group, deduplication_id)))

    def _request(
        self,
        message: Any,
        subject: str | None,
        attributes: Mapping[str, str | int | float] | None,
        group: str | None,
        deduplication_id: str | None,
    ) -> dict[str, Any]:
        import os
        from urllib.parse import urlencode

        from martlet.sdk.encode import dumps

        region = os.environ.get("AWS_REGION", "us-east-1")
        form = {
            "Action": "Publish",
            "Version": "2010-03-31",
            "TopicArn": f"arn:aws:sns:{region}:{_ACCOUNT}:{self.full_name}",
            "Message": message if isinstance(message, str) else dumps(message),
        }
        if subject is not None:
            form["Subject"] = subject
        if group is not None or self.fifo:
            form["MessageGroupId"] = group or "all"
        if deduplication_id is not None:
            form["MessageDeduplicationId"] = deduplication_id
        for number, (name, value) in enumerate((attributes or {}).items(), 1):
            place = f"MessageAttributes.entry.{number}"
            number_like = isinstance(value, int | float) and not isinstance(value, bool)
            form[f"{place}.Name"] = name
            form[f"{place}.Value.DataType"] = "Number" if number_like else "String"
            form[f"{place}.Value.StringValue"] = str(value)
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return {"headers": headers, "body": urlencode(form).encode(), "timeout_seconds": _TIMEOUT_SECONDS}

    @staticmethod
    def _id(answer: Answer) -> str:
        import re

        _check(answer)
        found = re.search(rb"<MessageId>([^<]+)</MessageId>", answer.body)
        return found[1].decode() if found else ""


class Listener:
    """What `@app.on(bus)` or `@app.on(topic)` says, with the place that says it."""

    __slots__ = ("filter", "pattern", "scope", "source", "where")

    def __init__(self, source: Bus | Topic, pattern: Any, filter: Any, scope: str, where: str) -> None:
        self.source = source
        self.pattern = pattern
        self.filter = filter
        self.scope = scope
        self.where = where


def _full(name: str) -> str:
    import os

    return f"{os.environ.get('MARTLET_APP', '')}-{name}"


def _check(answer: Answer) -> None:
    import re

    from martlet.sdk.errors import AccessDenied, InvalidInput, NotFound, from_answer

    if answer.status == 200:
        return
    error = from_answer(answer.status, answer.headers, answer.body)
    found = re.search(rb"<Message>([^<]*)</Message>", answer.body)  # SNS answers in XML
    text = found[1].decode("utf-8", "replace") if found else error.message
    kind = {400: InvalidInput, 403: AccessDenied, 404: NotFound}.get(answer.status)
    if b"AccessDenied" in answer.body or b"AuthorizationError" in answer.body:
        kind = AccessDenied
    raise error if kind is None else kind(text, details=error.details)
