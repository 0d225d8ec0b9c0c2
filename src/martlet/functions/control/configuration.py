"""A function's configuration: from requests (CreateFunction, UpdateFunctionConfiguration) and into answers.

Source: the Lambda API reference and answers recorded from the service. What the service would act on and Martlet does not
have is refused by name; members that say nothing ("", [], {}) are taken.
"""

from __future__ import annotations

import base64
import hashlib
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.functions.control.identifiers import INTERPRETED, check_runtime
from martlet.functions.control.names import invalid, unsupported
from martlet.functions.control.records import LATEST, Configuration, Logging
from martlet.limits import LIMITS
from martlet.types import ACCOUNT, FunctionConfig, FunctionVersion

__all__ = ["CREATING", "changed", "check_sizes", "created", "described", "listed", "runnable", "stamp"]

CREATING: Final = "The function is being created."
# Source: Lambda developer guide, defined runtime environment variables.
# fmt: off
RESERVED_KEYS: Final = frozenset((
    "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
))
# fmt: on
# Settings of the API that Martlet has no meaning for, and that the real service would act on.
_NOT_HERE: Final = (
    "FileSystemConfigs",
    "ImageConfig",
    "KMSKeyArn",
    "SourceKMSKeyArn",
    "TenancyConfig",
    "CapacityProviderConfig",
    "DurableConfig",
    "RuntimeConfig",
    "AcceleratorConfig",
    "PublishTo",
)
_ENVIRONMENT_BYTES: Final = LIMITS["function_environment_bytes"].default

Available = Callable[[str], str]


def refuse_unknown(request: dict[str, Any]) -> None:
    """Raises ServiceError naming the first setting that is not honoured here."""
    for member in _NOT_HERE:
        value = request.get(member)
        if value not in (None, "", [], {}) and not (isinstance(value, dict) and not any(value.values())):
            raise unsupported(member)


def created(
    request: dict[str, Any], *, name: str, available: Available, now_ms: int, revision_id: str, number: int
) -> Configuration:
    """The configuration that CreateFunction asks for, its code left open. Raises ServiceError."""
    if request.get("PackageType", "Zip") != "Zip":
        raise unsupported("PackageType Image", "functions run from zip archives; container images are not unpacked")
    refuse_unknown(request)
    runtime, handler = request.get("Runtime") or "", request.get("Handler") or ""
    if runtime:
        check_runtime(runtime)
    if not runtime or not (handler or runtime.startswith("provided")):
        raise invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
    blank = Configuration(
        name=name,
        number=number,
        revision_id=revision_id,
        modified_at_ms=now_ms,
        runtime=runtime,
        role=request.get("Role") or "",
        handler=handler,
        logging=Logging(f"/aws/lambda/{name}"),
        architecture=_architecture(request, "x86_64" if not _is_arm() else "arm64", runtime),
        code="",
        zip="",
        code_bytes=0,
        code_unzipped_bytes=0,
    )
    return _merged(blank, request, available)


def changed(before: Configuration, request: dict[str, Any], *, available: Available) -> Configuration:
    """The configuration after UpdateFunctionConfiguration: what is not said stays. Raises ServiceError."""
    refuse_unknown(request)
    if request.get("Runtime"):
        check_runtime(request["Runtime"])
    return _merged(before, request, available)


def _merged(before: Configuration, request: dict[str, Any], available: Available) -> Configuration:
    changes = _sizes(request)
    for member, field in (("Runtime", "runtime"), ("Role", "role"), ("Handler", "handler")):
        if request.get(member):
            changes[field] = request[member]
    if request.get("Description") is not None:
        changes["description"] = _text(request, "Description", 256)
    if request.get("Environment") is not None:
        changes["environment"] = _environment(request["Environment"])
    if request.get("VpcConfig") is not None:
        changes["has_vpc"] = _no_vpc(request["VpcConfig"])
    if request.get("LoggingConfig"):
        changes["logging"] = _logging(before.logging, request["LoggingConfig"])
    target = (request.get("DeadLetterConfig") or {}).get("TargetArn")
    if target is not None:
        changes["dead_letter"] = target
    for member, key, field, allowed in _CHOICES:
        value = (request.get(member) or {}).get(key)
        if value:
            changes[field] = _one_of(value, f"{_lower(member)}.{_lower(key)}", allowed)
    after = msgspec.structs.replace(before, **changes)
    missing = available(after.runtime) if changes.get("runtime", before.runtime) != before.runtime or not before.code else ""
    if missing:
        raise invalid(missing)
    return after


_CHOICES: Final = (
    ("TracingConfig", "Mode", "tracing", ("Active", "PassThrough")),
    ("SnapStart", "ApplyOn", "snap_start", ("PublishedVersions", "None")),
)


