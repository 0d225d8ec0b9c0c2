"""Types that are taken: roles, log groups and the like. They have names and ARNs, so that templates work, and do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from martlet.apps.stacks.kinds import Kind, Property, taken
from martlet.apps.stacks.providers.provider import Context, Simple, generated_name

__all__ = ["remembered_providers"]

_OWNER: Final = "what a function may do is said by its app and by function policies"


def _kind(type: str, attributes: tuple[str, ...], note: str, *names: str, **fixed_names: Property) -> Kind:
    properties = {**{name: taken() for name in names}, **fixed_names}
    return Kind(type=type, attributes=attributes, properties=properties, state="taken", note=note)


def _named(property: str, most: int = 64) -> Any:
    def name(context: Context, properties: Mapping[str, Any]) -> str:
        return str(properties.get(property) or generated_name(context, most))

    return name


def _profile(context: Context, id: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    path = str(properties.get("Path") or "/")
    return {"Arn": f"arn:aws:iam::{context.account}:instance-profile{path}{id}"}


def _log_group(context: Context, properties: Mapping[str, Any]) -> str:
    return str(properties.get("LogGroupName") or generated_name(context, 512))


def remembered_providers() -> list[Simple]:
    """One provider for each type that is taken."""
    return [*_identity(), *_others()]


def _identity() -> list[Simple]:
    replaced = taken("string", replace=True)
    return [
        Simple(
            _kind("AWS::IAM::InstanceProfile", ("Arn",), _OWNER, "Path", "Roles", InstanceProfileName=replaced),
            _named("InstanceProfileName", 128),
            _profile,
        ),
    ]  # fmt: skip


def _others() -> list[Simple]:
    replaced = taken("string", replace=True)
    return [
        Simple(
            _kind(
                "AWS::Logs::LogGroup", ("Arn",), "logs are kept by function within their limits", "DataProtectionPolicy",
                "FieldIndexPolicies", "KmsKeyId", "LogGroupClass", "ResourcePolicyDocument", "RetentionInDays", "Tags",
                "DeletionProtectionEnabled", LogGroupName=replaced,
            ),
            _log_group,
            lambda context, id, properties: {"Arn": f"arn:aws:logs:{context.region}:{context.account}:log-group:{id}:*"},
        ),
        Simple(
            _kind("AWS::ApiGateway::Account", ("Id",), "where an account's APIs would log to", "CloudWatchRoleArn"),
            lambda context, properties: generated_name(context, 64),
            lambda context, id, properties: {"Id": id},
        ),
        Simple(
            _kind("AWS::CDK::Metadata", (), "what the CDK says about itself", "Analytics"),
            lambda context, properties: generated_name(context, 128),
        ),
        Simple(
            _kind("AWS::CloudFormation::WaitConditionHandle", (), "a name without effect"),
            lambda context, properties: f"https://cloudformation-waitcondition-{context.region}.s3.amazonaws.com/"
            + generated_name(context, 128),
        ),
    ]  # fmt: skip
