"""The operations of AWS Secrets Manager, from request to answer as dicts in the API's own members. Errors are `ServiceError`.

Source: API reference of AWS Secrets Manager, 2017-10-17. Rotation, replication and resource policies are not here: their
operations are refused by name.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from martlet.clock import uuid4_text
from martlet.errors import ServiceError, Unsupported
from martlet.secrets import rows
from martlet.secrets.rows import Caller, Secret, Version
from martlet.secrets.vault import Vault
from martlet.store import Reader, Store, Tx, keys
from martlet.types import ACCOUNT

__all__ = ["Secrets", "random_password"]

_TABLE: Final = "secrets.secret"
_VALUE: Final = "secrets.value"  # (.., name, suffix, version) -> sealed value
_CURRENT, _PREVIOUS = "AWSCURRENT", "AWSPREVIOUS"
_BYTES_MAX: Final = 65_536
_VERSIONS_MAX: Final = 100
_TAGS_MAX: Final = 50
_DAY_MS: Final = 86_400_000
_NAME = re.compile(r"[A-Za-z0-9/_+=.@-]{1,512}")
_ARN = re.compile(r"arn:aws:secretsmanager:[a-z0-9-]*:[0-9]*:secret:(?P<name>.+)")
_NOT_FOUND: Final = "Secrets Manager can't find the specified secret."
_MARKED: Final = "You can't perform this operation on the secret because it was marked for deletion."
_PUNCTUATION: Final = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
# Names of actions where they are not the operation's.
_SELF: Final = frozenset({"ListSecrets", "GetRandomPassword", "BatchGetSecretValue"})


class Secrets:
    """The service "secretsmanager". `random` gives that many random bytes."""

    def __init__(self, store: Store, vault: Vault, random: Callable[[int], bytes], region: str = "us-east-1") -> None:
        self._store = store
        self._vault = vault
        self._random = random
        self._region = region

    def permission(self, operation: str, request: dict[str, Any]) -> tuple[str, str]:
        """(action, resource) that a caller needs."""
        action = f"secretsmanager:{operation}"
        if operation in _SELF:
            return action, "*"
        wanted = str(request.get("SecretId") or request.get("Name") or "")
        secret = self._store.read(lambda reader: _find(reader, wanted))
        if secret is not None:
            return action, secret.arn(self._region, ACCOUNT)
        return action, wanted if _ARN.fullmatch(
            wanted
        ) else f"arn:aws:secretsmanager:{self._region}:{ACCOUNT}:secret:{wanted}-??????"

    # --- values

    async def create_secret(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("AddReplicaRegions"):
            raise Unsupported("CreateSecret: the parameter AddReplicaRegions is not supported")
        name, value = str(request["Name"]), _value_of(request)
        if not _NAME.fullmatch(name):
            raise _invalid(
                "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!"
            )
        tags = _tags(request)
        await self._vault.open()
        suffix = "".join(string.ascii_letters[byte % 52] for byte in self._random(6))
        token = str(request.get("ClientRequestToken") or uuid4_text())

        def create(tx: Tx) -> Secret:
            there = rows.find(tx, _TABLE, name)
            if there is not None:
                if there.deleted_at_ms and not _is_over(there, tx.now_ms):
                    raise _bad_state(
                        "You can't create this secret because a secret with this name is already scheduled for deletion."
                    )
                if not there.deleted_at_ms:
                    raise ServiceError(
                        "ResourceExistsException", f"The operation failed because the secret {name} already exists."
                    )
                self._purge(tx, there)
            secret = Secret(
                name=name,
                suffix=suffix,
                created_at_ms=tx.now_ms,
                changed_at_ms=tx.now_ms,
                description=str(request.get("Description", "")),
                kms_key=str(request.get("KmsKeyId", "")),
                tags=tags,
            )
            return self._put(tx, secret, value, token, (_CURRENT,)) if value is not None else _kept(tx, secret)

        secret = await self._store.transact(create)
        return {**_named(secret, caller), **({"VersionId": token} if value is not None else {})}

    async def put_secret_value(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        value = _value_of(request)
        if value is None:
            raise _invalid("You must provide either SecretString or SecretBinary.")
        token = str(request.get("ClientRequestToken") or uuid4_text())
        stages = tuple(str(one) for one in request.get("VersionStages") or (_CURRENT,))
        await self._vault.open()
        secret = await self._store.transact(lambda tx: self._put(tx, _need(tx, request), value, token, stages))
        version = next(one for one in secret.versions if one.id == token)
        return {**_named(secret, caller), "VersionId": token, "VersionStages": list(version.stages)}

    async def update_secret(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        value = _value_of(request)
        token = str(request.get("ClientRequestToken") or uuid4_text())
        await self._vault.open()

        def update(tx: Tx) -> Secret:
            secret = _need(tx, request)
            described = str(request.get("Description", secret.description))
            kms_key = str(request.get("KmsKeyId", secret.kms_key))
            changed = msgspec.structs.replace(secret, description=described, kms_key=kms_key, changed_at_ms=tx.now_ms)
            return _kept(tx, changed) if value is None else self._put(tx, changed, value, token, (_CURRENT,))

        secret = await self._store.transact(update)
        return {**_named(secret, caller), **({"VersionId": token} if value is not None else {})}

    async def get_secret_value(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        await self._vault.open()
        return self._store.read(lambda reader: self._told(reader, caller, request))

    def _told(self, reader: Reader, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        secret = _need(reader, request)
        version = _version(secret, request)
        sealed = reader.get(keys.encode(_VALUE, secret.name, secret.suffix, version.id))
        if sealed is None:
            raise _missing(_NOT_FOUND)
        value = self._vault.unseal(sealed, secret.suffix, secret.name, version.id)
        told = {"SecretBinary": value} if version.is_binary else {"SecretString": value.decode()}
        return {
            **_named(secret, caller),
            "VersionId": version.id,
            **told,
            "VersionStages": list(version.stages),
            "CreatedDate": _when(version.created_at_ms),
        }

    async def update_secret_version_stage(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        stage, to, gone = str(request["VersionStage"]), request.get("MoveToVersionId"), request.get("RemoveFromVersionId")

        def move(tx: Tx) -> Secret:
            secret = _need(tx, request)
            holder = next((one.id for one in secret.versions if stage in one.stages), None)
            known = {one.id for one in secret.versions}
            if (to and to not in known) or (gone and gone not in known):
                raise _missing(_NOT_FOUND)
            if gone and gone != holder:
                raise _invalid(f"The staging label {stage} is not attached to version {gone}.")
            if holder is not None and holder not in (gone, to):
                raise _invalid(f"The staging label {stage} is currently attached to version {holder}: name it to remove it.")
            if stage == _CURRENT and not to:
                raise _invalid("You can't remove the staging label AWSCURRENT: move it to another version.")
            versions = _moved(secret.versions, stage, str(to)) if to else _without(secret.versions, stage)
            return _kept(tx, msgspec.structs.replace(secret, versions=versions, changed_at_ms=tx.now_ms))

        return _named(await self._store.transact(move), caller)

    def _put(self, tx: Tx, secret: Secret, value: tuple[bytes, bool], token: str, stages: tuple[str, ...]) -> Secret:
        """A new version; the same token again with the same value is the same request."""
        raw, is_binary = value
        row = keys.encode(_VALUE, secret.name, secret.suffix, token)
        if any(one.id == token for one in secret.versions):
            sealed = tx.get(row)
            if sealed is None or self._vault.unseal(sealed, secret.suffix, secret.name, token) != raw:
                raise ServiceError(
                    "ResourceExistsException",
                    f"You can't use ClientRequestToken {token} because that value is already in use for a version of secret "
                    f"{secret.arn(self._region, ACCOUNT)}.",
                )
            return secret
        versions = (*secret.versions, Version(id=token, created_at_ms=tx.now_ms, is_binary=is_binary))
        for stage in stages if secret.versions else dict.fromkeys((*stages, _CURRENT)):
            versions = _moved(versions, stage, token)
        for one in [one for one in versions if not one.stages][:-_VERSIONS_MAX]:
            tx.delete(keys.encode(_VALUE, secret.name, secret.suffix, one.id))
            versions = tuple(other for other in versions if other.id != one.id)
        tx.put(row, self._vault.seal(raw, secret.suffix, secret.name, token))
        return _kept(tx, msgspec.structs.replace(secret, versions=versions, changed_at_ms=tx.now_ms))

    # --- what describes them

    async def describe_secret(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return self._store.read(
            lambda reader: _described(_need(reader, request, marked=True), caller, stages="VersionIdsToStages")
        )

    async def list_secrets(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        most, after = int(request.get("MaxResults", 100)), str(request.get("NextToken", ""))
        tests = [_filter(one) for one in request.get("Filters") or ()]
        found: list[dict[str, Any]] = []

        def read(reader: Reader) -> dict[str, Any]:
            for secret in rows.every(reader, _TABLE, after=(after,) if after else ()):
                if secret.deleted_at_ms and not request.get("IncludePlannedDeletion"):
                    continue
                if all(test(secret) for test in tests):
                    if len(found) == most:
                        return {"SecretList": found, "NextToken": found[-1]["Name"]}
                    found.append(_described(secret, caller, stages="SecretVersionsToStages"))
            return {"SecretList": found}

        return self._store.read(read)

    async def list_secret_version_ids(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        secret = self._store.read(lambda reader: _need(reader, request, marked=True))
        shown = [one for one in secret.versions if one.stages or request.get("IncludeDeprecated")]
        versions = [
            {"VersionId": one.id, "VersionStages": list(one.stages), "CreatedDate": _when(one.created_at_ms)} for one in shown
        ]
        return {**_named(secret, caller), "Versions": versions}

    async def tag_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        added = _tags(request)

        def tag(tx: Tx) -> None:
            secret = _need(tx, request)
            tags = {**secret.tags, **added}
            if len(tags) > _TAGS_MAX:
                raise _invalid(f"A secret can have at most {_TAGS_MAX} tags.")
            _kept(tx, msgspec.structs.replace(secret, tags=tags))

        await self._store.transact(tag)
        return {}

    async def untag_resource(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])

        def untag(tx: Tx) -> None:
            secret = _need(tx, request)
            _kept(tx, msgspec.structs.replace(secret, tags={key: text for key, text in secret.tags.items() if key not in gone}))

        await self._store.transact(untag)
        return {}

    # --- the end

    async def delete_secret(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        force, days = bool(request.get("ForceDeleteWithoutRecovery")), request.get("RecoveryWindowInDays")
        if force and days is not None:
            raise _parameter("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
        if days is not None and not 7 <= int(days) <= 30:
            raise _parameter("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")

        def delete(tx: Tx) -> Secret:
            secret = _need(tx, request, marked=force)
            if force:
                self._purge(tx, secret)
                return msgspec.structs.replace(secret, deleted_at_ms=tx.now_ms, recovery_days=0)
            return _kept(tx, msgspec.structs.replace(secret, deleted_at_ms=tx.now_ms, recovery_days=int(days or 30)))

        secret = await self._store.transact(delete)
        return {**_named(secret, caller), "DeletionDate": _when(secret.deleted_at_ms + secret.recovery_days * _DAY_MS)}

    async def restore_secret(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        def restore(tx: Tx) -> Secret:
            return _kept(tx, msgspec.structs.replace(_need(tx, request, marked=True), deleted_at_ms=0))

        return _named(await self._store.transact(restore), caller)

    async def expire(self) -> None:
        """Secrets whose recovery window is over go, with their values."""

        def sweep(tx: Tx) -> None:
            for secret in list(rows.every(tx, _TABLE)):
                if secret.deleted_at_ms and _is_over(secret, tx.now_ms):
                    self._purge(tx, secret)

        await self._store.transact(sweep)

    @staticmethod
    def _purge(tx: Tx, secret: Secret) -> None:
        for version in secret.versions:
            tx.delete(keys.encode(_VALUE, secret.name, secret.suffix, version.id))
        rows.forget(tx, _TABLE, secret.name)

    async def get_random_password(self, caller: Caller, request: dict[str, Any]) -> dict[str, Any]:
        return {"RandomPassword": random_password(request, self._random)}


def random_password(request: dict[str, Any], random: Callable[[int], bytes]) -> str:
    """A password as GetRandomPassword's members ask for it. Raises `ServiceError`."""
    length = int(request.get("PasswordLength", 32))
    groups = [
        ("ExcludeLowercase", string.ascii_lowercase),
        ("ExcludeUppercase", string.ascii_uppercase),
        ("ExcludeNumbers", string.digits),
        ("ExcludePunctuation", _PUNCTUATION),
    ]
    without = set(str(request.get("ExcludeCharacters", "")))
    sets = ["".join(one for one in letters if one not in without) for name, letters in groups if not request.get(name)]
    sets = [one for one in ([*sets, " "] if request.get("IncludeSpace") else sets) if one]
    if not sets:
        raise _parameter("The password can't be made: every type of character is excluded.")
    each = request.get("RequireEachIncludedType", True)
    if not 1 <= length <= 4_096 or (each and length < len(sets)):
        raise _parameter("The password length is out of range for the types of characters that it must have.")
    everything = "".join(dict.fromkeys("".join(sets)))
    chosen = [_one_of(one, random) for one in sets] if each else []
    chosen += [_one_of(everything, random) for _ in range(length - len(chosen))]
    for at in range(len(chosen) - 1, 0, -1):  # so that the required ones are anywhere
        other = int.from_bytes(random(8), "big") % (at + 1)
        chosen[at], chosen[other] = chosen[other], chosen[at]
    return "".join(chosen)