def _sizes(request: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if request.get("Timeout") is not None:
        changes["timeout_seconds"] = _whole(request["Timeout"], "timeout", 1, LIMITS["function_timeout_seconds_max"].default)
    if request.get("MemorySize") is not None:
        changes["memory_mb"] = _whole(request["MemorySize"], "memorySize", 128, LIMITS["function_memory_mb_max"].default)
    if request.get("EphemeralStorage"):
        size = request["EphemeralStorage"].get("Size", 512)
        changes["tmp_mb"] = _whole(size, "ephemeralStorage.size", 512, LIMITS["function_tmp_mb_max"].default)
    return changes


def _lower(member: str) -> str:
    return member[0].lower() + member[1:]


def _whole(value: Any, place: str, least: int, most: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise invalid(f"Value '{value}' at '{place}' failed to satisfy constraint: Member must be a whole number") from None
    if not least <= number <= most:
        bound = f"greater than or equal to {least}" if number < least else f"less than or equal to {most}"
        raise invalid(
            f"1 validation error detected: Value '{number}' at '{place}' failed to satisfy constraint: "
            f"Member must have value {bound}"
        )
    return number


def _text(request: dict[str, Any], member: str, most: int) -> str:
    text = str(request[member])
    if len(text) > most:
        raise invalid(
            f"1 validation error detected: Value '{text}' at '{_lower(member)}' failed to satisfy constraint: "
            f"Member must have length less than or equal to {most}"
        )
    return text


def _one_of(value: str, place: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise invalid(
            f"1 validation error detected: Value '{value}' at '{place}' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(allowed)}]"
        )
    return value


def _is_arm() -> bool:
    return platform.machine() in ("arm64", "aarch64")


def _architecture(request: dict[str, Any], before: str, runtime: str) -> str:
    """Interpreted code runs on whatever processor is here; a program built for another one does not."""
    wanted = request.get("Architectures") or [before]
    own = "arm64" if _is_arm() else "x86_64"
    if wanted[0] != own and not runtime.startswith(INTERPRETED):
        raise invalid(f"Architectures: {wanted[0]} programs do not run on this host, which is {own}.")
    return str(wanted[0])


def rebuilt_for(before: Configuration, request: dict[str, Any]) -> str:
    """The architecture after UpdateFunctionCode."""
    return _architecture(request, before.architecture, before.runtime)


def _environment(given: dict[str, Any]) -> dict[str, str] | None:
    """The variables, or None when nothing is said. Raises ServiceError for reserved names and more than 4 KB."""
    variables = given.get("Variables")
    if variables is None:
        return None
    start = "Lambda was unable to configure your environment variables because the environment variables you have provided"
    taken = [name for name in variables if name in RESERVED_KEYS]
    if taken:
        raise invalid(
            f"{start} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(taken)}"
        )
    measured = msgspec.json.encode(variables)
    if len(measured) > _ENVIRONMENT_BYTES:
        raise invalid(f"{start} exceeded the 4KB limit. String measured: {measured.decode()}")
    return {str(name): str(value) for name, value in variables.items()}


def _no_vpc(given: dict[str, Any]) -> bool:
    """There are no subnets and security groups here: those that are named do not exist."""
    for kind, code, member, what in (
        ("DescribeSubnets", "InvalidSubnetID", "SubnetIds", "subnet ID"),
        ("DescribeSecurityGroups", "InvalidGroup", "SecurityGroupIds", "security group"),
    ):
        for one in given.get(member) or ():
            raise invalid(
                f"Error occurred while {kind}. EC2 Error Code: {code}.NotFound. "
                f"EC2 Error Message: The {what} '{one}' does not exist"
            )
    return True


def _logging(before: Logging, given: dict[str, Any]) -> Logging:
    form = given.get("LogFormat") or before.format
    group = given.get("LogGroup") or before.group
    levels = given.get("ApplicationLogLevel"), given.get("SystemLogLevel")
    if form == "Text":
        if any(levels):
            raise invalid(
                "Log level is not supported when LogFormat is set to TEXT. Remove log level from your request or change the "
                "LogFormat to JSON and try again."
            )
        return Logging(group)
    application, system = levels[0] or before.application_level or "INFO", levels[1] or before.system_level or "INFO"
    return Logging(group, form, application, system)


def check_sizes(configuration: Configuration, layers_bytes: int) -> None:
    """Code and layers together, unzipped."""
    most = LIMITS["code_bytes"].default
    total = configuration.code_unzipped_bytes + layers_bytes
    if total > most:
        raise invalid(
            f"Function code combined with layers exceeds the maximum allowed size of {most} bytes. "
            f"The actual size is {total} bytes."
        )


# --- into answers


def stamp(at_ms: int) -> str:
    """A time as Lambda writes it: 2024-01-02T03:04:05.678+0000."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at_ms % 1000:03d}+0000"


def listed(configuration: Configuration, arn: str) -> dict[str, Any]:
    """FunctionConfiguration as in lists: without states."""
    one = configuration
    body: dict[str, Any] = {
        "FunctionName": one.name,
        "FunctionArn": arn,
        "Runtime": one.runtime,
        "Role": one.role,
        "Handler": one.handler,
        "CodeSize": one.code_bytes,
        "Description": one.description,
        "Timeout": one.timeout_seconds,
        "MemorySize": one.memory_mb,
        "LastModified": stamp(one.modified_at_ms),
        "CodeSha256": base64.b64encode(bytes.fromhex(one.zip)).decode(),
        "Version": one.version,
        "TracingConfig": {"Mode": one.tracing},
        "RevisionId": one.revision_id,
        "PackageType": "Zip",
        "Architectures": [one.architecture],
        "EphemeralStorage": {"Size": one.tmp_mb},
        "SnapStart": {"ApplyOn": one.snap_start, "OptimizationStatus": _optimized(one)},
        "LoggingConfig": _shown(one.logging),
    }
    if one.environment is not None:
        body["Environment"] = {"Variables": one.environment}
    if one.layers:
        body["Layers"] = [{"Arn": layer.arn, "CodeSize": layer.size} for layer in one.layers]
    if one.dead_letter:
        body["DeadLetterConfig"] = {"TargetArn": one.dead_letter}
    if one.has_vpc:
        body["VpcConfig"] = {"SubnetIds": [], "SecurityGroupIds": [], "VpcId": "", "Ipv6AllowedForDualStack": False}
    return body


def described(configuration: Configuration, arn: str) -> dict[str, Any]:
    """FunctionConfiguration with its states."""
    body = listed(configuration, arn)
    digest = hashlib.sha256(f"martlet {configuration.runtime} {configuration.architecture}".encode()).hexdigest()
    region = arn.split(":")[3]
    body["RuntimeVersionConfig"] = {"RuntimeVersionArn": f"arn:aws:lambda:{region}::runtime:{digest}"}
    body["State"] = configuration.state
    if configuration.state == "Pending":
        body.update(StateReason=CREATING, StateReasonCode="Creating")
    if configuration.update:
        body["LastUpdateStatus"] = configuration.update
    if configuration.update == "InProgress":
        body.update(LastUpdateStatusReason=CREATING, LastUpdateStatusReasonCode="Creating")
    if configuration.problem:
        body.update(LastUpdateStatusReason=configuration.problem, LastUpdateStatusReasonCode="InternalError")
        if configuration.state == "Failed":
            body.update(StateReason=configuration.problem, StateReasonCode="InternalError")
    return body


def _optimized(one: Configuration) -> str:
    return "On" if one.version != LATEST and one.snap_start != "None" and one.state == "Active" else "Off"


def _shown(logging: Logging) -> dict[str, str]:
    body = {"LogFormat": logging.format, "LogGroup": logging.group}
    if logging.format == "JSON":
        body.update(ApplicationLogLevel=logging.application_level, SystemLogLevel=logging.system_level)
    return body


def runnable(one: Configuration, *, app: str, region: str, egress: Any, provisioned: int = 0) -> FunctionVersion:
    """The version as instances run it."""
    environment = dict(one.environment or {})
    if one.logging.format == "JSON":
        environment |= {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": one.logging.application_level}
    is_json = one.logging.format == "JSON"
    config = FunctionConfig(
        name=one.name,
        handler=one.handler,
        runtime=one.runtime,
        layers=tuple(layer.address for layer in one.layers),
        memory_mb=one.memory_mb,
        timeout_seconds=float(one.timeout_seconds),
        tmp_mb=one.tmp_mb,
        log_format="JSON" if is_json else "Text",
        log_level=one.logging.application_level if is_json else "",
        system_log_level=one.logging.system_level if is_json else "",
        provisioned=provisioned,
        environment=environment,
        egress=egress,
        description=one.description,
    )
    return FunctionVersion(
        name=one.name,
        app=app,
        version=one.number,
        config=config,
        code=one.code,
        created_at_ms=one.modified_at_ms,
        qualifier=one.version,
        region=region,
        role=one.role,
    )


def arn_of(name: str, region: str, qualifier: str = "") -> str:
    arn = f"arn:aws:lambda:{region}:{ACCOUNT}:function:{name}"
    return f"{arn}:{qualifier}" if qualifier else arn
