"""Templates with parameters and secrets: made, generated, referred to, changed and removed, and never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from tests.e2e.conftest import Start
from tests.e2e.driving import Api, Command, RunningPlatform

pytestmark = pytest.mark.e2e

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {Type: "AWS::SSM::Parameter::Value<String>", Default: /shop/stage}
  Zones: {Type: "AWS::SSM::Parameter::Value<List<String>>", Default: /shop/zones}
Resources:
  Limit:
    Type: AWS::SSM::Parameter
    Properties: {Name: /shop/limit, Type: String, Value: "@limit@"}
  Database:
    Type: AWS::SecretsManager::Secret
    Properties:
      Name: shop-db
      GenerateSecretString:
        SecretStringTemplate: '{"username": "ada"}'
        GenerateStringKey: password
        PasswordLength: 24
        ExcludePunctuation: true
  Show:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: show
      Runtime: python3.11
      Handler: index.handler
      InlineCode: |
        import os
        def handler(event, context):
            return {name: os.environ[name] for name in ("STAGE", "ZONE", "USER", "PASSWORD", "LIMIT", "OUTSIDE")}
      Environment:
        Variables:
          STAGE: !Ref Stage
          ZONE: !Select [1, !Ref Zones]
          USER: !Sub "{{resolve:secretsmanager:${Database}:SecretString:username}}"
          PASSWORD: !Sub "{{resolve:secretsmanager:${Database}:SecretString:password}}"
          LIMIT: !GetAtt Limit.Value
          OUTSIDE: "{{resolve:ssm-secure:/shop/outside}}"
Outputs:
  Name: {Value: !Ref Limit}
  Secret: {Value: !Ref Database}
"""


def client(platform: RunningPlatform, service: str) -> Any:
    root = json.loads((platform.data / "credentials.json").read_text())
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=platform.api_url,
        region_name="us-east-1",
        aws_access_key_id=root["access_key_id"],
        aws_secret_access_key=root["secret_access_key"],
        config=Config(retries={"max_attempts": 0}),
    )


def test_parameters_and_secrets_of_a_template(start: Start, martlet: Command, tmp_path: Path) -> None:
    platform = start(None)
    template = tmp_path / "template.yaml"
    template.write_text(TEMPLATE.replace("@limit@", "7"))

    def deploy() -> Any:
        return martlet("deploy", template, "--app", "shop", "--json", data=platform.data)

    missing = deploy()
    assert missing.code == 4
    assert "/shop/stage" in missing.err
    ssm, secrets = client(platform, "ssm"), client(platform, "secretsmanager")
    ssm.put_parameter(Name="/shop/stage", Type="String", Value="test")
    ssm.put_parameter(Name="/shop/zones", Type="StringList", Value="a,b,c")
    ssm.put_parameter(Name="/shop/outside", Type="SecureString", Value="very secret")
    done = deploy()
    assert done.code == 0, done.err
    shown = Api(platform).invoke("show")["payload"]
    secret = json.loads(secrets.get_secret_value(SecretId="shop-db")["SecretString"])
    assert (secret["username"], len(secret["password"])) == ("ada", 24)
    assert shown == {
        "STAGE": "test", "ZONE": "b", "USER": "ada", "PASSWORD": secret["password"], "LIMIT": "7", "OUTSIDE": "very secret",
    }  # fmt: skip
    stack = client(platform, "cloudformation").describe_stacks(StackName="shop")
    assert secret["password"] not in json.dumps(stack, default=str)
    assert "very secret" not in json.dumps(stack, default=str)

    template.write_text(TEMPLATE.replace("@limit@", "8"))
    assert deploy().code == 0
    assert ssm.get_parameter(Name="/shop/limit")["Parameter"]["Value"] == "8"
    after = Api(platform).invoke("show")["payload"]
    assert (after["LIMIT"], after["PASSWORD"]) == ("8", secret["password"]), "a generated secret stays"

    assert martlet("destroy", "shop", "--yes", data=platform.data).code == 0
    with pytest.raises(ssm.exceptions.ParameterNotFound):
        ssm.get_parameter(Name="/shop/limit")
    with pytest.raises(secrets.exceptions.ResourceNotFoundException):
        secrets.describe_secret(SecretId="shop-db")
    assert ssm.get_parameter(Name="/shop/stage")["Parameter"]["Value"] == "test", "it is not the stack's"