def _one_of(letters: str, random: Callable[[int], bytes]) -> str:
    return letters[int.from_bytes(random(8), "big") % len(letters)]  # the bias is below 2^-57


def _value_of(request: dict[str, Any]) -> tuple[bytes, bool] | None:
    text, binary = request.get("SecretString"), request.get("SecretBinary")
    if text is not None and binary is not None:
        raise _parameter("You can't specify both a binary secret value and a string secret value in the same secret.")
    if text is None and binary is None:
        return None
    raw = str(text).encode() if text is not None else bytes(binary or b"")
    if len(raw) > _BYTES_MAX:
        raise _parameter(f"The secret value is larger than {_BYTES_MAX} bytes.")
    return raw, text is None


def _find(reader: Reader, wanted: str) -> Secret | None:
    """By name, by ARN, or by an ARN without its last six characters."""
    arn = _ARN.fullmatch(wanted)
    if arn is None:
        found: Secret | None = rows.find(reader, _TABLE, wanted)
        return found
    name, _, suffix = arn["name"].rpartition("-")
    whole: Secret | None = rows.find(reader, _TABLE, name) if name else None
    if whole is not None and whole.suffix == suffix:
        return whole
    partial: Secret | None = rows.find(reader, _TABLE, arn["name"])
    return partial


