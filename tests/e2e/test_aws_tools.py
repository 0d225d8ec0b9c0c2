"""The tools that people deploy with, against the real platform: the AWS CLI, CloudFormation's waiters, Terraform's calls."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, WaiterError
from tests.e2e.conftest import Start
from tests.e2e.driving import eventually
from tests.e2e.test_lambda_control import ROLE, RUNTIME, archive, client_of, create
from tests.running_platform import RunningPlatform

pytestmark = pytest.mark.e2e
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Greeting: {Type: String, Default: hello}
  Memory: {Type: Number, Default: 128}
Globals:
  HttpApi:
    AccessLogSettings: {DestinationArn: !GetAtt Calls.Arn, Format: "$context.requestId $context.routeKey $context.status"}
Resources:
  Calls: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: "/calls/of/cli"}}
  Greet:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      MemorySize: !Ref Memory
      Environment: {Variables: {GREETING: !Ref Greeting}}
      FunctionUrlConfig: {AuthType: NONE}
      InlineCode: |
        import os, boto3
        def handler(event, context):
            me = boto3.client("sts").get_caller_identity()["Account"]
            return os.environ["GREETING"] + " " + me + " " + context.function_version
      Events:
        Get: {Type: HttpApi, Properties: {Path: "/greet/{name}", Method: get}}
Outputs:
  Url: {Value: !GetAtt GreetUrl.FunctionUrl}
  Api: {Value: !Sub "https://${ServerlessHttpApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}/greet/x"}
"""
Aws = Callable[..., Any]


@pytest.fixture(scope="module")
def platform(start: Start) -> RunningPlatform:
    return start(None)


@pytest.fixture
def make(platform: RunningPlatform) -> Iterator[Callable[[str], Any]]:
    made = []

    def client(service: str) -> Any:
        made.append(client_of(platform, service))
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.fixture
def aws(platform: RunningPlatform, tmp_path: Path) -> Aws:
    """`aws("lambda", "list-functions")`: what it printed, as JSON where it is; with another exit `code` than 0, its errors."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": platform.api_url,
        "AWS_ACCESS_KEY_ID": platform.credentials["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": platform.credentials["secret_access_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PAGER": "",
    }
    program = [sys.executable, "-m", "awscli"]

    def run(*arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [*program, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        if code:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[", '"')) else done.stdout

    return run


# --- the AWS CLI


def test_the_cli_on_a_functions_life(aws: Aws, tmp_path: Path) -> None:
    (tmp_path / "f.zip").write_bytes(archive())
    assert aws("sts", "get-caller-identity")["Account"] == "000000000000"
    trust = {"Statement": {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}}
    role = aws("iam", "create-role", "--role-name", "cli", "--assume-role-policy-document", json.dumps(trust))["Role"]["Arn"]
    own = ("--function-name", "cli")
    made = ("--runtime", RUNTIME, "--role", role, "--handler", "index.handler", "--zip-file", "fileb://f.zip")
    assert aws("lambda", "create-function", *own, *made)["State"] == "Pending"
    aws("lambda", "wait", "function-active-v2", *own)
    answer = aws("lambda", "invoke", *own, "--payload", '{"a": 1}', "--log-type", "Tail", "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["event"] == {"a": 1}
    assert b"hello {'a': 1}" in base64.b64decode(answer["LogResult"])
    assert aws("lambda", "invoke", *own, "--invocation-type", "Event", "--payload", "{}", "out.json") == {"StatusCode": 202}
    assert aws("lambda", "invoke", *own, "--invocation-type", "DryRun", "out.json") == {"StatusCode": 204}
    aws("lambda", "update-function-configuration", *own, "--environment", "Variables={NN=new}")
    aws("lambda", "wait", "function-updated-v2", *own)
    assert aws("lambda", "publish-version", *own)["Version"] == "1"
    aws("lambda", "create-alias", *own, "--name", "live", "--function-version", "1")
    aws("lambda", "invoke", *own, "--qualifier", "live", "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["env"] == "new"
    first = aws("lambda", "list-versions-by-function", *own, "--max-items", "1")
    rest = aws("lambda", "list-versions-by-function", *own, "--starting-token", first["NextToken"])
    assert [one["Version"] for one in first["Versions"] + rest["Versions"]] == ["$LATEST", "1"]
    assert "ResourceNotFoundException" in aws("lambda", "get-function", "--function-name", "none", code=255)
    query = ("--log-group-name", "/aws/lambda/cli", "--query", "events[].message", "--filter-pattern", "hello")
    eventually(lambda: "hello {}\n" in aws("logs", "filter-log-events", *query))


def test_the_cli_deploys_a_template(aws: Aws, tmp_path: Path, http: httpx.Client) -> None:
    (tmp_path / "t.yaml").write_text(TEMPLATE)
    deploy = ("cloudformation", "deploy", "--template-file", "t.yaml", "--stack-name", "cli", "--capabilities", *CAPABILITIES)
    assert "Successfully created/updated stack - cli" in aws(*deploy)
    outputs = aws("cloudformation", "describe-stacks", "--stack-name", "cli", "--query", "Stacks[0].Outputs")
    for one in outputs:
        assert http.get(one["OutputValue"]).text == "hello 000000000000 $LATEST"
    logged = ("logs", "filter-log-events", "--log-group-name", "/calls/of/cli", "--query", "events[].message")
    eventually(lambda: aws("logs", "describe-log-groups", "--log-group-name-prefix", "/calls/of", "--query", "logGroups"))
    (line, *_) = eventually(lambda: aws(*logged))
    assert line.endswith(" GET /greet/{name} 200")
    assert "No changes to deploy" in aws(*deploy, code=255)
    assert "Successfully" in aws(*deploy, "--parameter-overrides", "Greeting=hej")
    assert http.get(outputs[0]["OutputValue"]).text.startswith("hej 000000000000")


PACKED = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Greet:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.11, Handler: index.handler, CodeUri: ./code, FunctionUrlConfig: {AuthType: NONE}}
Outputs:
  Url: {Value: !GetAtt GreetUrl.FunctionUrl}
"""


