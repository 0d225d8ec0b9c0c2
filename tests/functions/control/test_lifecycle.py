"""Functions and versions: states, revisions, what is shown and what is absent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.functions.control.world import RUNTIME, World, archive, caller

from martlet.clock import ManualClock
from martlet.errors import ServiceError
from martlet.functions.sandboxes.inside import frames

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


async def test_creation_is_pending_then_active(world: World) -> None:
    code = archive()
    made = await world.call(
        "create_function",
        FunctionName="f",
        Runtime=RUNTIME,
        Role="arn:aws:iam::000000000000:role/r",
        Handler="index.handler",
        Code={"ZipFile": code},
    )
    assert (made["State"], made["StateReasonCode"], made["StateReason"]) == (
        "Pending",
        "Creating",
        "The function is being created.",
    )
    absent = {"LastUpdateStatus", "Layers", "KMSKeyArn", "Environment", "DeadLetterConfig", "VpcConfig", "MasterArn"}
    assert not absent & set(made)
    assert made["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert (made["CodeSize"], made["Timeout"], made["MemorySize"], made["Version"]) == (len(code), 3, 128, "$LATEST")
    assert await world.fails("invoke", FunctionName="f") == (
        "ResourceConflictException",
        "The operation cannot be performed at this time. The function is currently in the following state: Pending",
    )
    await world.control.settled()
    found = await world.call("get_function_configuration", FunctionName="f")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful")
    assert "StateReason" not in found
    assert found["RevisionId"] != made["RevisionId"]


async def test_an_update_is_in_progress_then_successful_and_excludes_others(world: World) -> None:
    await world.create()
    await world.call("invoke", FunctionName="f")
    change = {"Timeout": 9, "Environment": {"Variables": {"A": "1"}}}
    updated = await world.call("update_function_configuration", FunctionName="f", **change)
    assert (updated["State"], updated["LastUpdateStatus"]) == ("Active", "InProgress")
    for operation, more in (("update_function_configuration", {}), ("update_function_code", {"ZipFile": archive()})):
        name, message = await world.fails(operation, FunctionName="f", **more)
        assert (name, message) == (
            "ResourceConflictException",
            f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}f",
        )
    await world.control.settled()
    found = await world.call("get_function", FunctionName="f")
    assert found["Configuration"]["LastUpdateStatus"] == "Successful"
    assert found["Configuration"]["Environment"] == {"Variables": {"A": "1"}}
    assert {"Tags", "Concurrency"} & set(found) == set()


async def test_an_import_error_shows_at_invocation_not_at_creation(world: World) -> None:
    error = json.dumps({"errorType": "Runtime.ImportModuleError", "errorMessage": "no", "requestId": ""}).encode()
    world.host.init = lambda init: (frames.INIT_ERROR, error)
    await world.create()
    found = await world.call("invoke", FunctionName="f")
    assert (found["StatusCode"], found["FunctionError"], found["Payload"]) == (200, "Unhandled", error)


async def test_the_old_code_serves_until_the_new_one_is_ready(world: World) -> None:
    world.host.handler = lambda init, _: (frames.RESULT, json.dumps(init["environment"].get("N")).encode())
    await world.create(Environment={"Variables": {"N": "1"}})
    assert (await world.call("invoke", FunctionName="f"))["Payload"] == b'"1"'
    await world.call("update_function_configuration", FunctionName="f", Environment={"Variables": {"N": "2"}})
    assert (await world.call("invoke", FunctionName="f"))["Payload"] == b'"1"'
    await world.control.settled()
    assert (await world.call("invoke", FunctionName="f"))["Payload"] == b'"2"'


async def test_code_can_be_fetched_from_its_location_until_it_expires(world: World, clock: ManualClock) -> None:
    code = archive("print()")
    await world.create(Code={"ZipFile": code})
    parts = urlsplit((await world.call("get_function", FunctionName="f"))["Code"]["Location"])
    assert parts.netloc == "here"
    assert world.control.download(parts.path, parts.query) == code
    for path, query in ((parts.path, parts.query[:-1] + "x"), (parts.path.replace("a", "b"), parts.query), ("/_code/x", "")):
        with pytest.raises(ServiceError):
            world.control.download(path, query)
    clock.advance(601)
    with pytest.raises(ServiceError, match="expired"):
        world.control.download(parts.path, parts.query)


async def test_versions_never_change_and_are_not_published_twice(world: World) -> None:
    await world.create()
    first = await world.call("publish_version", FunctionName="f", Description="one")
    assert (first["Version"], first["FunctionArn"], first["Description"]) == ("1", f"{ARN}f:1", "one")
    assert (await world.call("publish_version", FunctionName="f"))["RevisionId"] == first["RevisionId"]
    assert await world.publish() == "2"
    again = await world.call("get_function_configuration", FunctionName="f", Qualifier="1")
    assert again == {**first}
    listed = (await world.call("list_versions_by_function", FunctionName="f"))["Versions"]
    assert [one["Version"] for one in listed] == ["$LATEST", "1", "2"]
    assert all("State" not in one and "RuntimeVersionConfig" not in one for one in listed)
    await world.call("delete_function", FunctionName="f", Qualifier="2")
    assert await world.publish() == "3", "numbers are not used again"


async def test_publishing_checks_what_the_caller_has_seen(world: World) -> None:
    await world.create()
    assert (await world.fails("publish_version", FunctionName="f", RevisionId="x"))[0] == "PreconditionFailedException"
    name, message = await world.fails("publish_version", FunctionName="f", CodeSha256="x")
    assert name == "InvalidParameterValueException"
    assert message.startswith("CodeSHA256 (x) is different from current CodeSHA256 in $LATEST (")


async def test_each_version_runs_as_itself(world: World) -> None:
    def tell(init: dict[str, object], _: bytes) -> tuple[int, bytes]:
        environment = init["environment"]
        assert isinstance(environment, dict)
        told = [environment["AWS_LAMBDA_FUNCTION_VERSION"], init["arn"], str(environment["AWS_LAMBDA_LOG_STREAM_NAME"])[:21]]
        return frames.RESULT, json.dumps(told).encode()

    world.host.handler = tell
    await world.create()
    await world.call("publish_version", FunctionName="f")
    await world.call("create_alias", FunctionName="f", Name="live", FunctionVersion="1")
    for asked, version, arn in (
        ({"FunctionName": "f"}, "$LATEST", f"{ARN}f"),
        ({"FunctionName": "f", "Qualifier": "$LATEST"}, "$LATEST", f"{ARN}f:$LATEST"),
        ({"FunctionName": "f:1"}, "1", f"{ARN}f:1"),
        ({"FunctionName": f"{ARN}f:live"}, "1", f"{ARN}f:live"),
        ({"FunctionName": "000000000000:function:f", "Qualifier": "live"}, "1", f"{ARN}f:live"),
    ):
        found = await world.call("invoke", **asked)
        assert found["ExecutedVersion"] == version
        assert json.loads(found["Payload"])[:2] == [version, arn]
    tail = await world.call("invoke", FunctionName="f:1", LogType="Tail")
    assert b"Version: 1\n" in base64.b64decode(tail["LogResult"])


async def test_deleting(world: World) -> None:
    await world.create()
    await world.call("publish_version", FunctionName="f")
    await world.call("create_alias", FunctionName="f", Name="live", FunctionVersion="1")
    for qualifier, message in (
        ("$LATEST", "$LATEST version cannot be deleted without deleting the function."),
        ("live", "Deletion of aliases is not currently supported."),
        ("1", "Unable to delete version because the following aliases reference it: [live]"),
    ):
        assert (await world.fails("delete_function", FunctionName="f", Qualifier=qualifier))[1] == message
    assert await world.call("delete_function", FunctionName="f") == {"StatusCode": 204}
    assert await world.fails("get_function", FunctionName="f") == (
        "ResourceNotFoundException",
        f"Function not found: {ARN}f",
    )
    assert await world.fails("invoke", FunctionName="f:1") == ("ResourceNotFoundException", f"Function not found: {ARN}f:1")
    await world.create()
    assert (await world.fails("get_alias", FunctionName="f", Name="live"))[0] == "ResourceNotFoundException"


async def test_names_and_qualifiers(world: World) -> None:
    assert await world.fails("get_function", FunctionName=f"{ARN}f:1", Qualifier="2") == (
        "InvalidParameterValueException",
        "The derived qualifier from the function name does not match the specified qualifier.",
    )
    other = ARN.replace("us-east-1", "eu-west-1") + "f"
    assert await world.fails("get_function", FunctionName=other) == (
        "ResourceNotFoundException",
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
    )
    foreign = ARN.replace("000000000000", "111111111111") + "f"
    assert (await world.fails("get_function", FunctionName=foreign))[0] == "AccessDeniedException"
    assert (await world.fails("get_function", FunctionName="a/../b"))[0] == "ValidationException"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Runtime": "python9"}, "Value python9 at 'runtime' failed to satisfy constraint: Member must satisfy enum"),
        ({"Runtime": "java8"}, "The runtime parameter of java8 is no longer supported for creating or updating AWS Lambda"),
        ({"Runtime": "java21"}, "java21 is not installed here."),
        ({"Runtime": None}, "Runtime and Handler are mandatory parameters for functions created with deployment packages."),
        ({"PackageType": "Image"}, "PackageType Image is not supported by Martlet: functions run from zip archives; container"),
        ({"KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/k"}, "KMSKeyArn is not supported by Martlet."),
        ({"FileSystemConfigs": [{"Arn": "a"}]}, "FileSystemConfigs is not supported by Martlet."),
        ({"Code": {"ImageUri": "x"}}, "ImageUri is not supported by Martlet: functions run from zip archives."),
        ({"Code": {"S3Bucket": "b", "S3Key": "k"}}, "S3Bucket and S3Key: Martlet has no objects yet"),
        ({"Code": {"ZipFile": b"no zip"}}, "Could not unzip uploaded file. Please check your file, then try to upload again."),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q"}}, "DeadLetterConfig arn:aws:sqs"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, "Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Lambda was unable to configure your environment variables"),
        ({"Environment": {"Variables": {"A": "x" * 4_100}}}, "Lambda was unable to configure your environment variables"),
        ({"Timeout": 901}, "1 validation error detected: Value '901' at 'timeout' failed to satisfy constraint"),
        (
            {"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:no:1"]},
            "Layer version arn:aws:lambda:us-east-1:000000000000",
        ),
        ({"LoggingConfig": {"ApplicationLogLevel": "DEBUG"}}, "Log level is not supported when LogFormat is set to TEXT."),
        ({"Tags": {str(n): "" for n in range(51)}}, "Number of tags exceeds resource tag limit."),
        ({"FunctionName": "a" * 65}, "1 validation error detected: Value 'aaaa"),
    ],
)
async def test_what_is_refused_is_refused_by_name(world: World, change: dict[str, object], message: str) -> None:
    request = {
        "FunctionName": "f",
        "Runtime": RUNTIME,
        "Role": "arn:aws:iam::000000000000:role/r",
        "Handler": "index.handler",
        "Code": {"ZipFile": archive()},
        **change,
    }
    name, text = await world.fails("create_function", **request)
    assert (name, text[: len(message)]) == ("InvalidParameterValueException", message)
    assert (await world.call("list_functions"))["Functions"] == []


async def test_an_archive_that_is_too_large_to_send(world: World) -> None:
    code = {"ZipFile": b"x" * 52_428_801}
    assert await world.fails("create_function", FunctionName="f", Runtime=RUNTIME, Handler="h.h", Code=code) == (
        "RequestEntityTooLargeException",
        "Zipped size must be smaller than 52428800 bytes",
    )


async def test_objects_as_code(world: World, tmp_path: Path) -> None:
    async def fetch(bucket: str, key: str, version: str) -> bytes:
        if bucket != "b":
            raise ServiceError("NoSuchBucket", "The specified bucket does not exist")
        return archive(key + version)

    world.control._fetch_object = fetch
    await world.create(Code={"S3Bucket": "b", "S3Key": "k", "S3ObjectVersion": "7"})
    parts = urlsplit((await world.call("get_function", FunctionName="f"))["Code"]["Location"])
    assert world.control.download(parts.path, parts.query) == archive("k7")
    assert (await world.fails("update_function_code", FunctionName="f", S3Bucket="c", S3Key="k"))[1] == (
        "Error occurred while GetObject. S3 Error Code: NoSuchBucket. S3 Error Message: The specified bucket does not exist"
    )


async def test_lists_come_in_pages(world: World) -> None:
    for number in range(5):
        await world.create(f"f{number}")
    seen, marker = [], {}
    while True:
        page = await world.call("list_functions", MaxItems=2, **marker)
        seen += [one["FunctionName"] for one in page["Functions"]]
        if "NextMarker" not in page:
            break
        marker = {"Marker": page["NextMarker"]}
    assert seen == ["f0", "f1", "f2", "f3", "f4"]
    assert (await world.fails("list_functions", Marker="%%%"))[0] == "InvalidParameterValueException"
    await world.call("publish_version", FunctionName="f0")
    every = (await world.call("list_functions", FunctionVersion="ALL"))["Functions"]
    assert [one["FunctionArn"] for one in every[:2]] == [f"{ARN}f0:$LATEST", f"{ARN}f0:1"]


async def test_everything_is_there_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    world = await World(tmp_path, clock).start()
    await world.create(Tags={"a": "b"})
    await world.call("publish_version", FunctionName="f")
    await world.call("create_alias", FunctionName="f", Name="live", FunctionVersion="1")
    await world.call("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    before = await world.call("get_function", FunctionName="f:live")
    await world.stop()
    world = await World(tmp_path, clock).start()
    after = await world.call("get_function", FunctionName="f:live")
    assert after["Configuration"] == before["Configuration"]
    assert (after["Tags"], after["Concurrency"]) == ({"a": "b"}, {"ReservedConcurrentExecutions": 0})
    assert (await world.fails("invoke", FunctionName="f:live"))[0] == "TooManyRequestsException"
    await world.call("delete_function_concurrency", FunctionName="f")
    assert (await world.call("invoke", FunctionName="f:live"))["ExecutedVersion"] == "1"
    await world.stop()


async def test_a_change_that_a_crash_interrupted_ends_after_the_restart(tmp_path: Path, clock: ManualClock) -> None:
    world = await World(tmp_path, clock).start()
    await world.create()
    world.control._in_background = lambda work: work.close()  # type: ignore[method-assign,assignment]  # it dies here
    await world.call("update_function_configuration", FunctionName="f", Timeout=7)
    await world.stop()
    world = await World(tmp_path, clock).start()
    await world.control.settled()
    found = await world.call("get_function_configuration", FunctionName="f")
    assert (found["LastUpdateStatus"], found["Timeout"]) == ("Successful", 7)
    await world.stop()


async def test_an_update_that_serves_already_is_still_seen_to_be_in_progress(world: World) -> None:
    """Scripts that do not wait for an update fail here as they do with the service, whatever the time that it took."""
    await world.create()
    await world.call("update_function_code", FunctionName="f", ZipFile=archive("x = 2"))
    for _ in range(3):
        await asyncio.sleep(0)
    name, message = await world.fails("update_function_code", FunctionName="f", ZipFile=archive("x = 3"))
    assert (name, message) == (
        "ResourceConflictException",
        f"The operation cannot be performed at this time. An update is in progress for resource: {ARN}f",
    )
    await world.control.settled()
    await world.call("update_function_code", FunctionName="f", ZipFile=archive("x = 3"))


async def test_a_layer_is_named_by_where_it_was_published(world: World) -> None:
    elsewhere = caller(signed_region="eu-west-1")
    layer = await world.call("publish_layer_version", elsewhere, LayerName="l", Content={"ZipFile": archive()})
    assert layer["LayerVersionArn"] == "arn:aws:lambda:eu-west-1:000000000000:layer:l:1"
    name, message = await world.fails(
        "create_function",
        FunctionName="f",
        Runtime=RUNTIME,
        Role="arn:aws:iam::000000000000:role/r",
        Handler="index.handler",
        Code={"ZipFile": archive()},
        Layers=[layer["LayerVersionArn"]],
    )
    assert name == "InvalidParameterValueException"
    assert message == "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."
    shown = await world.call("get_layer_version_by_arn", elsewhere, Arn=layer["LayerVersionArn"])
    assert shown["Version"] == 1


async def test_zero_reserved_concurrency_does_not_say_when_to_come_again(world: World) -> None:
    await world.create()
    await world.call("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=0)
    with pytest.raises(ServiceError) as caught:
        await world.call("invoke", FunctionName="f")
    assert caught.value.members == {"Type": "User", "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}


async def test_what_a_layer_says_that_it_fits_is_checked_all_at_once(world: World) -> None:
    given = {"CompatibleRuntimes": ["cobol", "nodejs20.x"], "CompatibleArchitectures": ["z80"]}
    name, message = await world.fails("publish_layer_version", LayerName="l", Content={"ZipFile": archive()}, **given)
    assert name == "ValidationException"
    assert message.startswith("2 validation errors detected: Value '[cobol, nodejs20.x]' at 'compatibleRuntimes' failed")
    assert message.endswith(
        "; Value '[z80]' at 'compatibleArchitectures' failed to satisfy constraint: Member must satisfy constraint: "
        "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
    )
    for operation, more in (("list_layers", {}), ("list_layer_versions", {"LayerName": "l"})):
        name, message = await world.fails(operation, CompatibleRuntime="cobol", **more)
        assert name == "ValidationException"
        assert "Value 'cobol' at 'compatibleRuntime'" in message
