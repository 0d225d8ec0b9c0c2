"""Resource policies: who from outside may invoke a function, version or alias. Stored as statements, shown as JSON."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from martlet.errors import ServiceError
from martlet.functions.control.guards import Guards
from martlet.functions.control.names import LATEST, Name, conflict, invalid, missing, precondition
from martlet.functions.control.records import Policy, Tables
from martlet.limits import LIMITS

__all__ = ["Policies"]

_MOST: Final = LIMITS["function_policy_bytes"].default
_SERVICE: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(amazonaws\.com(\.cn)?|amazon\.com)")
_EQUALS: Final = (
    ("SourceAccount", "AWS:SourceAccount"),
    ("FunctionUrlAuthType", "lambda:FunctionUrlAuthType"),
    ("PrincipalOrgID", "aws:PrincipalOrgID"),
    ("EventSourceToken", "lambda:EventSourceToken"),
)


class Policies(Guards):
    """The operations on resource policies."""

    async def add_permission(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, AddPermission."""
        self._authorize(caller, "lambda:AddPermission", request["FunctionName"])
        name = self._name(request)
        if name.qualifier == LATEST:
            raise invalid("We currently do not support adding policies for $LATEST.")
        statement = self._statement(name, request)

        def add(tables: Tables) -> None:
            self._demand_function(tables, name)
            self._demand_alias_or_version(tables, name)
            before = self._checked(tables, name, request.get("RevisionId"))
            statements = before.statements if before else ()
            if any(one["Sid"] == statement["Sid"] for one in statements):
                raise conflict(
                    f"The statement id ({statement['Sid']}) provided already exists. "
                    "Please provide a new statement id, or remove the existing statement."
                )
            after = Policy((*statements, statement), self._revision())
            size = len(_document(after))
            if size > _MOST:
                message = f"The final policy size ({size}) is bigger than the limit ({_MOST})."
                raise ServiceError("PolicyLengthExceededException", message, 400, Type="User")
            tables.put(after, name.name, name.qualifier)

        await self._write(add)
        return {"Statement": msgspec.json.encode(statement).decode()}

    def _statement(self, name: Name, request: dict[str, Any]) -> dict[str, Any]:
        statement: dict[str, Any] = {
            "Sid": request["StatementId"],
            "Effect": "Allow",
            "Principal": _principal(request["Principal"]),
            "Action": request["Action"],
            "Resource": name.qualified,
        }
        condition: dict[str, Any] = {}
        equals = {key: request[member] for member, key in _EQUALS if request.get(member)}
        if equals:
            condition["StringEquals"] = equals
        if request.get("InvokedViaFunctionUrl") is not None:
            condition["Bool"] = {"lambda:InvokedViaFunctionUrl": str(bool(request["InvokedViaFunctionUrl"])).lower()}
        if request.get("SourceArn"):
            condition["ArnLike"] = {"AWS:SourceArn": request["SourceArn"]}
        if condition:
            statement["Condition"] = condition
        return statement

    def _checked(self, tables: Tables, name: Name, revision_id: str | None) -> Policy | None:
        """The policy, if the caller has seen its last state; of a resource without one, the state of the resource."""
        found = tables.get(Policy, name.name, name.qualifier)
        if revision_id:
            alias = self._alias(tables, name.name, name.qualifier) if name.qualifier else None
            one = self._resolve(tables, name)
            known = {found.revision_id} if found else {alias.revision_id if alias else "", one.revision_id if one else ""}
            if revision_id not in known:
                raise precondition("GetPolicy")
        return found

    async def remove_permission(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, RemovePermission."""
        self._authorize(caller, "lambda:RemovePermission", request["FunctionName"])
        name, id = self._name(request), request["StatementId"]

        def remove(tables: Tables) -> None:
            if self._function(tables, name) is None:
                raise missing(f"No policy found for: {name.qualified}")
            self._demand_alias_or_version(tables, name)
            before = tables.get(Policy, name.name, name.qualifier)
            if before is None:
                raise missing("No policy is associated with the given resource.")
            left = tuple(one for one in before.statements if one["Sid"] != id)
            if len(left) == len(before.statements):
                raise missing(f"Statement {id} is not found in resource policy.")
            self._checked(tables, name, request.get("RevisionId"))
            if left:
                tables.put(Policy(left, self._revision()), name.name, name.qualifier)
            else:
                tables.delete(Policy, name.name, name.qualifier)

        await self._write(remove)
        return {}

    async def get_policy(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetPolicy."""
        self._authorize(caller, "lambda:GetPolicy", request["FunctionName"])
        name = self._name(request)
        policy = self._read(lambda tables: tables.get(Policy, name.name, "" if name.qualifier == LATEST else name.qualifier))
        if policy is None:
            raise missing("The resource you requested does not exist.")
        return {"Policy": _document(policy).decode(), "RevisionId": policy.revision_id}


def _document(policy: Policy) -> bytes:
    return msgspec.json.encode({"Version": "2012-10-17", "Id": "default", "Statement": list(policy.statements)})


def _principal(text: str) -> Any:
    if text == "*":
        return "*"
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    if re.fullmatch(r"\d{12}", text):
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if re.fullmatch(r"arn:aws[a-z-]*:(iam|sts)::\d{12}:.+", text):
        return {"AWS": text}
    raise invalid("The provided principal was invalid. Please check the principal and try again.")