def test_the_cli_packs_code_into_a_bucket_and_deploys_it(
    aws: Aws, platform: RunningPlatform, tmp_path: Path, http: httpx.Client
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "index.py").write_text('def handler(event, context):\n    return "from a bucket"\n')
    (tmp_path / "local.yaml").write_text(PACKED)
    assert "make_bucket: packages" in aws("s3", "mb", "s3://packages")
    pack = ("cloudformation", "package", "--template-file", "local.yaml", "--s3-bucket", "packages")
    aws(*pack, "--output-template-file", "packed.yaml")
    assert "s3://packages/" in (tmp_path / "packed.yaml").read_text()
    deploy = ("cloudformation", "deploy", "--template-file", "packed.yaml", "--stack-name", "packed", "--capabilities")
    assert "Successfully" in aws(*deploy, *CAPABILITIES)
    (url,) = aws("cloudformation", "describe-stacks", "--stack-name", "packed", "--query", "Stacks[0].Outputs[].OutputValue")
    assert http.get(url).text == "from a bucket"
    aws("s3", "cp", "packed.yaml", "s3://packages/packed.yaml")  # as `sam deploy` brings its templates
    stacks = client_of(platform, "cloudformation")
    for place in (f"{platform.api_url}/packages/packed.yaml", "https://packages.s3.us-east-1.amazonaws.com/packed.yaml"):
        change = {"StackName": "packed", "ChangeSetName": "again", "TemplateURL": place, "Capabilities": CAPABILITIES}
        made = stacks.create_change_set(**change)
        found = stacks.describe_change_set(ChangeSetName=made["Id"])
        assert found["StatusReason"].startswith("The submitted information didn't contain changes.")
    with pytest.raises(ClientError, match="S3 error: The specified key does not exist"):
        stacks.validate_template(TemplateURL="https://packages.s3.amazonaws.com/none.yaml")
    assert aws("s3", "ls", "s3://packages").strip()


