"""Aliases, layers, policies, concurrency, URLs, tags: each as the service answers, and each acting on what runs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.functions.control.world import World, archive, caller

from martlet.functions.sandboxes.inside import frames
from martlet.types import Principal

ARN = "arn:aws:lambda:us-east-1:000000000000:"


# --- aliases


async def test_weighted_aliases_split_within_one_percent(world: World) -> None:
    await world.create()
    one, two = await world.publish(), await world.publish()
    routing = {"AdditionalVersionWeights": {two: 0.3}}
    made = await world.call("create_alias", FunctionName="f", Name="live", FunctionVersion=one, RoutingConfig=routing)
    assert made["RoutingConfig"] == routing
    counts = Counter(found.qualifier for _ in range(10_000) if (found := world.functions._register.resolve("f:live")))
    assert abs(counts[two] / 10_000 - 0.3) < 0.001
    updated = await world.call("update_alias", FunctionName="f", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in updated
    assert {(await world.call("invoke", FunctionName="f:live"))["ExecutedVersion"] for _ in range(30)} == {one}


async def test_a_moved_alias_leads_to_the_new_version_at_once(world: World) -> None:
    await world.create()
    one, two = await world.publish(), await world.publish()
    made = await world.call("create_alias", FunctionName="f", Name="live", FunctionVersion=one)
    assert (await world.call("invoke", FunctionName="f:live"))["ExecutedVersion"] == one
    wrong = {"FunctionName": "f", "Name": "live", "FunctionVersion": two, "RevisionId": "x"}
    assert (await world.fails("update_alias", **wrong))[0] == "PreconditionFailedException"
    await world.call("update_alias", FunctionName="f", Name="live", FunctionVersion=two, RevisionId=made["RevisionId"])
    assert (await world.call("invoke", FunctionName="f:live"))["ExecutedVersion"] == two
    await world.call("delete_alias", FunctionName="f", Name="live")
    assert (await world.fails("invoke", FunctionName="f:live"))[1] == f"Function not found: {ARN}function:f:live"


async def test_aliases_that_cannot_be(world: World) -> None:
    await world.create()
    one = await world.publish()
    for version, weights, message in (
        ("9", {}, f"Function not found: {ARN}function:f:9"),
        (one, {"9": 0.1}, f"Function not found: {ARN}function:f:9"),
        (one, {one: 0.1}, "Invalid function version 1. Function version 1 is already included in routing configuration."),
        (one, {"2": 0.1, "3": 0.1}, "Number of items in AdditionalVersionWeights cannot be greater than 1"),
        ("$LATEST", {one: 0.1}, "$LATEST is not supported for an alias pointing to more than 1 version"),
    ):
        routing = {"AdditionalVersionWeights": weights}
        request = {"FunctionName": "f", "Name": "a", "FunctionVersion": version, "RoutingConfig": routing}
        assert (await world.fails("create_alias", **request))[1] == message


# --- layers


async def test_layers_are_merged_in_their_order(world: World, tmp_path: Path) -> None:
    arns = []
    for name, text in (("base", "one"), ("over", "two")):
        layer = await world.call("publish_layer_version", LayerName=name, Content={"ZipFile": archive(text, "python/m.py")})
        arns.append(layer["LayerVersionArn"])
    assert arns == [f"{ARN}layer:base:1", f"{ARN}layer:over:1"]
    await world.create(Layers=arns)
    await world.call("invoke", FunctionName="f")
    (spec,) = world.host.specs.values()
    assert tmp_path in Path(spec.opt).parents
    assert (Path(spec.opt) / "python" / "m.py").read_text() == "two"
    await world.call("delete_layer_version", LayerName="over", VersionNumber=1)
    shown = (await world.call("get_function_configuration", FunctionName="f"))["Layers"]
    assert [one["Arn"] for one in shown] == arns, "a function keeps the layer versions that it has"
    await world.call("update_function_configuration", FunctionName="f", Layers=arns[:1])
    await world.control.settled()
    await world.call("invoke", FunctionName="f")
    assert (Path(max(world.host.specs.items())[1].opt) / "python" / "m.py").read_text() == "one"
    again = await world.call("publish_layer_version", LayerName="over", Content={"ZipFile": archive()})
    assert again["Version"] == 2, "numbers are not used again"


async def test_layers_as_the_service_refuses_them(world: World) -> None:
    for version in (1, 2):
        await world.call("publish_layer_version", LayerName="a", Content={"ZipFile": archive(str(version))})
    await world.create()
    for arns, message in (
        ([f"{ARN}layer:a:1", f"{ARN}layer:a:2"], "Two different versions of the same layer are not allowed to be referenced"),
        ([f"{ARN}layer:a:1".replace("us-east-1", "eu-west-1")], "Layers are not in the same region as the function."),
        ([f"{ARN}layer:{n}:1" for n in "abcdef"], "Cannot reference more than 5 layers."),
        ([f"{ARN}layer:a:7"], f"Layer version {ARN}layer:a:7 does not exist."),
    ):
        name, text = await world.fails("update_function_configuration", FunctionName="f", Layers=arns)
        assert (name, text[: len(message)]) == ("InvalidParameterValueException", message)
    assert (await world.fails("get_layer_version", LayerName="a", VersionNumber=0))[1] == "Layer Version Cannot be less than 1"


# --- policies


async def test_a_resource_policy_lets_in_who_has_no_grant(world: World) -> None:
    await world.create()
    function = caller(Principal("function", "other"))
    name, message = await world.fails("invoke", function, FunctionName="f")
    assert name == "AccessDeniedException"
    assert "is not authorized to perform: lambda:InvokeFunction on resource" in message
    added = await world.call(
        "add_permission", FunctionName="f", StatementId="s", Action="lambda:InvokeFunction", Principal="000000000000"
    )
    assert json.loads(added["Statement"])["Principal"] == {"AWS": "arn:aws:iam::000000000000:root"}
    assert (await world.call("invoke", function, FunctionName="f"))["StatusCode"] == 200
    assert (await world.fails("invoke", caller(Principal("anonymous")), FunctionName="f"))[0] == "AccessDeniedException"
    assert (await world.fails("delete_function", function, FunctionName="f"))[0] == "AccessDeniedException"
    await world.call("remove_permission", FunctionName="f", StatementId="s")
    assert (await world.fails("invoke", function, FunctionName="f"))[0] == "AccessDeniedException"
    assert (await world.fails("get_policy", FunctionName="f"))[1] == "The resource you requested does not exist."


async def test_a_public_url_needs_its_permission(world: World) -> None:
    await world.create()
    made = await world.call("create_function_url_config", FunctionName="f", AuthType="NONE")
    assert set(made) == {"FunctionUrl", "FunctionArn", "AuthType", "CreationTime"}
    (url,) = world.control.url_configs()
    assert (url["FunctionName"], url["Qualifier"], url["InvokeMode"], len(url["UrlId"])) == ("f", "", "BUFFERED", 32)
    assert world.urls_changed == 1
    assert not world.control.may_invoke_url("f")
    permission = {"FunctionName": "f", "StatementId": "u", "Action": "lambda:InvokeFunctionUrl", "Principal": "*"}
    await world.call("add_permission", **permission, FunctionUrlAuthType="AWS_IAM")
    assert not world.control.may_invoke_url("f")
    await world.call("add_permission", **{**permission, "StatementId": "v"}, FunctionUrlAuthType="NONE")
    assert world.control.may_invoke_url("f")
    await world.call("delete_function", FunctionName="f")
    assert world.control.url_configs() == []


# --- concurrency


async def test_reserved_concurrency_counts_all_versions(world: World) -> None:
    world.host.handler = lambda init, payload: None
    await world.create()
    one = await world.publish()
    await world.call("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=2)
    calls = [asyncio.ensure_future(world.call("invoke", FunctionName=name)) for name in ("f", f"f:{one}")]
    while len(world.host.open_events) < 2:  # noqa: ASYNC110 - the other side is a pipe
        await asyncio.sleep(0.001)
    assert await world.fails("invoke", FunctionName="f") == ("TooManyRequestsException", "Rate Exceeded.")
    await world.call("update_function_configuration", FunctionName="f", Timeout=5)
    await world.control.settled()
    assert (await world.fails("invoke", FunctionName="f"))[0] == "TooManyRequestsException", "the old version's event counts"
    for results, sequence, _ in world.host.open_events:
        world.host.answer(results, sequence, (frames.RESULT, b"1"))
    await asyncio.gather(*calls)
    world.host.handler = lambda init, payload: (frames.RESULT, payload)
    assert (await world.call("invoke", FunctionName="f"))["StatusCode"] == 200


async def test_what_is_left_of_the_account(world: World) -> None:
    await world.create()
    _, message = await world.fails("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=901)
    assert message == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
        "minimum value of [100]."
    )
    await world.call("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=900)
    limits = (await world.call("get_account_settings"))["AccountLimit"]
    assert (limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]) == (1000, 100)


async def test_provisioned_instances_are_ready_or_failed(world: World) -> None:
    await world.create()
    one = await world.publish()
    request = {"FunctionName": "f", "Qualifier": one}
    put = await world.call("put_provisioned_concurrency_config", **request, ProvisionedConcurrentExecutions=2)
    assert (put["Status"], put["AllocatedProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 0)
    await world.control.settled()
    got = await world.call("get_provisioned_concurrency_config", **request)
    assert (got["Status"], got["AvailableProvisionedConcurrentExecutions"]) == ("READY", 2)
    await world.call("delete_provisioned_concurrency_config", **request)
    await world.control.settled()
    assert (await world.fails("get_provisioned_concurrency_config", **request))[0] == (
        "ProvisionedConcurrencyConfigNotFoundException"
    )
    world.host.init = lambda init: (frames.INIT_ERROR, b'{"errorType": "E", "errorMessage": "m"}')
    await world.call("put_provisioned_concurrency_config", **request, ProvisionedConcurrentExecutions=1)
    await world.control.settled()
    got = await world.call("get_provisioned_concurrency_config", **request)
    assert (got["Status"], got["StatusReason"]) == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE")


async def test_provisioned_concurrency_moves_with_its_alias(world: World) -> None:
    await world.create()
    one, two = await world.publish(), await world.publish()
    await world.call("create_alias", FunctionName="f", Name="live", FunctionVersion=one)
    request = {"FunctionName": "f", "Qualifier": "live"}
    await world.call("put_provisioned_concurrency_config", **request, ProvisionedConcurrentExecutions=1)
    await world.control.settled()
    assert (world.functions.ready_instances(f"f:{one}"), world.functions.ready_instances(f"f:{two}")) == (1, 0)
    assert (
        await world.fails("put_provisioned_concurrency_config", FunctionName=f"f:{one}", ProvisionedConcurrentExecutions=1)
    )[1] == "Version is pointed by a Provisioned Concurrency alias"
    await world.call("update_alias", FunctionName="f", Name="live", FunctionVersion=two)
    assert (await world.call("get_provisioned_concurrency_config", **request))["Status"] == "IN_PROGRESS"
    await world.control.settled()
    assert world.functions.ready_instances(f"f:{two}") == 1
    found = world.functions.find(f"f:{one}")
    assert found is not None
    assert found.config.provisioned == 0


async def test_own_instances_are_not_for_others(world: World) -> None:
    """Reserved 1, provisioned 1 on version 1: $LATEST has nothing left (recorded from the service)."""
    await world.create()
    one = await world.publish()
    await world.call("put_function_concurrency", FunctionName="f", ReservedConcurrentExecutions=1)
    await world.call("put_provisioned_concurrency_config", FunctionName="f", Qualifier=one, ProvisionedConcurrentExecutions=1)
    await world.control.settled()
    assert (await world.fails("invoke", FunctionName="f"))[0] == "TooManyRequestsException"
    assert (await world.call("invoke", FunctionName=f"f:{one}"))["ExecutedVersion"] == one


# --- streams


async def test_a_streamed_answer(world: World) -> None:
    def stream(init: dict[str, Any], payload: bytes) -> None:
        """The first event of an instance has the number 1."""

    world.host.handler = stream
    await world.create()
    call = asyncio.ensure_future(world.call("invoke_with_response_stream", FunctionName="f", LogType="Tail"))
    while not world.host.open_events:  # noqa: ASYNC110 - the other side is a pipe
        await asyncio.sleep(0.001)
    ((results, sequence, _),) = world.host.open_events
    for kind, data in ((frames.HEAD, b'{"statusCode":200}'), (frames.CHUNK, b"a"), (frames.CHUNK, b"b"), (frames.END, b"")):
        world.host.answer(results, sequence, (kind, data))
    answer = await call
    events = [event async for event in answer["EventStream"]]
    chunks = [event["PayloadChunk"]["Payload"] for event in events[:-1]]
    assert b"".join(chunks) == b'{"statusCode":200}' + bytes(8) + b"ab"
    assert "ErrorCode" not in events[-1]["InvokeComplete"]
    assert events[-1]["InvokeComplete"]["LogResult"]


async def test_an_answer_in_one_piece_is_one_chunk_and_an_error_ends_the_stream(world: World) -> None:
    await world.create()
    answer = await world.call("invoke_with_response_stream", FunctionName="f", Payload=b'{"a": 1}')
    assert [event async for event in answer["EventStream"]] == [
        {"PayloadChunk": {"Payload": b'{"a": 1}'}},
        {"InvokeComplete": {}},
    ]
    world.host.handler = lambda init, payload: (frames.ERROR, b'{"errorType": "E", "errorMessage": "m"}')
    answer = await world.call("invoke_with_response_stream", FunctionName="f")
    (event,) = [event async for event in answer["EventStream"]]
    assert event["InvokeComplete"]["ErrorCode"] == "Unhandled"


# --- the rest


async def test_code_signing_that_is_enforced_lets_nothing_unsigned_pass(world: World) -> None:
    await world.create()
    publishers = {"SigningProfileVersionArns": ["arn:aws:signer:us-east-1:000000000000:/signing-profiles/p"]}
    policy = {"UntrustedArtifactOnDeployment": "Enforce"}
    made = await world.call("create_code_signing_config", AllowedPublishers=publishers, CodeSigningPolicies=policy)
    arn = made["CodeSigningConfig"]["CodeSigningConfigArn"]
    await world.call("put_function_code_signing_config", FunctionName="f", CodeSigningConfigArn=arn)
    name, _ = await world.fails("update_function_code", FunctionName="f", ZipFile=archive("new"))
    assert name == "CodeVerificationFailedException"
    await world.call("delete_function_code_signing_config", FunctionName="f")
    await world.call("update_function_code", FunctionName="f", ZipFile=archive("new"))


async def test_tags_change_the_revision(world: World) -> None:
    made = await world.create(Tags={"a": "1"})
    before = (await world.call("get_function", FunctionName="f"))["Configuration"]["RevisionId"]
    await world.call("tag_resource", Resource=made["FunctionArn"], Tags={"b": "2"})
    await world.call("untag_resource", Resource=made["FunctionArn"], TagKeys=["a", "none"])
    assert await world.call("list_tags", Resource=made["FunctionArn"]) == {"Tags": {"b": "2"}}
    assert (await world.call("get_function", FunctionName="f"))["Configuration"]["RevisionId"] != before
    assert (await world.fails("tag_resource", Resource=made["FunctionArn"] + ":1", Tags={"a": "b"}))[1] == (
        "Tags on function aliases and versions are not supported. Please specify a function ARN."
    )
