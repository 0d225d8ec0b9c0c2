"""Dynamic references: what they become, and what of them is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from martlet.apps.stacks import kinds
from martlet.apps.stacks.dynamic import Dynamic, Resolving, is_dynamic, refuse_dynamic
from martlet.apps.stacks.kinds import Kind, fixed, value
from martlet.apps.stacks.providers.provider import Caller, Context, Physical
from martlet.apps.stacks.reading import TemplateFault
from martlet.errors import ServiceError, Unsupported
from martlet.types import Principal

CALLER = Caller(Principal("root", "stacks"), "us-east-1", "000000000000", "r")
ARN = "arn:aws:secretsmanager:us-east-1:000000000000:secret:db-AbCdEf"


class Rooms:
    def __init__(self) -> None:
        self.parameters = {
            "plain": ("String", "p"),
            "plain:2": ("String", "older"),
            "/a/b": ("StringList", "x,y"),
            "locked": ("SecureString", "s"),
        }
        self.secrets = {"db": json.dumps({"user": "ada", "port": 5432}), ARN: '{"user": "by arn"}', "text": "no json"}

    async def get_parameter(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        if request["Name"] not in self.parameters:
            raise ServiceError("ParameterNotFound", f"no {request['Name']}")
        kind, text = self.parameters[request["Name"]]
        sealed = kind == "SecureString" and not request.get("WithDecryption")
        return {"Parameter": {"Type": kind, "Value": "sealed" if sealed else text}}

    async def get_secret_value(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        if request["SecretId"] == "binary":
            return {"SecretBinary": b"x"}
        if request["SecretId"] not in self.secrets:
            raise ServiceError("ResourceNotFoundException", "no such secret")
        if request.get("VersionStage") == "AWSPREVIOUS":
            return {"SecretString": "before"}
        return {"SecretString": self.secrets[request["SecretId"]]}


DYNAMIC = Dynamic(Rooms(), Rooms())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{resolve:ssm:plain}}", "p"),
        ("{{resolve:ssm:plain:2}}", "older"),
        ("{{resolve:ssm:/a/b}}", "x,y"),
        ("{{resolve:ssm-secure:locked}}", "s"),
        ("a{{resolve:ssm:plain}}b{{resolve:ssm:plain}}c", "apbpc"),
        ("{{resolve:secretsmanager:text}}", "no json"),
        ("{{resolve:secretsmanager:text:SecretString}}", "no json"),
        ("{{resolve:secretsmanager:db:SecretString:user}}", "ada"),
        ("{{resolve:secretsmanager:db:SecretString:port}}", "5432"),
        ("{{resolve:secretsmanager:db::user}}", "ada"),
        ("{{resolve:secretsmanager:db:SecretString::AWSPREVIOUS}}", "before"),
        (f"{{{{resolve:secretsmanager:{ARN}:SecretString:user}}}}", "by arn"),
        ("plain text", "plain text"),
    ],
)
async def test_what_a_reference_becomes(text: str, found: str) -> None:
    assert await DYNAMIC.resolved(CALLER, text) == found
    assert await DYNAMIC.resolved(CALLER, {"a": [text, 7, None]}) == {"a": [found, 7, None]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{resolve:ssm:nothing}}", "Could not resolve {{resolve:ssm:nothing}}: no nothing"),
        ("{{resolve:secretsmanager:nothing}}", "no such secret"),
        ("{{resolve:secretsmanager:binary}}", "holds no text"),
        ("{{resolve:secretsmanager:text:SecretString:user}}", "JSONKey"),
        ("{{resolve:secretsmanager:db:SecretString:nothing}}", "JSONKey"),
        ("{{resolve:secretsmanager:db:Binary}}", "malformed"),
        ("{{resolve:secretsmanager:db:SecretString:a:b:c:d}}", "malformed"),
        ("{{resolve:vault:x}}", "not known"),
        ("{{resolve:ssm}}", "malformed"),
        ("{{resolve:ssm:", "malformed"),
    ],
)
async def test_what_cannot_be_resolved_is_named(text: str, told: str) -> None:
    with pytest.raises(TemplateFault) as caught:
        await DYNAMIC.resolved(CALLER, text)
    assert told in caught.value.message
    assert "ada" not in caught.value.message


async def test_a_secure_string_is_no_templates_parameter() -> None:
    assert await DYNAMIC.stored(CALLER, "plain") == "p"
    with pytest.raises(Unsupported, match="ssm-secure"):
        await DYNAMIC.stored(CALLER, "locked")


class Thing:
    kind = Kind(type="AWS::Some::Thing", properties={"Name": fixed(), "Size": value("integer"), "Text": value()})

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def identify(self, context: Context, properties: Any) -> Physical:
        return Physical(str(properties.get("Name", "thing")))

    async def create(self, context: Context, physical_id: str, properties: dict[str, Any]) -> Physical:
        self.given.append(properties)
        return Physical(physical_id)

    async def update(self, context: Context, physical: Physical, old: dict[str, Any], new: dict[str, Any]) -> Physical:
        self.given.append(new)
        return physical

    async def delete(self, context: Context, physical: Physical, properties: dict[str, Any]) -> None:
        self.given.append(properties)

    async def recover(self, context: Context, physical_id: str, properties: dict[str, Any]) -> None:
        return None


CONTEXT = Context(stack_name="s", stack_id="s", logical_id="T", region="us-east-1", account="000000000000", caller=CALLER)


async def test_a_provider_is_given_values_in_their_types() -> None:
    inner = Thing()
    provider = Resolving(inner, DYNAMIC)
    declared = {"Size": "{{resolve:secretsmanager:db:SecretString:port}}", "Text": "{{resolve:ssm:plain}}"}
    assert kinds.check(inner.kind, declared, "T", 1) == []
    kept = kinds.typed(inner.kind, declared)
    assert kept == declared, "what is kept has the references"
    await provider.create(CONTEXT, "thing", kept)
    await provider.update(CONTEXT, Physical("thing"), kept, kept)
    assert inner.given == [{"Size": 5432, "Text": "p"}] * 2
    with pytest.raises(TemplateFault, match="Size must be of type Integer"):
        await provider.create(CONTEXT, "thing", {"Size": "{{resolve:ssm:plain}}"})


def test_names_outputs_and_parts_of_apis_have_none() -> None:
    inner = Thing()
    with pytest.raises(Unsupported, match="name of a resource"):
        Resolving(inner, DYNAMIC).identify(CONTEXT, {"Name": "{{resolve:ssm:plain}}"})
    inner.kind = Kind(type="AWS::ApiGateway::Method", properties={"Uri": value()})
    with pytest.raises(Unsupported, match="AWS::ApiGateway::Method"):
        Resolving(inner, DYNAMIC).identify(CONTEXT, {"Uri": "{{resolve:ssm:plain}}"})
    with pytest.raises(Unsupported, match="output X"):
        refuse_dynamic({"a": ["{{resolve:ssm:plain}}"]}, "output X")
    assert not is_dynamic({"a": ["{{resolved}}", 7]})