INTEGRATIONS = """
Parameters:
  Queue: {Type: String}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: apigateway.amazonaws.com}, Action: "sts:AssumeRole"}]
      Policies:
      - PolicyName: send
        PolicyDocument: {Statement: [{Effect: Allow, Action: "sqs:SendMessage", Resource: "*"}]}
  Distrusted:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Statement: [{Effect: Allow, Principal: {Service: events.amazonaws.com}, Action: "sts:AssumeRole"}]
  Rest: {Type: AWS::ApiGateway::RestApi, Properties: {Name: direct}}
  Send:
    Type: AWS::ApiGateway::Method
    Properties: &send
      RestApiId: !Ref Rest
      ResourceId: !GetAtt Rest.RootResourceId
      HttpMethod: POST
      AuthorizationType: NONE
      MethodResponses: [{StatusCode: 200}, {StatusCode: 400}]
      Integration: &integration
        Type: AWS
        IntegrationHttpMethod: POST
        Credentials: !GetAtt Role.Arn
        Uri: !Sub "arn:aws:apigateway:${AWS::Region}:sqs:path/${AWS::AccountId}/${Queue}"
        RequestParameters: {"integration.request.header.Content-Type": "'application/x-www-form-urlencoded'"}
        RequestTemplates: {application/json: "Action=SendMessage&MessageBody=$util.urlEncode($input.body)"}
        IntegrationResponses:
        - StatusCode: 200
          ResponseTemplates: {application/json: "$input.json('$.SendMessageResponse.SendMessageResult.MD5OfMessageBody')"}
        - {StatusCode: 400, SelectionPattern: "4[0-9]{2}"}
  Purge:
    Type: AWS::ApiGateway::Method
    Properties:
      <<: *send
      HttpMethod: DELETE
      Integration: {<<: *integration, RequestTemplates: {application/json: "Action=PurgeQueue"}}
  Untrusted:
    Type: AWS::ApiGateway::Method
    Properties: {<<: *send, HttpMethod: PUT, Integration: {<<: *integration, Credentials: !GetAtt Distrusted.Arn}}
  Deployment: {Type: AWS::ApiGateway::Deployment, DependsOn: [Send, Purge, Untrusted], Properties: {RestApiId: !Ref Rest}}
  Stage:
    Type: AWS::ApiGateway::Stage
    Properties: {RestApiId: !Ref Rest, DeploymentId: !Ref Deployment, StageName: v1}
  Http: {Type: AWS::ApiGatewayV2::Api, Properties: {Name: direct2, ProtocolType: HTTP}}
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties:
      ApiId: !Ref Http
      IntegrationType: AWS_PROXY
      IntegrationSubtype: SQS-SendMessage
      PayloadFormatVersion: "1.0"
      CredentialsArn: !GetAtt Role.Arn
      RequestParameters:
        QueueUrl: !Sub "https://sqs.${AWS::Region}.amazonaws.com/${AWS::AccountId}/${Queue}"
        MessageBody: "$request.body.order"
  Route:
    Type: AWS::ApiGatewayV2::Route
    Properties: {ApiId: !Ref Http, RouteKey: "POST /orders", Target: !Sub "integrations/${Integration}"}
  Default: {Type: AWS::ApiGatewayV2::Stage, Properties: {ApiId: !Ref Http, StageName: $default, AutoDeploy: true}}
Outputs:
  Rest: {Value: !Sub "https://${Rest}.execute-api.${AWS::Region}.${AWS::URLSuffix}/v1/"}
  Http: {Value: !Sub "https://${Http}.execute-api.${AWS::Region}.${AWS::URLSuffix}/orders"}
"""