def _need(reader: Reader, request: dict[str, Any], *, marked: bool = False) -> Secret:
    secret = _find(reader, str(request["SecretId"]))
    if secret is None:
        raise _missing(_NOT_FOUND)
    if secret.deleted_at_ms and not marked:
        raise _bad_state(_MARKED)
    return secret


def _version(secret: Secret, request: dict[str, Any]) -> Version:
    id, stage = request.get("VersionId"), request.get("VersionStage")
    wanted = str(stage or ("" if id else _CURRENT))
    for one in secret.versions:
        if (not id or one.id == id) and (not wanted or wanted in one.stages):
            return one
    what = f"staging label: {wanted}" if wanted else f"VersionId: {id}"
    raise _missing(f"Secrets Manager can't find the specified secret value for {what}")


def _moved(versions: tuple[Version, ...], stage: str, to: str) -> tuple[Version, ...]:
    """`stage` on one version only; who loses AWSCURRENT becomes AWSPREVIOUS."""
    loser = next((one.id for one in versions if stage in one.stages and one.id != to), None)
    found = tuple(
        msgspec.structs.replace(one, stages=tuple(dict.fromkeys((*one.stages, stage)))) if one.id == to else one
        for one in _without(versions, stage, but=to)
    )
    return _moved(found, _PREVIOUS, loser) if stage == _CURRENT and loser is not None else found


