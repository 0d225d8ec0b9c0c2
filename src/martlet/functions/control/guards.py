"""What is checked before an operation does anything: who asks, and whether what is named can be honoured."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Final
from urllib.parse import parse_qs

from martlet.clock import token_hex
from martlet.errors import AccessDenied, ServiceError
from martlet.functions.control.desk import Desk
from martlet.functions.control.names import LATEST, Name, invalid, missing
from martlet.functions.control.records import Alias, EventConfig, Function, Policy, Provisioned, Signing, Tables, UrlConfig
from martlet.limits import LIMITS
from martlet.store import Tx, keys
from martlet.types import ACCOUNT

__all__ = ["Guards"]

_LOCATION_SECONDS: Final = 600  # as the service's presigned addresses of code
_FUNCTION_ARN: Final = re.compile(r"arn:aws[a-z-]*:lambda:([a-z0-9-]+):(\d{12}):function:([a-zA-Z0-9-_]+)(?::(.+))?")


class Guards(Desk):
    """Checks that several groups of operations need."""

    def permission(self, operation: str, request: dict[str, Any]) -> None:
        """For the protocol: nothing is to be checked ahead; each operation asks for itself, and knows resource policies."""
        return None

    def _authorize(self, caller: Any, action: str, function: str) -> None:
        """Identity-based grants first, then the function's resource policy. Raises ServiceError AccessDeniedException."""
        name = function.split(":function:")[-1].partition(":")
        try:
            self._allow(caller.principal, action, f"{name[0]}:{name[2]}" if name[2] else name[0])
        except AccessDenied as error:
            if error.details.get("explicit"):
                raise ServiceError("AccessDeniedException", error.message, 403) from error
            if self._policy_allows(caller.principal, action, name[0], name[2]):
                return
            if caller.principal.standing is not None:
                raise ServiceError("AccessDeniedException", error.message, 403) from error
            who = caller.principal.name or caller.principal.kind
            resource = self._arn(name[0], name[2]) if name[0] != "*" else "*"
            raise ServiceError(
                "AccessDeniedException",
                f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{who}/{who} is not authorized to perform: {action} on resource: "
                f"{resource} because no identity-based policy allows the {action} action",
                403,
            ) from error

    def _check_passed_role(self, caller: Any, request: dict[str, Any]) -> None:
        """Who gives a function a role must be allowed to pass it: else whoever may change functions may do everything."""
        role = request.get("Role")
        if not role:
            return
        try:
            self._allow(caller.principal, "iam:PassRole", role, {"iam:passedtoservice": "lambda.amazonaws.com"})
        except AccessDenied as error:
            raise ServiceError("AccessDeniedException", error.message, 403) from error

    def _policy_allows(self, principal: Any, action: str, function: str, qualifier: str) -> bool:
        """Whether the resource policy lets this principal, who is of the account but has no grant of its own."""
        policy = self._read(lambda tables: tables.get(Policy, function, "" if qualifier == LATEST else qualifier))
        account = (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
        for statement in policy.statements if policy else ():
            if statement["Action"] not in (action, "lambda:*") or statement.get("Condition"):
                continue
            who = statement["Principal"]
            if who == "*" or (principal.kind == "function" and who.get("AWS") in (*account, "*")):
                return True
        return False

    def may_invoke_url(self, name: str, qualifier: str = "") -> bool:
        """Whether everybody may call a function URL of AuthType NONE: its policy must say so (lambda:InvokeFunctionUrl for
        the principal "*" and FunctionUrlAuthType NONE). Source: Lambda developer guide, access control of function URLs."""
        policy = self._read(lambda tables: tables.get(Policy, name, "" if qualifier == LATEST else qualifier))
        for statement in policy.statements if policy else ():
            if statement["Action"] not in ("lambda:InvokeFunctionUrl", "lambda:*") or statement["Principal"] != "*":
                continue
            condition = statement.get("Condition") or {}
            if not condition or condition == {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}:
                return True
        return False

    def may_be_invoked_by(self, function: str, service: str, source_arn: str) -> bool:
        """Whether the policy of `function` ("name" or "name:qualifier") lets this service invoke it for `source_arn`, as
        AddPermission says it: SourceArn with wildcards, SourceAccount. Source: Lambda developer guide, resource policies."""
        name, _, qualifier = function.partition(":")
        policy = self._read(lambda tables: tables.get(Policy, name, "" if qualifier == LATEST else qualifier))
        for statement in policy.statements if policy else ():
            who = statement["Principal"]
            named = who == "*" or (isinstance(who, dict) and who.get("Service") == service)
            if not named or statement["Action"] not in ("lambda:InvokeFunction", "lambda:*"):
                continue
            if _holds(statement.get("Condition") or {}, {"AWS:SourceArn": source_arn, "AWS:SourceAccount": ACCOUNT}):
                return True
        return False

    def _check_tags(self, before: dict[str, str], added: dict[str, str]) -> None:
        if len({**before, **added}) > LIMITS["function_tags"].default:
            raise invalid("Number of tags exceeds resource tag limit.")

    def _check_dead_letter(self, arn: str) -> None:
        if not arn:
            return
        if not re.match(r"arn:aws[a-z-]*:(sqs|sns):[a-z0-9-]+:\d{12}:.", arn):
            raise invalid(f"The provided dead letter config TargetArn {arn} is invalid: it must name a queue or a topic.")
        if self._deliver is None:
            raise invalid(f"DeadLetterConfig {arn} is not supported by Martlet yet: there are no queues and topics.")

    def _check_destination(self, tables: Tables, arn: str, own: str) -> None:
        """A destination of asynchronous events: a function, or what `deliver` can reach."""
        found = _FUNCTION_ARN.fullmatch(arn)
        if found is not None:
            name = found[3]
            if name == own:
                raise invalid("You can't specify the function as a destination for itself.")
            there = found[1] == self._region and found[2] == ACCOUNT and self._function(tables, Name(name, "", self._region))
            if there and found[4] and found[4] != LATEST:
                there = self._resolve(tables, Name(name, found[4], self._region)) is not None
            if not there:
                raise invalid(f"The destination ARN {arn} is invalid.")
        elif arn and not any(part in arn for part in (":sqs:", ":sns:", ":events:")):
            raise invalid(f"The destination {arn} is not supported by Martlet: functions, queues, topics and buses are.")
        elif arn and self._deliver is None:
            raise invalid(f"The destination {arn} is not supported by Martlet yet: only functions are.")

    def _check_signing(self, tables: Tables, arn: str) -> None:
        """Code signing: nothing here can verify a signature, so a policy that enforces one lets nothing pass."""
        if not arn:
            return
        found = tables.get(Signing, arn.rpartition(":")[2])
        if found is None:
            raise ServiceError(
                "CodeSigningConfigNotFoundException",
                f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}.",
                404,
                Type="User",
            )
        if found.policy == "Enforce":
            raise ServiceError(
                "CodeVerificationFailedException",
                "The code signature failed one or more of the validation checks for signature mismatch or expiry, and the code "
                "signing policy is set to ENFORCE. Lambda blocks the deployment.",
                400,
                Type="User",
            )

    # --- addresses of code ------------------------------------------------------------------------------------------

    async def _load_key(self) -> None:
        """The key that signs addresses of code; made once for a store."""

        def ensure(tx: Tx) -> bytes:
            key = keys.encode("lambda.location-key")
            found = tx.get(key)
            if found is None:
                found = bytes.fromhex(token_hex(32))
                tx.put(key, found)
            return found

        self._location_key = await self._store.transact(ensure)

    def _location(self, caller: Any, digest: str) -> str:
        """An address on the listener the caller came in on, from which the archive can be fetched for ten minutes."""
        expires = self._clock.now_ms() // 1000 + _LOCATION_SECONDS
        return f"{caller.endpoint}/_code/{digest}.zip?Expires={expires}&Signature={self._sign(digest, expires)}"

    def _sign(self, digest: str, expires: int) -> str:
        return hmac.new(self._location_key, f"{digest}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def download(self, path: str, query: str) -> bytes:
        """The archive behind an address made by `_location`: what the listener answers to GET /_code/... with. Blocks.

        Raises ServiceError AccessDenied (403) for a signature that is wrong or has expired, NoSuchKey (404).
        """
        found = re.fullmatch(r"/_code/([0-9a-f]{64})\.zip", path)
        values = {name: value[-1] for name, value in parse_qs(query).items()}
        expires = values.get("Expires", "")
        if found is None or not re.fullmatch(r"[0-9]{1,12}", expires):
            raise ServiceError("AccessDenied", "Access Denied", 403)
        if not hmac.compare_digest(self._sign(found[1], int(expires)), values.get("Signature", "")):
            raise ServiceError("SignatureDoesNotMatch", "The request signature we calculated does not match.", 403)
        if self._clock.now_ms() // 1000 > int(expires):
            raise ServiceError("AccessDenied", "Request has expired", 403)
        try:
            return self._archives.open(found[1])
        except FileNotFoundError as error:
            raise ServiceError("NoSuchKey", "The specified key does not exist.", 404) from error

    # --- forgetting -------------------------------------------------------------------------------------------------

    def _forget_qualifier(self, tables: Tables, name: str, qualifier: str) -> None:
        for kind in (Policy, EventConfig, UrlConfig, Provisioned):
            tables.delete(kind, name, qualifier)

    def _alias(self, tables: Tables, name: str, alias: str) -> Alias | None:
        return tables.get(Alias, name, alias)

    def _demand_function(self, tables: Tables, name: Name) -> Function:
        found = self._function(tables, name)
        if found is None:
            raise missing(f"Function not found: {name.arn}")
        return found


def _holds(conditions: dict[str, dict[str, str]], facts: dict[str, str]) -> bool:
    """Whether every condition that AddPermission can make holds; one that it cannot make does not."""
    for operator, tests in conditions.items():
        for key, wanted in tests.items():
            fact = facts.get(key)
            if fact is None or operator not in ("ArnLike", "StringEquals", "StringLike"):
                return False
            pattern = "".join(".*" if one == "*" else "." if one == "?" else re.escape(one) for one in wanted)
            if not (wanted == fact if operator == "StringEquals" else re.fullmatch(pattern, fact)):
                return False
    return True