def test_apis_call_services_by_a_role(platform: RunningPlatform, http: httpx.Client) -> None:
    """Without a function between: the mapping template makes the service's request, the role's policies decide."""
    queues = client_of(platform, "sqs")
    url = queues.create_queue(QueueName="direct")["QueueUrl"]
    stacks = client_of(platform, "cloudformation")
    given = [{"ParameterKey": "Queue", "ParameterValue": "direct"}]
    stacks.create_stack(StackName="direct", TemplateBody=INTEGRATIONS, Parameters=given, Capabilities=CAPABILITIES)
    stacks.get_waiter("stack_create_complete").wait(StackName="direct", WaiterConfig={"Delay": 1})
    (stack,) = stacks.describe_stacks(StackName="direct")["Stacks"]
    found = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    said = http.post(found["Rest"], json={"a": "ü&b=c"})
    assert said.status_code == 200, said.text
    assert http.post(found["Http"], json={"order": "seven"}).json()["MessageId"]
    messages = {}
    while len(messages) < 2:
        for message in queues.receive_message(QueueUrl=url, WaitTimeSeconds=5).get("Messages", []):
            messages[message["Body"]] = message["MD5OfBody"]
    assert json.loads(said.text) in messages.values()
    assert {"seven", json.dumps({"a": "ü&b=c"}, ensure_ascii=False, separators=(",", ":"))} == set(messages)
    refused = http.delete(found["Rest"])
    assert refused.status_code == 400
    assert "AccessDenied" in refused.text, "the role may send, and nothing else"
    assert http.put(found["Rest"], json={}).status_code == 500, "that role trusts another service"


STREAMED = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Orders:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      AttributeDefinitions: [{AttributeName: id, AttributeType: S}]
      KeySchema: [{AttributeName: id, KeyType: HASH}]
      StreamSpecification: {StreamViewType: NEW_AND_OLD_IMAGES}
  Totals:
    Type: AWS::Serverless::SimpleTable
  Count:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Policies: [DynamoDBCrudPolicy: {TableName: !Ref Totals}]
      Environment: {Variables: {TOTALS: !Ref Totals}}
      InlineCode: |
        import os, boto3
        table = boto3.resource("dynamodb").Table(os.environ["TOTALS"])
        def handler(event, context):
            for record in event["Records"]:
                image = record["dynamodb"]["NewImage"]
                if image["amount"]["N"] == "13":
                    raise ValueError("unlucky")
                table.put_item(Item={"id": image["id"]["S"], "seen": record["eventName"], "source": record["eventSource"]})
      Events:
        Orders:
          Type: DynamoDB
          Properties:
            Stream: !GetAtt Orders.StreamArn
            StartingPosition: TRIM_HORIZON
            BatchSize: 10
            MaximumRetryAttempts: 1
            BisectBatchOnFunctionError: true
            FilterCriteria: {Filters: [{Pattern: '{"eventName": ["INSERT"]}'}]}
Outputs:
  Orders: {Value: !Ref Orders}
  Totals: {Value: !Ref Totals}