def _without(versions: tuple[Version, ...], stage: str, but: str = "") -> tuple[Version, ...]:
    return tuple(
        one if one.id == but else msgspec.structs.replace(one, stages=tuple(other for other in one.stages if other != stage))
        for one in versions
    )


def _kept(tx: Tx, secret: Secret) -> Secret:
    rows.keep(tx, _TABLE, secret, secret.name)
    return secret


def _is_over(secret: Secret, now_ms: int) -> bool:
    return now_ms >= secret.deleted_at_ms + secret.recovery_days * _DAY_MS


def _tags(request: dict[str, Any]) -> dict[str, str]:
    return {str(one.get("Key", "")): str(one.get("Value", "")) for one in request.get("Tags") or ()}


def _filter(given: dict[str, Any]) -> Callable[[Secret], bool]:
    key, values = str(given.get("Key")), [str(one) for one in given.get("Values") or ()]
    wanted = [(one.removeprefix("!"), one.startswith("!")) for one in values]
    if key not in ("name", "description", "tag-key", "tag-value"):
        raise Unsupported(f"ListSecrets: the filter {key} is not supported")

    def test(secret: Secret) -> bool:
        texts = {
            "name": [secret.name],
            "description": [secret.description],
            "tag-key": list(secret.tags),
            "tag-value": list(secret.tags.values()),
        }[key]
        return any(any(text.startswith(value) for text in texts) != negated for value, negated in wanted)

    return test


def _named(secret: Secret, caller: Caller) -> dict[str, Any]:
    return {"ARN": secret.arn(caller.region, caller.account), "Name": secret.name}


def _described(secret: Secret, caller: Caller, *, stages: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        **_named(secret, caller),
        "LastChangedDate": _when(secret.changed_at_ms),
        "CreatedDate": _when(secret.created_at_ms),
        stages: {one.id: list(one.stages) for one in secret.versions if one.stages},
    }
    if secret.description:
        told["Description"] = secret.description
    if secret.kms_key:
        told["KmsKeyId"] = secret.kms_key
    if secret.tags:
        told["Tags"] = [{"Key": key, "Value": text} for key, text in secret.tags.items()]
    if secret.deleted_at_ms:
        told["DeletedDate"] = _when(secret.deleted_at_ms)
    return told


def _when(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _missing(message: str) -> ServiceError:
    return ServiceError("ResourceNotFoundException", message)


def _bad_state(message: str) -> ServiceError:
    return ServiceError("InvalidRequestException", message)


def _parameter(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)


_invalid = _parameter
