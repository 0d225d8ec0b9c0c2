"""Functions from their creation to their end: CreateFunction, updates, versions, deletion, and how they are described.

A change is stored with the state Pending or InProgress; a task then prepares it (layers merged, one instance started where
there were some before), lets it serve, and stores Active or Successful. After a crash the next start takes it up again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import msgspec

from martlet.errors import MartletError, ServiceError
from martlet.functions.control import configuration as conf
from martlet.functions.control.desk import Stored
from martlet.functions.control.layers import Layers
from martlet.functions.control.names import LATEST, Name, conflict, invalid, is_number, not_found, precondition
from martlet.functions.control.records import Alias, Configuration, Function, Provisioned, Tables
from martlet.limits import LIMITS

__all__ = ["Lifecycle"]

_IN_PROGRESS_SECONDS = 0.2
_ZIPPED_MOST = LIMITS["code_zipped_bytes"].default
_OF_VERSION = ("version", "number", "revision_id", "modified_at_ms", "state", "update")


class Lifecycle(Layers):
    """The operations on functions and their versions."""

    # --- create ---------------------------------------------------------------------------------------------------

    async def create_function(self, caller: Any, request: dict[str, Any], *, app: str = "") -> dict[str, Any]:
        """Source: Lambda API, CreateFunction. `app`: the stack that it is part of."""
        self._authorize(caller, "lambda:CreateFunction", request.get("FunctionName") or "")
        self._check_passed_role(caller, request)
        name = self._name(request)
        if len(name.name) > LIMITS["function_name_characters"].default:
            raise invalid(
                f"1 validation error detected: Value '{name.name}' at 'functionName' failed to satisfy constraint: "
                "Member must have length less than or equal to 64"
            )
        name = name._replace(qualifier="")
        lacking = await self._lacking(request)
        planned = conf.created(
            request,
            name=name.name,
            available=lambda _: lacking,
            now_ms=self._clock.now_ms(),
            revision_id=self._revision(),
            number=1,
        )
        self._check_dead_letter(planned.dead_letter)
        tags = dict(request.get("Tags") or {})
        self._check_tags({}, tags)
        layers = self._read(lambda tables: self._layers(tables, request.get("Layers") or [], caller))
        planned = msgspec.structs.replace(planned, layers=layers)
        signing = request.get("CodeSigningConfigArn") or ""

        def check(tables: Tables) -> None:
            self._check_free(tables, name)
            self._check_signing(tables, signing)

        self._read(check)
        planned = self._with_code(planned, await self._code(request.get("Code") or {}))
        publish = bool(request.get("Publish"))

        def create(tables: Tables) -> dict[str, Any]:
            check(tables)
            # Numbers go on where a function of the same name ended: what the ledger and instances know stays unambiguous.
            latest = msgspec.structs.replace(planned, number=tables.increment("number", name.name))
            function = Function(name=name.name, app=app, created_at_ms=planned.modified_at_ms, tags=tags, signing=signing)
            tables.put(latest, name.name, LATEST)
            shown = latest
            if publish:
                function, shown = self._add_version(tables, function, latest, None)
            tables.put(function, name.name)
            return conf.described(shown, name.arn)

        body = await self._write(create)
        self._in_background(self._settle(name.name))
        return body

    async def _lacking(self, request: dict[str, Any]) -> str:
        """Why the runtime cannot run here, or "". Programs are looked for on the disk, so in a thread."""
        runtime = request.get("Runtime") or ""
        return await asyncio.to_thread(self._available, runtime) if runtime else ""

    def _check_free(self, tables: Tables, name: Name) -> None:
        if self._function(tables, name) is not None:
            raise conflict(f"Function already exist: {name.name}")

    async def _code(self, given: dict[str, Any]) -> tuple[Stored, int]:
        """The archive that a request names, unpacked and kept, and its size."""
        if given.get("ImageUri"):
            raise invalid("ImageUri is not supported by Martlet: functions run from zip archives.")
        archive = given.get("ZipFile")
        if archive is None and given.get("S3Bucket"):
            archive = await self._fetched(given)
        elif archive is not None and len(archive) >= _ZIPPED_MOST:
            message = f"Zipped size must be smaller than {_ZIPPED_MOST} bytes"
            raise ServiceError("RequestEntityTooLargeException", message, 413)
        if not archive:
            raise invalid("Please provide a source for function code.")
        return await asyncio.to_thread(self._archives.store, bytes(archive), "code"), len(archive)

    def _with_code(self, one: Configuration, code: tuple[Stored, int]) -> Configuration:
        stored, size = code
        after = msgspec.structs.replace(
            one, code=stored.address, zip=stored.digest, code_bytes=size, code_unzipped_bytes=stored.unzipped_bytes
        )
        conf.check_sizes(after, self._layers_bytes(after.layers))
        return after

    # --- update ---------------------------------------------------------------------------------------------------

    async def update_function_code(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UpdateFunctionCode."""
        self._authorize(caller, "lambda:UpdateFunctionCode", request.get("FunctionName") or "")
        name = self._name(request)

        def check(tables: Tables) -> Configuration:
            function = self._own(tables, name)
            if request.get("ImageUri"):
                raise invalid("Please don't provide ImageUri when updating a function with packageType Zip.")
            self._check_signing(tables, function.signing)
            return self._changeable(tables, name, request.get("RevisionId"))

        conf.refuse_unknown(request)
        conf.rebuilt_for(self._read(check), request)
        code = await self._code(request)

        def update(tables: Tables) -> dict[str, Any]:
            before = check(tables)
            architecture = conf.rebuilt_for(before, request)
            latest = self._with_code(msgspec.structs.replace(before, architecture=architecture), code)
            if request.get("DryRun"):
                return conf.described(latest, name.arn)
            latest = self._started(tables, latest)
            tables.put(latest, name.name, LATEST)
            if not request.get("Publish"):
                return conf.described(latest, name.arn)
            function, version = self._add_version(tables, self._own(tables, name), latest, None)
            tables.put(function, name.name)
            return conf.described(version, self._arn(name.name, version.version))

        if request.get("DryRun"):
            return self._read(update)
        body = await self._write(update)
        self._in_background(self._settle(name.name, self._visible(caller)))
        return body

    async def update_function_configuration(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, UpdateFunctionConfiguration."""
        self._authorize(caller, "lambda:UpdateFunctionConfiguration", request.get("FunctionName") or "")
        self._check_passed_role(caller, request)
        name = self._name(request)
        lacking = await self._lacking(request)

        def update(tables: Tables) -> dict[str, Any]:
            self._own(tables, name)
            before = self._changeable(tables, name, request.get("RevisionId"))
            latest = conf.changed(before, request, available=lambda _: lacking)
            if latest.dead_letter != before.dead_letter:
                self._check_dead_letter(latest.dead_letter)
            if request.get("Layers") is not None:
                latest = msgspec.structs.replace(latest, layers=self._layers(tables, request["Layers"], caller))
                conf.check_sizes(latest, self._layers_bytes(latest.layers))
            latest = self._started(tables, latest)
            tables.put(latest, name.name, LATEST)
            return conf.described(latest, name.arn)

        body = await self._write(update)
        self._in_background(self._settle(name.name, self._visible(caller)))
        return body

    @staticmethod
    def _visible(caller: Any) -> float:
        """For how many seconds an update is seen to be in progress, though it serves before: scripts that do not wait for it
        must fail here as they do there. Stacks wait for each of theirs."""
        principal = getattr(caller, "principal", None)
        return 0.0 if getattr(principal, "kind", "") == "service" else _IN_PROGRESS_SECONDS

    def _changeable(self, tables: Tables, name: Name, revision_id: str | None) -> Configuration:
        """$LATEST, if nothing is under way for it and the caller has seen its last state."""
        before = tables.get(Configuration, name.name, LATEST)
        if before is None:
            raise not_found(name, "")
        if before.state == "Pending":
            raise conflict(
                "The operation cannot be performed at this time. The function is currently in the following state: Pending"
            )
        if before.update == "InProgress":
            raise conflict(f"The operation cannot be performed at this time. An update is in progress for resource: {name.arn}")
        if revision_id and revision_id != before.revision_id:
            raise precondition()
        return before

    def _started(self, tables: Tables, latest: Configuration) -> Configuration:
        return msgspec.structs.replace(
            latest,
            number=tables.increment("number", latest.name),
            revision_id=self._revision(),
            modified_at_ms=self._clock.now_ms(),
            update="InProgress",
        )

    # --- reaching the next state ----------------------------------------------------------------------------------

    async def _settle(self, name: str, visible_seconds: float = 0.0) -> None:
        """Let $LATEST as it is stored serve, then say so in the store; likewise versions that are Pending."""
        latest = self._read(lambda tables: tables.get(Configuration, name, LATEST))
        if latest is None:
            return
        problem = await self._prepare(latest)
        if visible_seconds:
            await asyncio.sleep(visible_seconds)

        def done(tables: Tables) -> None:
            now = tables.get(Configuration, name, LATEST)
            if now is not None and now.number == latest.number:
                tables.put(self._ended_well(now) if not problem else self._ended_badly(now, problem), name, LATEST)
            for parts, one in tables.all(Configuration, name):
                if one.version != LATEST and one.state == "Pending":
                    tables.put(self._ended_well(one), *parts)

        await self._write(done)
        self._reconcile(name)

    async def _prepare(self, latest: Configuration) -> str:
        """Let it serve; "" or why it cannot. While the old one has instances, the new one gets its first before it serves."""
        function = self._read(lambda tables: tables.get(Function, latest.name))
        version = self._runnable(function, latest)
        await self._functions.share(version)
        await self._functions.folders.keep("zips", f"{latest.zip}.zip")
        try:
            await asyncio.to_thread(self._functions.runtimes.prepare, version)
        except (OSError, MartletError) as error:
            return f"The function could not be prepared: {error}"
        warm = latest.update == "InProgress" and self._functions.is_warm(latest.name)
        if not warm or await self._functions.warm_up(version, 1):
            self._functions.install(version)
        self._functions.expect(version)
        return ""

    def _ended_well(self, one: Configuration) -> Configuration:
        return msgspec.structs.replace(one, state="Active", update="Successful", revision_id=self._revision(), problem="")

    def _ended_badly(self, one: Configuration, problem: str) -> Configuration:
        state = "Failed" if one.state == "Pending" else one.state
        return msgspec.structs.replace(one, state=state, update="Failed", revision_id=self._revision(), problem=problem)

    def _runnable(self, function: Function | None, one: Configuration, provisioned: int = 0) -> Any:
        app = function.app if function is not None else ""
        return conf.runnable(one, app=app, region=self._region, egress=self._egress, provisioned=provisioned)

    def _reconcile(self, name: str) -> None:
        """Make the functions room answer to what the store says of this function: versions, aliases, reserved concurrency."""

        def look(tables: Tables) -> tuple[Function | None, list[Configuration], list[Alias]]:
            versions = [one for _, one in tables.all(Configuration, name)]
            return tables.get(Function, name), versions, [one for _, one in tables.all(Alias, name)]

        function, versions, aliases = self._read(look)
        known = {one.key: one for one in self._functions.all() if one.name == name and one.config.runtime}
        for one in versions:
            key = name if one.version == LATEST else f"{name}:{one.version}"
            if key not in known and one.state == "Active":
                self._functions.install(self._runnable(function, one))
        wanted = {name if one.version == LATEST else f"{name}:{one.version}" for one in versions}
        for key in known:
            if key not in wanted:
                self._functions.uninstall(key)
        self._functions.route_aliases(name, {one.name: (one.version, *next(iter(one.weights.items()), ())) for one in aliases})
        if function is not None and not self._published(name):
            self._functions.reserve(name, function.reserved)

    # --- versions -------------------------------------------------------------------------------------------------

    async def publish_version(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, PublishVersion: the last version again, if nothing has changed since it was published."""
        self._authorize(caller, "lambda:PublishVersion", request.get("FunctionName") or "")
        conf.refuse_unknown(request)
        name = self._name(request)

        def publish(tables: Tables) -> dict[str, Any]:
            function = self._own(tables, name)
            latest = self._changeable(tables, name, request.get("RevisionId"))
            digest = base64.b64encode(bytes.fromhex(latest.zip)).decode()
            if request.get("CodeSha256") and request["CodeSha256"] != digest:
                raise invalid(
                    f"CodeSHA256 ({request['CodeSha256']}) is different from current CodeSHA256 in $LATEST ({digest}). "
                    "Please try again with the CodeSHA256 in $LATEST."
                )
            last = tables.get(Configuration, name.name, str(function.last_version))
            if last is not None and function.last_digest == _fingerprint(latest):
                return conf.described(last, self._arn(name.name, last.version))
            function, version = self._add_version(tables, function, latest, request.get("Description"))
            tables.put(function, name.name)
            tables.put(msgspec.structs.replace(latest, revision_id=self._revision()), name.name, LATEST)
            return conf.described(version, self._arn(name.name, version.version))

        body = await self._write(publish)
        self._reconcile(name.name)
        return body

    def _add_version(
        self, tables: Tables, function: Function, latest: Configuration, description: str | None
    ) -> tuple[Function, Configuration]:
        number = function.last_version + 1
        version = msgspec.structs.replace(
            latest,
            version=str(number),
            number=tables.increment("number", function.name),
            revision_id=self._revision(),
            description=latest.description if description is None else description,
            state="Pending" if latest.update != "Successful" else "Active",
            update="" if latest.update != "Successful" else "Successful",
        )
        tables.put(version, function.name, version.version)
        return msgspec.structs.replace(function, last_version=number, last_digest=_fingerprint(latest)), version

    async def list_versions_by_function(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListVersionsByFunction: $LATEST first, then by number."""
        self._authorize(caller, "lambda:ListVersionsByFunction", request.get("FunctionName") or "")
        name = self._name(request)
        versions = self._read(lambda tables: self._versions(tables, name))
        if not versions:
            raise not_found(name, "")
        items = [(one.version, conf.listed(one, self._arn(name.name, one.version))) for one in versions]
        shown, more = self._cut(items, self._page(request))
        return {"Versions": shown, **more}

    def _versions(self, tables: Tables, name: Name) -> list[Configuration]:
        latest = self._latest(tables, name.name)
        rows = [one for _, one in tables.all(Configuration, name.name) if one.version != LATEST]
        return ([latest] if latest else []) + sorted(rows, key=lambda one: int(one.version))

    # --- describing -----------------------------------------------------------------------------------------------

    async def get_function(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunction. `Code.Location` can be fetched for ten minutes."""
        self._authorize(caller, "lambda:GetFunction", request.get("FunctionName") or "")
        name = self._name(request)

        def look(tables: Tables) -> tuple[Configuration, Function | None]:
            return self._demand(tables, name), self._function(tables, name)

        found, function = self._read(look)
        body: dict[str, Any] = {"Configuration": conf.described(found, name.qualified), "Code": {}}
        if self._published(name.name) is None:
            body["Code"] = {"RepositoryType": "S3", "Location": self._location(caller, found.zip)}
        if function is not None and function.tags:
            body["Tags"] = dict(function.tags)
        if function is not None and function.reserved is not None:
            body["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved}
        return body

    async def get_function_configuration(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, GetFunctionConfiguration."""
        self._authorize(caller, "lambda:GetFunctionConfiguration", request.get("FunctionName") or "")
        name = self._name(request)
        return conf.described(self._read(lambda tables: self._demand(tables, name)), name.qualified)

    async def list_functions(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, ListFunctions. With FunctionVersion ALL every version is listed, with its qualified ARN.

        MasterRegion names functions that were replicated to the edge, of which there are none here.
        """
        self._authorize(caller, "lambda:ListFunctions", "*")
        if request.get("MasterRegion"):
            return {"Functions": []}
        every = request.get("FunctionVersion") == "ALL"

        def look(tables: Tables) -> list[Configuration]:
            found = [one for _, one in tables.all(Configuration)] if every else []
            if not every:
                latest = (self._latest(tables, parts[0]) for parts, _ in tables.all(Function))  # type: ignore[arg-type]
                found = [one for one in latest if one is not None]
            there = {one.name for one in found}
            apps = (self._latest(tables, version.name) for version in self._functions.list())
            return found + [one for one in apps if one is not None and one.name not in there]

        found = sorted(self._read(look), key=_order)
        items = [
            (f"{one.name}:{one.version}", conf.listed(one, self._arn(one.name, one.version if every else ""))) for one in found
        ]
        shown, more = self._cut(items, self._page(request))
        return {"Functions": shown, **more}

    # --- the end --------------------------------------------------------------------------------------------------

    async def delete_function(self, caller: Any, request: dict[str, Any]) -> dict[str, Any]:
        """Source: Lambda API, DeleteFunction: one version, or the function with everything that is configured for it."""
        self._authorize(caller, "lambda:DeleteFunction", request.get("FunctionName") or "")
        name = self._name(request)
        if name.qualifier == LATEST:
            raise invalid("$LATEST version cannot be deleted without deleting the function.")
        if name.qualifier and not is_number(name.qualifier) and "$" not in name.qualifier:
            raise invalid("Deletion of aliases is not currently supported.")

        def delete(tables: Tables) -> None:
            self._own(tables, name)
            if not name.qualifier:
                tables.forget(name.name)
                return
            if not is_number(name.qualifier):
                raise not_found(name, "")
            leading = [
                one.name
                for _, one in tables.all(Alias, name.name)
                if name.qualifier == one.version or name.qualifier in one.weights
            ]
            if leading:
                raise conflict(f"Unable to delete version because the following aliases reference it: [{', '.join(leading)}]")
            for kind in (Configuration, Provisioned):
                tables.delete(kind, name.name, name.qualifier)
            self._forget_qualifier(tables, name.name, name.qualifier)

        await self._write(delete)
        self._reconcile(name.name)
        if not name.qualifier:
            self._on_urls()
        return {"StatusCode": 204}


def _order(one: Configuration) -> tuple[str, int]:
    return one.name, 0 if one.version == LATEST else int(one.version)


def _fingerprint(latest: Configuration) -> str:
    """What makes a version worth publishing: everything but when and under which number."""
    fields = {name: value for name, value in msgspec.structs.asdict(latest).items() if name not in _OF_VERSION}
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()
