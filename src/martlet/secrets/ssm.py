"""The operations of Systems Manager's Parameter Store, from request to answer as dicts. Errors are `ServiceError`.

Source: API reference of AWS Systems Manager, 2014-11-06. Every value is sealed, those of the type String as well; policies of
parameters and references to secrets (/aws/reference/secretsmanager/) are refused by name.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import re2

from martlet.auth import authorize
from martlet.errors import ServiceError, Unsupported
from martlet.secrets import rows
from martlet.secrets.rows import Caller, Parameter
from martlet.secrets.vault import Vault
from martlet.store import Reader, Store, Tx, keys
from martlet.types import ACCOUNT

__all__ = ["Ssm"]

_NEWEST: Final = "secrets.parameter"
_VERSION: Final = "secrets.parameter.version"
_VALUE: Final = "secrets.parameter.value"  # (.., name, version) -> sealed value
_TYPES: Final = ("String", "StringList", "SecureString")
_NAME = re.compile(r"[A-Za-z0-9_.\-/]+")
_ARN = re.compile(r"arn:aws:ssm:[a-z0-9-]*:[0-9]*:parameter(?P<name>/.+)")
_LABEL = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]{0,99}")
_BYTES_MAX: Final = {"Standard": 4_096, "Advanced": 8_192}
_HISTORY_MAX: Final = 100
_LABELS_MAX: Final = 10
_LEVELS_MAX: Final = 15
_NAME_MAX: Final = 1_011
_TAGS_MAX: Final = 50
# What a caller must be allowed on everything, as its answer is no single parameter's.
_WIDE: Final = frozenset({"DescribeParameters"})


class Ssm:
    """The service "ssm", as far as parameters go."""

    def __init__(self, store: Store, vault: Vault, region: str = "us-east-1") -> None:
        self._store = store
        self._vault = vault
        self._region = region

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str] | None:
        """(action, resource) that a caller needs; None for several names: each is asked for by itself."""
        action = f"ssm:{operation}"
        if operation in _WIDE:
            return action, "*"
        if "Names" in request:
            return None
        name = str(request.get("Name") or request.get("Path") or request.get("ResourceId") or "")
        return action, self._arn(_bare(name)[0])

    def _arn(self, name: str) -> str:
        return f"arn:aws:ssm:{self._region}:{ACCOUNT}:parameter{'' if name.startswith('/') else '/'}{name}"

    # --- writing

    async def put_parameter(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name, value = str(request["Name"]), str(request["Value"])
        _check_name(name)
        if request.get("Policies"):
            raise Unsupported("PutParameter: the parameter Policies is not supported")
        if str(request.get("DataType", "text")) != "text":
            raise Unsupported(f"PutParameter: the DataType {request['DataType']} is not supported")
        tier = _tier(request, value)
        tags = _tags(request)
        if tags and request.get("Overwrite"):
            raise _fault("ValidationException", "Invalid request: tags and overwrite can't be used together.")
        await self._vault.open()

        def put(tx: Tx) -> Parameter:
            before: Parameter | None = rows.find(tx, _NEWEST, name)
            if before is not None and not request.get("Overwrite"):
                raise _fault(
                    "ParameterAlreadyExists",
                    "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.",
                )
            kind = str(request.get("Type") or (before.type if before is not None else ""))
            if kind not in _TYPES:
                raise _fault("ValidationException", "A parameter type is required when you create a parameter.")
            pattern = str(request.get("AllowedPattern", ""))
            _check_pattern(name, pattern, value)
            made = Parameter(
                name=name,
                type=kind,
                version=before.version + 1 if before is not None else 1,
                changed_at_ms=tx.now_ms,
                changed_by=_who(caller),
                description=str(request.get("Description", before.description if before is not None else "")),
                allowed_pattern=pattern,
                tier=tier,
                key_id=str(request.get("KeyId") or "alias/aws/ssm") if kind == "SecureString" else "",
                tags=before.tags if before is not None else tags,
            )
            self._forget_oldest(tx, name, made.version)
            _keep(tx, made)
            tx.put(keys.encode(_VALUE, name, made.version), self._vault.seal(value.encode(), name, str(made.version)))
            return made

        made = await self._store.transact(put)
        return {"Version": made.version, "Tier": made.tier}

    @staticmethod
    def _forget_oldest(tx: Tx, name: str, version: int) -> None:
        oldest = version - _HISTORY_MAX
        found: Parameter | None = rows.find(tx, _VERSION, name, oldest) if oldest > 0 else None
        if found is None:
            return
        if found.labels:
            raise _fault(
                "ParameterMaxVersionLimitExceeded",
                f"You attempted to create a new version of {name} by calling the PutParameter API with the overwrite "
                f"flag. Version {oldest}, the oldest version, can't be deleted because it has a label associated with it. "
                "Move the label to another version of the parameter, and try again.",
            )
        _forget_version(tx, name, oldest)

    async def delete_parameter(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name = str(request["Name"])

        def delete(tx: Tx) -> None:
            _need(tx, name)
            _delete(tx, name)

        await self._store.transact(delete)
        return {}

    async def delete_parameters(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        names = [str(one) for one in request["Names"]]
        self._authorize_each(caller, "DeleteParameters", names)

        def delete(tx: Tx) -> dict[str, Any]:
            there = [name for name in dict.fromkeys(names) if rows.find(tx, _NEWEST, name) is not None]
            for name in there:
                _delete(tx, name)
            return {"DeletedParameters": there, "InvalidParameters": [name for name in names if name not in there]}

        return await self._store.transact(delete)

    async def label_parameter_version(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name, labels = str(request["Name"]), [str(one) for one in request["Labels"]]
        bad = [one for one in labels if not _LABEL.fullmatch(one) or one.lower().startswith(("aws", "ssm"))]

        def label(tx: Tx) -> dict[str, Any]:
            newest = _need(tx, name)
            number = int(request.get("ParameterVersion") or newest.version)
            target: Parameter | None = rows.find(tx, _VERSION, name, number)
            if target is None:
                raise _fault("ParameterVersionNotFound", f"Systems Manager could not find version {number} of {name}.")
            good = [one for one in labels if one not in bad]
            both = tuple(dict.fromkeys((*target.labels, *good)))
            if len(both) > _LABELS_MAX:
                raise _fault("ParameterVersionLabelLimitExceeded", f"A version can have at most {_LABELS_MAX} labels.")
            for other in list(rows.every(tx, _VERSION, name)):
                if other.version != number and set(other.labels) & set(good):
                    kept = tuple(one for one in other.labels if one not in good)
                    _keep(tx, msgspec.structs.replace(other, labels=kept), is_newest=other.version == newest.version)
            _keep(tx, msgspec.structs.replace(target, labels=both), is_newest=number == newest.version)
            return {"InvalidLabels": bad, "ParameterVersion": number}

        return await self._store.transact(label)

    # --- reading

    async def get_parameter(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        await self._vault.open()
        name, decrypt = str(request["Name"]), bool(request.get("WithDecryption"))
        return self._store.read(
            lambda reader: {"Parameter": self._told(reader, _selected(reader, name), caller, decrypt, name)}
        )

    async def get_parameters(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        await self._vault.open()
        names, decrypt = [str(one) for one in request["Names"]], bool(request.get("WithDecryption"))
        self._authorize_each(caller, "GetParameters", names)

        def read(reader: Reader) -> dict[str, Any]:
            found: list[dict[str, Any]] = []
            missing: list[str] = []
            for name in names:
                try:
                    found.append(self._told(reader, _selected(reader, name), caller, decrypt, name))
                except ServiceError:
                    missing.append(name)
            return {"Parameters": found, "InvalidParameters": missing}

        return self._store.read(read)

    async def get_parameters_by_path(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        path = str(request["Path"])
        if not path.startswith("/"):
            raise _fault("ValidationException", "The parameter path must begin with /.")
        if request.get("ParameterFilters"):
            raise Unsupported("GetParametersByPath: the parameter ParameterFilters is not supported")
        await self._vault.open()
        below, recursive, decrypt = path.rstrip("/") + "/", bool(request.get("Recursive")), bool(request.get("WithDecryption"))

        def wanted(one: Parameter) -> bool:
            return one.name.startswith(below) and (recursive or "/" not in one.name[len(below) :])

        return self._page(request, 10, "Parameters", wanted, lambda reader, one: self._told(reader, one, caller, decrypt, ""))

    async def get_parameter_history(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        name, decrypt = str(request["Name"]), bool(request.get("WithDecryption"))
        most, after = int(request.get("MaxResults", 50)), _whole(request.get("NextToken"))
        await self._vault.open()

        def read(reader: Reader) -> dict[str, Any]:
            _need(reader, name)
            found = [one for one in rows.every(reader, _VERSION, name) if one.version > after]
            told = [
                {**_described(one, caller), "Value": self._value(reader, one, decrypt), "Labels": list(one.labels)}
                for one in found[:most]
            ]
            return {"Parameters": told, **({"NextToken": str(found[most - 1].version)} if len(found) > most else {})}

        return self._store.read(read)

    async def describe_parameters(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        tests = [_filter(one) for one in (*(request.get("ParameterFilters") or ()), *(request.get("Filters") or ()))]
        return self._page(
            request,
            50,
            "Parameters",
            lambda one: all(test(one) for test in tests),
            lambda reader, one: _described(one, caller),
        )

    def _page(
        self,
        request: dict[str, Any],
        default: int,
        member: str,
        wanted: Callable[[Parameter], bool],
        show: Callable[[Reader, Parameter], dict[str, Any]],
    ) -> dict[str, Any]:
        most, after = int(request.get("MaxResults", default)), str(request.get("NextToken", ""))

        def read(reader: Reader) -> dict[str, Any]:
            found: list[Parameter] = []
            for one in rows.every(reader, _NEWEST, after=(after,) if after else ()):
                if wanted(one):
                    if len(found) == most:
                        return {member: [show(reader, each) for each in found], "NextToken": found[-1].name}
                    found.append(one)
            return {member: [show(reader, each) for each in found]}

        return self._store.read(read)

    def _told(self, reader: Reader, one: Parameter, caller: Caller, decrypt: bool, asked: str) -> dict[str, Any]:
        selector = _bare(asked)[1]
        told = {
            "Name": one.name,
            "Type": one.type,
            "Value": self._value(reader, one, decrypt),
            "Version": one.version,
            "LastModifiedDate": _when(one.changed_at_ms),
            "ARN": one.arn(caller.region, caller.account),
            "DataType": one.data_type,
        }
        return {**told, "Selector": f":{selector}"} if selector else told

    def _value(self, reader: Reader, one: Parameter, decrypt: bool) -> str:
        """Without decryption a SecureString is shown as it is kept."""
        sealed = reader.get(keys.encode(_VALUE, one.name, one.version))
        if sealed is None:
            raise _fault("ParameterNotFound", "")
        if one.type == "SecureString" and not decrypt:
            return base64.b64encode(sealed).decode()
        return self._vault.unseal(sealed, one.name, str(one.version)).decode()

    def _authorize_each(self, caller: Caller, operation: str, names: list[str]) -> None:
        for name in names:
            authorize(caller.principal, f"ssm:{operation}", self._arn(_bare(name)[0]))

    # --- tags

    async def add_tags_to_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        added = _tags(request)

        def add(tx: Tx) -> None:
            one = _tagged(tx, request)
            tags = {**one.tags, **added}
            if len(tags) > _TAGS_MAX:
                raise _fault("TooManyTagsError", f"A parameter can have at most {_TAGS_MAX} tags.")
            rows.keep(tx, _NEWEST, msgspec.structs.replace(one, tags=tags), one.name)

        await self._store.transact(add)
        return {}

    async def remove_tags_from_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])

        def remove(tx: Tx) -> None:
            one = _tagged(tx, request)
            tags = {key: text for key, text in one.tags.items() if key not in gone}
            rows.keep(tx, _NEWEST, msgspec.structs.replace(one, tags=tags), one.name)

        await self._store.transact(remove)
        return {}

    async def list_tags_for_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        one = self._store.read(lambda reader: _tagged(reader, request))
        return {"TagList": [{"Key": key, "Value": text} for key, text in one.tags.items()]}


def _fault(name: str, message: str) -> ServiceError:
    return ServiceError(name, message)


def _bare(asked: str) -> tuple[str, str]:
    """(name, version or label) of "name", "name:3", "name:label" or an ARN."""
    arn = _ARN.fullmatch(asked)
    if arn is not None:
        name, _, selector = arn["name"].partition(":")
        return name, selector
    name, _, selector = asked.partition(":")
    return name, selector


def _selected(reader: Reader, asked: str) -> Parameter:
    name, selector = _bare(asked)
    newest: Parameter | None = rows.find(reader, _NEWEST, name)
    if newest is None and asked.startswith("arn:"):  # the ARN of "name" is that of "/name" too
        newest = rows.find(reader, _NEWEST, name.removeprefix("/"))
    if newest is None:
        raise _fault("ParameterNotFound", "")
    if not selector:
        return newest
    if selector.isdecimal():
        found: Parameter | None = rows.find(reader, _VERSION, newest.name, int(selector))
    else:
        found = next((one for one in rows.every(reader, _VERSION, newest.name) if selector in one.labels), None)
    if found is None:
        raise _fault(
            "ParameterVersionNotFound",
            f"Systems Manager could not find version {selector} of {newest.name}. Verify the version and try again.",
        )
    return found


def _need(reader: Reader, name: str) -> Parameter:
    found: Parameter | None = rows.find(reader, _NEWEST, name)
    if found is None:
        raise _fault("ParameterNotFound", "")
    return found


def _tagged(reader: Reader, request: dict[str, Any]) -> Parameter:
    if request["ResourceType"] != "Parameter":
        raise Unsupported(f"tags of the resource type {request['ResourceType']} are not supported")
    found: Parameter | None = rows.find(reader, _NEWEST, str(request["ResourceId"]))
    if found is None:
        raise _fault("InvalidResourceId", "The resource ID isn't valid. Verify that you entered the correct ID and try again.")
    return found


def _keep(tx: Tx, one: Parameter, *, is_newest: bool = True) -> None:
    rows.keep(tx, _VERSION, one, one.name, one.version)
    if is_newest:
        before: Parameter | None = rows.find(tx, _NEWEST, one.name)
        tags = one.tags if before is None else before.tags
        rows.keep(tx, _NEWEST, msgspec.structs.replace(one, tags=tags), one.name)


def _delete(tx: Tx, name: str) -> None:
    for one in list(rows.every(tx, _VERSION, name)):
        _forget_version(tx, name, one.version)
    rows.forget(tx, _NEWEST, name)


def _forget_version(tx: Tx, name: str, version: int) -> None:
    rows.forget(tx, _VERSION, name, version)
    tx.delete(keys.encode(_VALUE, name, version))


def _check_name(name: str) -> None:
    low = name.lower().lstrip("/")
    if low.startswith(("aws", "ssm")):
        raise _fault("ValidationException", 'Parameter name: can\'t be prefixed with "aws" or "ssm" (case-insensitive).')
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX or name.endswith("/") or "//" in name:
        raise _fault(
            "ValidationException",
            "Parameter name must be a fully qualified name: only a mix of letters, numbers and the following 4 symbols .-_/",
        )
    if "/" in name and not name.startswith("/"):
        raise _fault("ValidationException", "Parameter name must be a fully qualified name.")
    if name.count("/") > _LEVELS_MAX:
        raise _fault("HierarchyLevelLimitExceededException", f"A hierarchy can have a maximum of {_LEVELS_MAX} levels.")


def _check_pattern(name: str, pattern: str, value: str) -> None:
    if not pattern:
        return
    try:
        matched = re2.fullmatch(pattern, value)
    except re2.error:
        raise _fault("InvalidAllowedPatternException", "The AllowedPattern is not a valid regular expression.") from None
    if matched is None:
        message = f"Parameter value, cannot be validated against allowedPattern: {pattern}"
        raise _fault("ParameterPatternMismatchException", message)


def _tier(request: dict[str, Any], value: str) -> str:
    size, asked = len(value.encode()), str(request.get("Tier", "Standard"))
    tier = ("Advanced" if size > _BYTES_MAX["Standard"] else "Standard") if asked == "Intelligent-Tiering" else asked
    if not size:
        raise _fault("ValidationException", "The value of a parameter must not be empty.")
    if size > _BYTES_MAX.get(tier, 0):
        raise _fault(
            "ValidationException",
            f"{tier} tier parameters support a maximum parameter value of {_BYTES_MAX.get(tier, 0)} characters.",
        )
    return tier


def _tags(request: dict[str, Any]) -> dict[str, str]:
    return {str(one["Key"]): str(one["Value"]) for one in request.get("Tags") or ()}


def _filter(given: dict[str, Any]) -> Callable[[Parameter], bool]:
    key, option = str(given.get("Key")), str(given.get("Option", ""))
    values = [str(one) for one in given.get("Values") or ()]
    if key not in ("Name", "Type", "Path") or option not in ("", "Equals", "BeginsWith", "Contains", "Recursive", "OneLevel"):
        raise Unsupported(f"DescribeParameters: the filter {key} {option} is not supported".rstrip())

    def test(one: Parameter) -> bool:
        if key == "Type":
            return one.type in values
        if key == "Path":
            below = [value.rstrip("/") + "/" for value in values]
            return any(
                one.name.startswith(path) and (option == "Recursive" or "/" not in one.name[len(path) :]) for path in below
            )
        if option == "BeginsWith":
            return one.name.startswith(tuple(values))
        return any(value in one.name for value in values) if option == "Contains" else one.name in values

    return test


def _described(one: Parameter, caller: Caller) -> dict[str, Any]:
    told: dict[str, Any] = {
        "Name": one.name,
        "ARN": one.arn(caller.region, caller.account),
        "Type": one.type,
        "LastModifiedDate": _when(one.changed_at_ms),
        "LastModifiedUser": one.changed_by,
        "Version": one.version,
        "Tier": one.tier,
        "Policies": [],
        "DataType": one.data_type,
    }
    optional = (("Description", one.description), ("AllowedPattern", one.allowed_pattern), ("KeyId", one.key_id))
    return {**told, **{name: text for name, text in optional if text}}


def _who(caller: Caller) -> str:
    standing = caller.principal.standing
    if standing is not None:
        return str(standing.arn)
    kind, name = caller.principal.kind, caller.principal.name
    return (
        f"arn:aws:iam::{caller.account}:root" if kind == "root" else f"arn:aws:sts::{caller.account}:assumed-role/{name}/{name}"
    )


def _whole(text: Any) -> int:
    return int(text) if str(text or "").isdecimal() else 0


def _when(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