"""


def test_a_tables_stream_calls_a_function(platform: RunningPlatform) -> None:
    """A record that fails again and again is set aside alone; the others of its batch arrive."""
    stacks, tables = client_of(platform, "cloudformation"), client_of(platform, "dynamodb")
    stacks.create_stack(StackName="streamed", TemplateBody=STREAMED, Capabilities=CAPABILITIES)
    stacks.get_waiter("stack_create_complete").wait(StackName="streamed", WaiterConfig={"Delay": 1})
    (stack,) = stacks.describe_stacks(StackName="streamed")["Stacks"]
    found = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    for number in range(9, 16):
        tables.put_item(TableName=found["Orders"], Item={"id": {"S": f"o{number}"}, "amount": {"N": str(number)}})
    tables.delete_item(TableName=found["Orders"], Key={"id": {"S": "o9"}})  # the filter lets insertions through

    def seen() -> list[tuple[str, str, str]]:
        items = tables.scan(TableName=found["Totals"])["Items"]
        return sorted((one["id"]["S"], one["seen"]["S"], one["source"]["S"]) for one in items)

    wanted = sorted((f"o{number}", "INSERT", "aws:dynamodb") for number in range(9, 16) if number != 13)
    eventually(lambda: seen() == wanted)
    stacks.delete_stack(StackName="streamed")
    stacks.get_waiter("stack_delete_complete").wait(StackName="streamed", WaiterConfig={"Delay": 1})


# --- CloudFormation's calls, as `sam deploy` makes them


def _execute(client: Any, name: str, kind: str, template: str = TEMPLATE, **parameters: str) -> str:
    made = client.create_change_set(
        StackName="sam",
        ChangeSetName=name,
        ChangeSetType=kind,
        TemplateBody=template,
        Capabilities=CAPABILITIES,
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )
    client.get_waiter("change_set_create_complete").wait(ChangeSetName=made["Id"], WaiterConfig={"Delay": 1})
    client.execute_change_set(ChangeSetName=made["Id"])
    found: str = made["StackId"]
    return found


def test_change_sets_update_roll_back_and_delete(make: Callable[[str], Any], http: httpx.Client) -> None:
    client, fast = make("cloudformation"), {"Delay": 1, "MaxAttempts": 30}
    id = _execute(client, "first", "CREATE")
    client.get_waiter("stack_create_complete").wait(StackName=id, WaiterConfig=fast)
    outputs = {one["OutputKey"]: one["OutputValue"] for one in client.describe_stacks(StackName=id)["Stacks"][0]["Outputs"]}
    assert http.get(outputs["Api"]).text == "hello 000000000000 $LATEST"
    _execute(client, "second", "UPDATE", Greeting="hej")
    client.get_waiter("stack_update_complete").wait(StackName=id, WaiterConfig=fast)
    assert http.get(outputs["Api"]).text.startswith("hej ")
    _execute(client, "third", "UPDATE", Greeting="lost", Memory="1")  # what Lambda refuses, the stack takes back
    with pytest.raises(WaiterError, match="UPDATE_ROLLBACK_COMPLETE"):
        client.get_waiter("stack_update_complete").wait(StackName=id, WaiterConfig=fast)
    assert http.get(outputs["Api"]).text.startswith("hej ")
    failed = [
        one for one in client.describe_stack_events(StackName=id)["StackEvents"] if one["ResourceStatus"] == "UPDATE_FAILED"
    ]
    assert "memorySize" in failed[-1]["ResourceStatusReason"]
    again = client.create_change_set(
        StackName="sam", ChangeSetName="none", TemplateBody=TEMPLATE, Capabilities=CAPABILITIES,
        Parameters=[{"ParameterKey": "Greeting", "ParameterValue": "hej"}],
    )  # fmt: skip
    same = client.describe_change_set(ChangeSetName=again["Id"])
    assert (same["Status"], same["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert same["StatusReason"].startswith("The submitted information didn't contain changes.")
    client.delete_stack(StackName="sam")
    client.get_waiter("stack_delete_complete").wait(StackName=id, WaiterConfig=fast)
    assert http.get(outputs["Api"]).status_code == 403  # as any address that no API has
    names = [one["FunctionName"] for one in make("lambda").list_functions()["Functions"]]
    assert not [name for name in names if name.startswith("sam-")]


FUNCTION = {
    "Type": "AWS::Lambda::Function",
    "Properties": {"Runtime": RUNTIME, "Handler": "index.h", "Role": ROLE, "Code": {"ZipFile": "def h(e, c): return 1"}},
}


def _with(**properties: Any) -> dict[str, Any]:
    return {**FUNCTION, "Properties": {**FUNCTION["Properties"], **properties}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (
            {"Resources": {"A": _with(Description={"Ref": "B"}), "B": _with(Description={"Ref": "A"})}},
            "Circular dependency between resources: [A, B]",
        ),
        (
            {"Resources": {"A": FUNCTION, "B": _with(Description={"Fn::GetAtt": ["A", "Nope"]})}},
            "Template error: resource A does not support attribute type Nope in Fn::GetAtt",
        ),
        (
            {"Conditions": {"X": {"Condition": "Y"}, "Y": {"Condition": "X"}}, "Resources": {"A": FUNCTION}},
            "Circular condition dependency",
        ),
        (
            {"Resources": {"A": _with(Description={"Ref": "Nope"})}},
            "Template format error: Unresolved resource dependencies [Nope] in the Resources block of the template",
        ),
        ({"Resources": {"Q": {"Type": "AWS::Kinesis::Stream"}}}, "AWS::Kinesis::Stream of Q is not supported"),
        ({"Resources": {"A": _with(Bogus=1)}}, "Encountered unsupported property Bogus"),
        ({"Parameters": {"P": {"Type": "String"}}, "Resources": {"A": FUNCTION}}, "Parameters: [P] must have values"),
        ({}, "Template format error: At least one Resources member must be defined."),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_is_refused_before_anything_is_made(
    make: Callable[[str], Any], template: dict[str, Any], text: str
) -> None:
    client = make("cloudformation")
    with pytest.raises(ClientError) as caught:
        client.create_stack(StackName="wrong", TemplateBody=json.dumps(template))
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert text in caught.value.response["Error"]["Message"]
    with pytest.raises(ClientError, match="Stack with id wrong does not exist"):
        client.describe_stacks(StackName="wrong")


# --- the calls of Terraform's provider (aws 5.100), in its order


def _absent(call: Callable[..., Any], **arguments: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    found = caught.value.response
    return found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"], found["Error"]["Message"]


def test_terraform_reads_what_it_made(make: Callable[[str], Any]) -> None:
    client = make("lambda")
    arn = "arn:aws:lambda:us-east-1:000000000000:function:tf"
    gone = ("ResourceNotFoundException", 404)
    assert _absent(client.get_function, FunctionName="tf") == (*gone, f"Function not found: {arn}")
    assert _absent(client.get_function_configuration, FunctionName="tf") == (*gone, f"Function not found: {arn}")
    create(client, "tf")
    client.get_waiter("function_active_v2").wait(FunctionName="tf")
    for number in range(1, 4):
        client.update_function_configuration(FunctionName="tf", Description=f"number {number}")
        client.get_waiter("function_updated_v2").wait(FunctionName="tf")
        client.publish_version(FunctionName="tf")
    found = client.get_function(FunctionName="tf")
    assert found["Code"]["RepositoryType"] == "S3"
    assert "Tags" not in found
    assert "Concurrency" not in found
    pages = client.get_paginator("list_versions_by_function").paginate(FunctionName="tf", PaginationConfig={"PageSize": 2})
    assert [[one["Version"] for one in page["Versions"]] for page in pages] == [["$LATEST", "1"], ["2", "3"]]
    assert "CodeSigningConfigArn" not in client.get_function_code_signing_config(FunctionName="tf")
    assert _absent(client.get_policy, FunctionName="tf") == (*gone, "The resource you requested does not exist.")
    assert client.list_tags(Resource=arn)["Tags"] == {}
    assert _absent(client.get_function_url_config, FunctionName="tf") == (*gone, "The resource you requested does not exist.")
    assert client.get_function_concurrency(FunctionName="tf").get("ReservedConcurrentExecutions") is None
    missing = _absent(client.get_function_event_invoke_config, FunctionName="tf")
    assert missing == (*gone, f"The function {arn}:$LATEST doesn't have an EventInvokeConfig")
    assert _absent(client.get_alias, FunctionName="tf", Name="live") == (*gone, f"Cannot find alias arn: {arn}:live")
    client.create_alias(FunctionName="tf", Name="live", FunctionVersion="3")
    client.add_permission(FunctionName="tf", Qualifier="live", StatementId="s", Action="lambda:InvokeFunction", Principal="*")
    (statement,) = json.loads(client.get_policy(FunctionName="tf", Qualifier="live")["Policy"])["Statement"]
    assert (statement["Sid"], statement["Resource"]) == ("s", f"{arn}:live")
    client.remove_permission(FunctionName="tf", Qualifier="live", StatementId="s")
    client.delete_alias(FunctionName="tf", Name="live")
    client.delete_function(FunctionName="tf")
    assert _absent(client.get_function, FunctionName="tf", Qualifier="3") == (*gone, f"Function not found: {arn}:3")


# --- weighted routing, and code that cannot be


def test_an_aliases_weights_are_kept(make: Callable[[str], Any]) -> None:
    """500 real invocations: 5 standard deviations. The ±1 % over 10,000 are shown by tests/functions/control/test_parts.py."""
    client = make("lambda")
    create(client, "weighted")
    client.get_waiter("function_active_v2").wait(FunctionName="weighted")
    client.publish_version(FunctionName="weighted")
    client.update_function_configuration(FunctionName="weighted", Description="second")
    client.get_waiter("function_updated_v2").wait(FunctionName="weighted")
    client.publish_version(FunctionName="weighted")
    client.create_alias(
        FunctionName="weighted", Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.3}}
    )
    answers = [client.invoke(FunctionName="weighted:live", Payload=b"{}") for _ in range(500)]
    executed = [(one["ExecutedVersion"], json.load(one["Payload"])["version"]) for one in answers]
    assert all(said == ran for said, ran in executed)
    assert 99 <= sum(said == "2" for said, _ in executed) <= 201


def _zip(entries: dict[str, bytes], link: str = "") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        if link:
            info = zipfile.ZipInfo("link")
            info.create_system, info.external_attr = 3, 0o120777 << 16
            packed.writestr(info, link)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"not a zip", "Could not unzip uploaded file"),
        (archive()[:-10], "Could not unzip uploaded file"),
        (b"", "Please provide a source for function code."),
        (_zip({"../up.py": b""}), "."),
        (_zip({"/etc/x.py": b""}), "."),
        (_zip({"index.py": b""}, link="../../../etc/passwd"), "."),
        (_zip({"bomb": bytes(300_000_000)}), "Unzipped size must be smaller than 262144000 bytes"),
    ],
    ids=["text", "cut", "empty", "path", "absolute", "link", "bomb"],
)
def test_archives_that_are_refused(make: Callable[[str], Any], content: bytes, text: str) -> None:
    client = make("lambda")
    with pytest.raises(ClientError, match=text) as caught:
        client.create_function(
            FunctionName="bad", Runtime=RUNTIME, Role=ROLE, Handler="index.handler", Code={"ZipFile": content}
        )
    assert caught.value.response["Error"]["Code"] in ("InvalidParameterValueException", "ValidationException")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="bad")


def test_a_handler_that_is_not_there_says_so_and_so_does_the_log(make: Callable[[str], Any]) -> None:
    client = make("lambda")
    code = {"ZipFile": archive("print('loading')\nimport nothing_here")}
    client.create_function(FunctionName="lost", Runtime=RUNTIME, Role=ROLE, Handler="index.handler", Code=code)
    client.get_waiter("function_active_v2").wait(FunctionName="lost")
    answer = client.invoke(FunctionName="lost", Payload=b"{}", LogType="Tail")
    failed = json.load(answer["Payload"])
    assert (answer["FunctionError"], failed["errorType"]) == ("Unhandled", "Runtime.ImportModuleError")
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert "loading\n" in tail
    assert "[ERROR] Runtime.ImportModuleError: Unable to import module 'index': No module named 'nothing_here'" in tail


def _signed(platform: RunningPlatform, **changes: Any) -> tuple[str, dict[str, str]]:
    """A signed ListFunctions: its URL and headers."""
    credentials = Credentials(
        changes.get("key", platform.credentials["access_key_id"]),
        changes.get("secret", platform.credentials["secret_access_key"]),
        changes.get("token"),
    )
    request = AWSRequest("GET", f"{platform.api_url}/2015-03-31/functions/", headers={"host": platform.api_url[7:]})
    SigV4Auth(credentials, changes.get("service", "lambda"), "us-east-1").add_auth(request)
    return str(request.url), dict(request.headers.items())


def test_signatures_that_are_refused(platform: RunningPlatform, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(url: str, headers: dict[str, str]) -> tuple[int, str]:
        answer = http.get(url, headers=headers)
        return answer.status_code, answer.headers.get("x-amzn-errortype", "").partition(":")[0]

    url, headers = _signed(platform)
    assert asked(url, headers) == (200, "")
    assert asked(url, headers) == (200, "")  # SigV4 has no nonce: within its five minutes a request may come twice
    assert asked(url, {}) == (403, "MissingAuthenticationTokenException")
    assert asked(f"{url}?MaxItems=1", headers) == (403, "InvalidSignatureException")
    later = {**headers, "X-Amz-Date": headers["X-Amz-Date"][:-2] + "9Z"}
    if later != headers:
        assert asked(url, later) == (403, "InvalidSignatureException")
    assert asked(*_signed(platform, secret="wrong")) == (403, "InvalidSignatureException")
    assert asked(*_signed(platform, key="AKIANOBODY0000000000")) == (403, "UnrecognizedClientException")
    assert asked(*_signed(platform, token="bm90aGluZw==")) == (403, "UnrecognizedClientException")
    cut = {**headers, "Authorization": headers["Authorization"].partition(", Signature")[0]}
    assert asked(url, cut)[0] in (400, 403)
    assert asked(url, {**headers, "Authorization": "AWS4-HMAC-SHA256 nonsense"})[0] in (400, 403)
    real = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: real(*a, **k) - timedelta(minutes=16))
    assert asked(*_signed(platform)) == (403, "InvalidSignatureException")  # expired, or replayed too late


# --- the services' own commands


def test_the_cli_on_queues(aws: Aws, platform: RunningPlatform) -> None:
    def sqs(*arguments: str, code: int = 0) -> Any:  # version 1 has an address of its own for SQS in some regions
        return aws("sqs", *arguments, "--endpoint-url", platform.api_url, code=code)

    dead = sqs("create-queue", "--queue-name", "cli-dead")["QueueUrl"]
    arn = sqs("get-queue-attributes", "--queue-url", dead, "--attribute-names", "QueueArn")["Attributes"]["QueueArn"]
    redrive = json.dumps({"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})})
    url = sqs("create-queue", "--queue-name", "cli", "--attributes", redrive)["QueueUrl"]
    entries = json.dumps([{"Id": str(at), "MessageBody": f"body {at}"} for at in range(3)])
    sent = sqs("send-message-batch", "--queue-url", url, "--entries", entries)
    assert [one["Id"] for one in sent["Successful"]] == ["0", "1", "2"]
    got = sqs("receive-message", "--queue-url", url, "--max-number-of-messages", "10", "--wait-time-seconds", "5")
    handles = {one["Body"]: one["ReceiptHandle"] for one in got["Messages"]}
    assert set(handles) == {"body 0", "body 1", "body 2"}
    sqs("delete-message", "--queue-url", url, "--receipt-handle", handles["body 0"])
    for body in ("body 1", "body 2"):
        given = ("--receipt-handle", handles[body], "--visibility-timeout", "0")
        sqs("change-message-visibility", "--queue-url", url, *given)
    assert sqs("receive-message", "--queue-url", url, "--max-number-of-messages", "10") == ""
    moved = sqs("receive-message", "--queue-url", dead, "--max-number-of-messages", "10", "--wait-time-seconds", "5")
    assert {one["Body"] for one in moved["Messages"]} == {"body 1", "body 2"}
    assert "NonExistentQueue" in sqs("get-queue-url", "--queue-name", "nothing", code=255)


def test_the_cli_on_objects(aws: Aws, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "deep").mkdir(parents=True)
    large = os.urandom(20 << 20)  # the client sends it in parts
    files = {"a.txt": b"a", "deep/b ü.bin": large, "deep/c.txt": b"c" * 1000}
    for name, data in files.items():
        (source / name).write_bytes(data)
    aws("s3", "mb", "s3://cli-files")
    aws("s3", "sync", "source", "s3://cli-files/x", "--no-progress")
    assert aws("s3", "sync", "source", "s3://cli-files/x", "--no-progress") == "", "nothing has changed"
    (source / "a.txt").write_bytes(b"other")
    (source / "deep/c.txt").unlink()
    told = aws("s3", "sync", "source", "s3://cli-files/x", "--delete", "--no-progress")
    assert ("upload: source/a.txt" in told, "delete: s3://cli-files/x/deep/c.txt" in told) == (True, True)
    aws("s3", "cp", "s3://cli-files/x", "back", "--recursive", "--no-progress")
    assert (back / "a.txt").read_bytes() == b"other"
    assert (back / "deep/b ü.bin").read_bytes() == large
    assert not (back / "deep/c.txt").exists()
    aws("s3", "mv", "s3://cli-files/x/a.txt", "s3://cli-files/moved.txt")
    signed = aws("s3", "presign", "s3://cli-files/moved.txt").strip()
    assert httpx.get(signed, timeout=30).content == b"other"
    assert httpx.get(signed.replace("moved", "other"), timeout=30).status_code == 403
    assert "404" in aws("s3api", "head-object", "--bucket", "cli-files", "--key", "x/a.txt", code=255)
    aws("s3", "rb", "s3://cli-files", "--force")
    assert "NoSuchBucket" in aws("s3", "ls", "s3://cli-files", code=255)
