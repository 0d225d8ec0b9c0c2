"""Stacks: created, updated, deleted, listed, and brought to rest after a crash. The operations that callers begin."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import orjson

from martlet.apps.stacks.compiling import Artifact, Asset, Compiled, Environment, compile_template
from martlet.apps.stacks.dynamic import refuse_dynamic
from martlet.apps.stacks.executing import Executor, Group
from martlet.apps.stacks.intrinsics import is_pending
from martlet.apps.stacks.journal import Journal, Store, importers, masked
from martlet.apps.stacks.planning import Plan, Planner
from martlet.apps.stacks.providers.apis import SOCKETS, ApiPart
from martlet.apps.stacks.providers.provider import Caller, Context, Provider
from martlet.apps.stacks.reading import TemplateFault
from martlet.apps.stacks.records import Body, Event, Rows, StackRecord, StoredResource
from martlet.apps.stacks.translation import Translation
from martlet.clock import Clock, token_hex, uuid4_text
from martlet.errors import Conflict, DeployFailed, InvalidInput, NotFound, ServiceError
from martlet.types import ACCOUNT, Principal

__all__ = ["Engine", "Request", "in_progress"]

T = TypeVar("T")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
_SERVICE: Final = Principal("root", "stacks")
_ENDPOINT: Final = re.compile(
    r"(https|wss)://([a-z0-9]+)\.(execute-api|lambda-url)\.[a-z0-9-]+\.(?:martlet\.internal|amazonaws\.com|on\.aws)"
)
_FORMER: Final = re.compile(
    r"http://[\w.\[\]:-]+/(_api|_url)/([a-z0-9]{10,32})(?![a-z0-9])"
)  # ours, as printed on another port
_QUEUE: Final = re.compile(rf"http://[\w.\[\]:-]+/{ACCOUNT}/([A-Za-z0-9_-]{{1,80}}(?:\.fifo)?)")  # a queue's URL, the same
_TURN_SECONDS: Final = 30.0
_KEEP_DELETED_MS: Final = 90 * 86_400_000  # CloudFormation: a deleted stack is listed for 90 days


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a stack shall be. `base` is the folder that local paths start from, "" where there is none."""

    name: str
    template: str
    parameters: dict[str, str] = {}
    capabilities: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    is_lenient: bool = False
    on_failure: str = "ROLLBACK"
    source: str = ""
    role: str = ""
    notifications: tuple[str, ...] = ()
    client_token: str = ""
    timeout_minutes: int = 0
    is_protected: bool = False
    parent: str = ""
    root: str = ""


class Local(msgspec.Struct, frozen=True):
    """The files beside a template: how to read one, and how to make a package of one."""

    load: Callable[[str, int], bytes]
    package: Callable[[Artifact], Coroutine[Any, Any, str]]
    is_local: bool = False
    is_slow: Callable[[Artifact], Coroutine[Any, Any, bool]] | None = None  # whether `package` would build something
    asset: Asset = lambda raw, code, evaluate: None


async def _nothing(artifact: Artifact) -> str:
    """The address of code while it is only seen whether the rest of a template can be."""
    return hashlib.sha256(artifact.logical_id.encode()).hexdigest()


class Prepared(msgspec.Struct, frozen=True):
    """A template that is compiled and planned against what is there."""

    compiled: Compiled
    planner: Planner
    plan: Plan
    body: Body


def _object_of(url: str) -> tuple[str, str, str] | None:
    """(bucket, key, version) of an object's URL, with the bucket in the host ("bucket.s3...") or first in the path."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    first, _, rest = parts.hostname.partition(".")
    path = unquote(parts.path).lstrip("/")
    in_host = bool(rest) and not first.isdigit() and first != "s3" and not first.startswith("s3-") and rest.startswith("s3")
    bucket, key = (first, path) if in_host else tuple(path.split("/", 1)) if "/" in path else ("", "")
    version = parse_qs(parts.query).get("versionId", [""])[0]
    return (bucket, key, version) if bucket and key else None


def in_progress(status: str) -> bool:
    """Whether an operation runs on a stack of this status."""
    return status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS"


class Engine:
    """All stacks of one platform. Call `load` first and `close` at the end."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        providers: Mapping[str, Provider],
        groups: tuple[Group, ...] = (),
        translation: Translation,
        region: str,
        invoke_base: Callable[[], str],
        sandbox_base: Callable[[], str],
        endpoint: Callable[[], str] = lambda: "",
        remote: Local,
        fetch: Callable[[str, str, str], Awaitable[bytes]] | None = None,
        stored: Callable[[Caller, str], Awaitable[str]] | None = None,
    ) -> None:
        """`invoke_base` is where APIs answer without DNS, "http://host:port"; `endpoint` that of the platform's API, and
        `sandbox_base` the same as functions see it.
        `remote` reads and packages for templates that came without files; `fetch` gets an object (bucket, key, version)."""
        self._store = store
        self._clock = clock
        self.providers = dict(providers)
        self._groups = groups
        self._translation = translation
        self.region = region
        self._invoke_base = invoke_base
        self._sandbox_base = sandbox_base
        self._endpoint = endpoint
        self._remote = remote
        self._fetch = fetch
        self._stored = stored
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._closing = False

    async def fetch_template(self, url: str) -> str:
        """A template by the URL of its object: in our own endpoint's form, or in S3's. Raises ServiceError ValidationError."""
        place = _object_of(url)
        if place is None or self._fetch is None:
            raise ServiceError("ValidationError", "TemplateURL must be a supported URL.")
        try:
            return (await self._fetch(*place)).decode()
        except ServiceError as error:
            raise ServiceError("ValidationError", f"S3 error: {error.message}") from error
        except UnicodeDecodeError as error:
            raise ServiceError("ValidationError", "Template format error: the object is not UTF-8") from error

    # --- life

    async def load(self) -> None:
        """Stacks whose operation a crash has cut are brought to rest: rolled back, or cleaned up where it had happened."""
        now = self._clock.now_ms()
        for record in self.all():
            if in_progress(record.status):
                if record.id not in self._tasks:
                    self._spawn(record.id, self._resume(record.id))
            elif record.deleted_at_ms is not None and now - record.deleted_at_ms > _KEEP_DELETED_MS:
                await self.transact(partial(forget, id=record.id))

    async def pause(self, id: str, seconds: float) -> None:
        """Until the stack's operation has ended, at most so long. It goes on in any case."""
        task = self._tasks.get(id)
        if task is not None:
            await asyncio.wait({task}, timeout=seconds)

    async def settled(self) -> None:
        """Wait for every operation that runs."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop: operations that run are cut as by a crash, and go on (backwards) at the next start."""
        self._closing = True
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._translation.close()

    async def _in_turn(self, id: str, work: Coroutine[Any, Any, T]) -> T:
        """One node at a time works on a stack; one that has begun waits for the end of what another has to do there."""
        try:
            async with self._store.turn(f"stack/{id}", _TURN_SECONDS):
                return await work
        finally:
            work.close()

    def _spawn(self, id: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(self._in_turn(id, work))
        self._tasks[id] = task

        def ended(done: asyncio.Task[Any]) -> None:
            if self._tasks.get(id) is done:
                del self._tasks[id]
            if not done.cancelled():
                done.exception()

        task.add_done_callback(ended)
        return task

    # --- reading

    def all(self) -> list[StackRecord]:
        """Every stack, the deleted ones of the last 90 days too, newest first."""
        found = self._store.read(lambda reader: Rows(reader).stacks())
        return sorted(found, key=lambda record: record.created_at_ms, reverse=True)

    def live(self) -> list[StackRecord]:
        return [record for record in self.all() if record.status != "DELETE_COMPLETE"]

    def find(self, name: str) -> StackRecord | None:
        """By name (a live one) or by id (a deleted one too)."""
        for record in self.all():
            if record.id == name or (record.name == name and record.status != "DELETE_COMPLETE"):
                return record
        return None

    def get(self, name: str) -> StackRecord:
        """Raises `NotFound`."""
        found = self.find(name)
        if found is None:
            raise NotFound(f"Stack with id {name} does not exist")
        return found

    def body(self, id: str) -> Body:
        """What a stack was made from, its outputs with the addresses that answer now."""
        found = self._store.read(lambda reader: Rows(reader).body(id)) or Body(template="", processed="{}", parameters={})
        outputs = tuple({**one, "OutputValue": self.rewrite(one["OutputValue"])} for one in found.outputs)
        return msgspec.structs.replace(found, outputs=outputs)

    def resources(self, id: str) -> dict[str, StoredResource]:
        return self._store.read(lambda reader: Rows(reader).resources(id))

    def events(self, id: str) -> list[Event]:
        return self._store.read(lambda reader: Rows(reader).events(id))

    def transact(self, fn: Callable[[Rows], T]) -> Coroutine[Any, Any, T]:
        return self._store.transact(lambda tx: fn(Rows(tx)))

    def read(self, fn: Callable[[Rows], T]) -> T:
        return self._store.read(lambda reader: fn(Rows(reader)))

    @property
    def now_ms(self) -> int:
        return self._clock.now_ms()

    # --- planning

    def new_id(self, name: str) -> str:
        """A stack's ARN."""
        return f"arn:aws:cloudformation:{self.region}:{ACCOUNT}:stack/{name}/{uuid4_text()}"

    def pseudo(self, name: str, id: str, notifications: tuple[str, ...] = ()) -> dict[str, Any]:
        return {
            "AWS::AccountId": ACCOUNT,
            "AWS::NotificationARNs": list(notifications),
            "AWS::Partition": "aws",
            "AWS::Region": self.region,
            "AWS::StackId": id,
            "AWS::StackName": name,
            "AWS::URLSuffix": "martlet.internal",
        }

    async def prepare(
        self, request: Request, id: str, local: Local | None = None, base: Mapping[str, StoredResource] | None = None
    ) -> Prepared:
        """Compile and plan `request` for the stack `id` as it is. Raises what is wrong with it; nothing is changed.

        What takes long, building dependencies, is not begun for a template that cannot be deployed: then it is gone through
        without them first."""
        files = local or self._remote
        imports: set[str] = set()
        pseudo = self.pseudo(request.name, id, request.notifications)

        def imported(name: str) -> Any:
            export = self.read(lambda rows: rows.export(name))
            if export is None or export.stack_id == id:
                raise TemplateFault(f"No export named {name} found.")
            imports.add(name)
            return export.value

        environment = Environment(
            pseudo=pseudo,
            load=files.load,
            package=self._carefully(request, id, files, base),
            translate=self._translation.translate,
            matches=self._translation.matches,
            stored=None if self._stored is None else partial(self._stored, self.context(request.name, id, "", "", {}).caller),
            imported=imported,
            local=files.is_local,
            asset=files.asset,
        )
        compiled = await compile_template(request.template, request.parameters, environment)
        planner = Planner(
            compiled,
            self.resources(id) if base is None else base,
            providers=self.providers,
            context=lambda logical_id, token: msgspec.structs.replace(
                self.context(request.name, id, logical_id, token, request.tags), is_lenient=request.is_lenient
            ),
            pseudo=pseudo,
            imported=imported,
            new_token=lambda: token_hex(8),
            is_lenient=request.is_lenient,
            rewrite=self.rewrite,
        )
        plan = self._checked(planner.plan(), request.is_lenient)
        self._check_outputs(compiled, planner)
        body = Body(
            template=request.template,
            processed=orjson.dumps(compiled.template.body).decode(),
            parameters=request.parameters,
            resolved=masked(compiled.declared, compiled.parameters),
            capabilities=request.capabilities,
            tags=request.tags,
            description=compiled.template.description,
            warnings=plan.warnings,
            imports=tuple(sorted(imports)),
            is_lenient=request.is_lenient,
        )
        return Prepared(compiled, planner, plan, body)

    def _carefully(
        self, request: Request, id: str, files: Local, base: Mapping[str, StoredResource] | None
    ) -> Callable[[Artifact], Coroutine[Any, Any, str]]:
        """`files.package`, but that the whole template is looked at before the first one that takes long."""
        rehearsed = files.is_slow is None

        async def package(artifact: Artifact) -> str:
            nonlocal rehearsed
            if not rehearsed and files.is_slow is not None and await files.is_slow(artifact):
                rehearsed = True
                await self.prepare(request, id, msgspec.structs.replace(files, package=_nothing, is_slow=None), base)
            return await files.package(artifact)

        return package

    def _checked(self, plan: Plan, is_lenient: bool) -> Plan:
        """The plan with the groups' warnings; what they would not make fails here, before anything is made."""
        parts = [
            ApiPart(
                logical_id=name,
                type=node.declared.type,
                id=node.expected.id or name,
                properties=node.properties,
                line=node.declared.line or None,
            )
            for name, node in plan.nodes.items()
            if not node.is_dropped
        ]
        warnings: list[str] = []
        for group in self._groups:
            group.check(parts, warnings.append if is_lenient else None)
        return msgspec.structs.replace(plan, warnings=(*plan.warnings, *warnings))

    def _check_outputs(self, compiled: Compiled, planner: Planner) -> None:
        for name, output in compiled.template.outputs.items():
            condition = output.get("Condition")
            if condition is not None and condition not in compiled.conditions:
                raise TemplateFault(
                    f"Template format error: Output {name} is malformed: unresolved condition {condition}",
                    compiled.template.outputs.lines.get(name, 0),
                )
            if condition is None or compiled.conditions[condition]:
                refuse_dynamic(
                    planner.scope.evaluate(output["Value"]), f"output {name}", compiled.template.outputs.lines.get(name, 0)
                )
                if "Export" in output:
                    planner.scope.evaluate(output["Export"]["Name"])

    def context(
        self, name: str, id: str, logical_id: str, token: str, tags: Mapping[str, str], say: Callable[[str], None] | None = None
    ) -> Context:
        own = {
            "aws:cloudformation:stack-name": name,
            "aws:cloudformation:stack-id": id,
            "aws:cloudformation:logical-id": logical_id,
        }
        return Context(
            stack_name=name,
            stack_id=id,
            logical_id=logical_id,
            region=self.region,
            account=ACCOUNT,
            caller=Caller(_SERVICE, self.region, ACCOUNT, token_hex(16), self._endpoint()),
            token=token,
            say=say or (lambda text: None),
            tags={**tags, **own},
        )

    def _answers_at(self, found: re.Match[str], inside: bool) -> str:
        """An address of a WebSocket API by https is for backends: functions reach it where they reach the platform."""
        scheme, id, kind = found[1], found[2], found[3]
        base = self._sandbox_base() if inside and scheme == "https" and id.startswith(SOCKETS) else self._invoke_base()
        base = base if scheme == "https" else re.sub("^http", "ws", base)
        return f"{base}/{'_api' if kind == 'execute-api' else '_url'}/{id}"

    def rewrite(self, value: Any, inside: bool = False) -> Any:
        """Addresses that AWS would answer at become those that answer here, in environment variables (`inside`) and outputs."""
        if isinstance(value, str):
            base = self._invoke_base()
            if "/_url/" in value or "/_api/" in value:
                value = _FORMER.sub(lambda m: f"{base}/{m[1]}/{m[2]}" if not m[2].startswith(SOCKETS) else m[0], value)
            queue = _QUEUE.fullmatch(value) if ACCOUNT in value else None
            if queue is not None and self._endpoint():
                return f"{self._endpoint()}/{ACCOUNT}/{queue[1]}"
            if "execute-api" not in value and "lambda-url" not in value:
                return value
            return _ENDPOINT.sub(lambda m: self._answers_at(m, inside), value)
        if isinstance(value, dict) and "Environment" in value and isinstance(value["Environment"], dict):
            variables = value["Environment"].get("Variables")
            if isinstance(variables, dict):
                changed = {name: self.rewrite(one, inside=True) for name, one in variables.items()}
                return {**value, "Environment": {**value["Environment"], "Variables": changed}}
        return value

    # --- operations

    def check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"1 validation error detected: Value '{name}' at 'stackName' failed to satisfy constraint: Member must satisfy "
                "regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*",
                field="name",
            )

    async def create(
        self, request: Request, prepared: Prepared, id: str, say: Callable[[str], None] = lambda text: None
    ) -> asyncio.Task[StackRecord]:
        """Begin to create stack `id`, which may stand in REVIEW_IN_PROGRESS; the task yields the record at its end."""
        self.check_name(request.name)
        journal = Journal(self._store, self._clock, id, say, request.client_token)
        fresh = StackRecord(
            id=id,
            name=request.name,
            status="CREATE_IN_PROGRESS",
            reason="User Initiated",
            created_at_ms=self._clock.now_ms(),
            on_failure=request.on_failure,
            source=request.source,
            role=request.role,
            notifications=request.notifications,
            client_token=request.client_token,
            timeout_minutes=request.timeout_minutes,
            is_protected=request.is_protected,
            parent=request.parent,
            root=request.root,
        )

        def begin(tx: Any) -> None:
            rows = Rows(tx)
            for other in rows.stacks():
                if other.name == request.name and other.status != "DELETE_COMPLETE" and other.id != id:
                    raise Conflict(f"Stack [{request.name}] already exists", stack=request.name)
            standing = rows.stack(id)
            if standing is not None and standing.status != "REVIEW_IN_PROGRESS":
                raise Conflict(f"Stack [{request.name}] already exists", stack=request.name)
            record = fresh
            if standing is not None:
                record = msgspec.structs.replace(fresh, created_at_ms=standing.created_at_ms, events=standing.events)
            rows.put_body(id, prepared.body)
            rows.put_stack(journal.own_event(rows, record))

        await self._store.transact(begin)
        return self._spawn(id, self._create(request, prepared, journal, say))

    def _executor(self, journal: Journal, name: str, body: Body, say: Callable[[str], None] = lambda text: None) -> Executor:
        tags, is_lenient = body.tags, body.is_lenient
        return Executor(
            journal,
            providers=self.providers,
            groups=self._groups,
            context=lambda logical_id, token: msgspec.structs.replace(
                self.context(name, journal.stack_id, logical_id, token, tags, say), is_lenient=is_lenient
            ),
            rewrite=self.rewrite,
        )

    async def _create(self, request: Request, prepared: Prepared, journal: Journal, say: Callable[[str], None]) -> StackRecord:
        executor = self._executor(journal, request.name, prepared.body, say)
        why = await self._within(
            request, executor, executor.apply(prepared.plan, prepared.compiled, prepared.planner, prepared.body, creating=True)
        )
        if not why:
            return journal.record()
        return await self._creation_failed(journal, executor, request.on_failure, why, executor.failures)

    async def _within(self, request: Request, executor: Executor, work: Coroutine[Any, Any, str]) -> str:
        """The operation's own time limit, where the caller has set one."""
        if not request.timeout_minutes:
            return await work
        timer = asyncio.get_running_loop().call_later(request.timeout_minutes * 60, executor.stop.set)
        try:
            return await work
        finally:
            timer.cancel()

    async def _creation_failed(
        self, journal: Journal, executor: Executor, on_failure: str, why: str, failures: Mapping[str, str]
    ) -> StackRecord:
        if on_failure == "DO_NOTHING":
            return await journal.status("CREATE_FAILED", why)
        if on_failure == "DELETE":
            await journal.status("DELETE_IN_PROGRESS", why + "Delete requested by user.")
            return await self._finish_delete(journal, executor, frozenset())
        await journal.status("ROLLBACK_IN_PROGRESS", why + "Rollback requested by user.")
        whole = await executor.roll_back_creation()
        return await journal.status(
            "ROLLBACK_COMPLETE" if whole else "ROLLBACK_FAILED", "" if whole else self._unwilling(journal)
        )

    async def update(
        self, request: Request, prepared: Prepared, id: str, say: Callable[[str], None] = lambda text: None
    ) -> asyncio.Task[StackRecord]:
        """Begin to update. Raises `Conflict` for a stack that another operation holds or that cannot be updated."""
        journal = Journal(self._store, self._clock, id, say, request.client_token)

        def begin(tx: Any) -> None:
            rows = Rows(tx)
            record = rows.stack(id)
            check_updatable(record)
            assert record is not None
            changed = msgspec.structs.replace(
                record,
                status="UPDATE_IN_PROGRESS",
                reason="User Initiated",
                updated_at_ms=self._clock.now_ms(),
                client_token=request.client_token,
                source=request.source or record.source,
                role=request.role or record.role,
                notifications=request.notifications or record.notifications,
            )
            rows.put_stack(journal.own_event(rows, changed))

        await self._store.transact(begin)
        return self._spawn(id, self._update(request, prepared, journal, say))

    async def _update(self, request: Request, prepared: Prepared, journal: Journal, say: Callable[[str], None]) -> StackRecord:
        executor = self._executor(journal, request.name, prepared.body, say)
        why = await executor.apply(prepared.plan, prepared.compiled, prepared.planner, prepared.body, creating=False)
        if not why:
            await executor.clean("UPDATE_COMPLETE")
            return journal.record()
        if request.on_failure == "DO_NOTHING":
            return await journal.status("UPDATE_FAILED", why)
        return await self._roll_back_update(journal, executor, why)

    async def _roll_back_update(self, journal: Journal, executor: Executor, why: str) -> StackRecord:
        await journal.status("UPDATE_ROLLBACK_IN_PROGRESS", why)
        if not await executor.roll_back_update():
            return await journal.status("UPDATE_ROLLBACK_FAILED", self._unwilling(journal, "update"))
        await journal.status("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        await executor.clean_rollback()
        return await journal.status("UPDATE_ROLLBACK_COMPLETE")

    async def continue_rollback(self, name: str) -> asyncio.Task[StackRecord]:
        """Try a rollback that failed once more. Raises `Conflict` where there is none to continue."""
        record = self.get(name)
        if record.status not in ("UPDATE_ROLLBACK_FAILED", "UPDATE_FAILED"):
            raise Conflict(f"Stack [{record.id}] is in {record.status} state and can not be continued to roll back")
        journal = Journal(self._store, self._clock, record.id, lambda text: None)
        executor = self._executor(journal, record.name, self.body(record.id))
        return self._spawn(record.id, self._roll_back_update(journal, executor, "User Initiated"))

    async def delete(
        self, name: str, retained: frozenset[str] = frozenset(), say: Callable[[str], None] = lambda text: None, token: str = ""
    ) -> asyncio.Task[StackRecord] | None:
        """Begin to delete; None if there is nothing to do. Raises `Conflict` when it is protected or its exports are in use."""
        record = self.find(name)
        if record is None or record.status == "DELETE_COMPLETE":
            return None
        journal = Journal(self._store, self._clock, record.id, say, token)

        def begin(tx: Any) -> None:
            rows = Rows(tx)
            now = rows.stack(record.id)
            if now is None or in_progress(now.status):
                state = now.status if now else "DELETE_COMPLETE"
                raise Conflict(f"Stack [{record.id}] is in {state} state and can not be deleted")
            if now.is_protected:
                raise Conflict(f"Stack [{record.name}] cannot be deleted while TerminationProtection is enabled")
            for export in rows.exports():
                users = importers(rows, export.name, record.id) if export.stack_id == record.id else []
                if users:
                    raise Conflict(f"Export {export.name} cannot be deleted as it is in use by {' and '.join(users)}")
            changed = msgspec.structs.replace(now, status="DELETE_IN_PROGRESS", reason="User Initiated", client_token=token)
            rows.put_stack(journal.own_event(rows, changed))

        await self._store.transact(begin)
        executor = self._executor(journal, record.name, self.body(record.id), say)
        return self._spawn(record.id, self._finish_delete(journal, executor, retained))

    async def _finish_delete(self, journal: Journal, executor: Executor, retained: frozenset[str]) -> StackRecord:
        failed = await executor.delete_all(retained)
        if failed:
            return await journal.status("DELETE_FAILED", f"The following resource(s) failed to delete: [{', '.join(failed)}]. ")
        now = self._clock.now_ms()

        def end(rows: Rows, record: StackRecord) -> StackRecord:
            for export in rows.exports():
                if export.stack_id == record.id:
                    rows.drop_export(export.name)
            for change_set in rows.change_sets(record.id):
                rows.drop_change_set(change_set)
            record = msgspec.structs.replace(record, status="DELETE_COMPLETE", reason="", deleted_at_ms=now)
            return journal.own_event(rows, record)

        return await journal.write(end)

    def _unwilling(self, journal: Journal, verb: str = "delete") -> str:
        names = [name for name, one in journal.resources().items() if one.status.endswith("_FAILED")]
        return f"The following resource(s) failed to {verb}: [{', '.join(names)}]. "

    # --- after a crash

    async def _resume(self, id: str) -> StackRecord:
        record = self.get(id)
        if not in_progress(record.status):  # another node was quicker
            return record
        why = "Martlet was stopped during the operation. "
        journal = Journal(self._store, self._clock, record.id, lambda text: None, record.client_token)
        executor = self._executor(journal, record.name, self.body(record.id))
        status = record.status
        if status in ("CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"):
            on_failure = (
                record.on_failure if status == "CREATE_IN_PROGRESS" and record.on_failure != "DO_NOTHING" else "ROLLBACK"
            )
            return await self._creation_failed(journal, executor, on_failure, why, {})
        if status in ("UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"):
            return await self._roll_back_update(journal, executor, why)
        if status == "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS":
            await executor.clean("UPDATE_COMPLETE")
            return journal.record()
        if status == "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS":
            await executor.clean_rollback()
            return await journal.status("UPDATE_ROLLBACK_COMPLETE")
        return await self._finish_delete(journal, executor, frozenset())


def check_updatable(record: StackRecord | None) -> None:
    """Raises `Conflict` unless a stack in this state can be updated."""
    if record is None:
        raise Conflict("the stack is gone")
    allowed = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
    if record.status not in allowed:
        raise Conflict(
            f"Stack:{record.id} is in {record.status} state and can not be updated.",
            remedy="delete it and create it again" if record.status.startswith(("ROLLBACK", "CREATE", "DELETE")) else "",
        )


def forget(rows: Rows, id: str) -> None:
    """Drop every row of a deleted stack."""
    record = rows.stack(id)
    if record is None or record.status != "DELETE_COMPLETE":
        return
    rows.drop_all(id)


def nothing_changes(prepared: Prepared, before: Body) -> bool:
    """Whether an update would change nothing at all: not a resource, not an output, not a tag."""
    if not prepared.plan.is_empty:
        return False
    body = prepared.body
    if body.tags != before.tags:
        return False
    same = orjson.loads(body.processed).get("Outputs") == orjson.loads(before.processed).get("Outputs")
    resources = orjson.loads(body.processed).get("Resources") == orjson.loads(before.processed).get("Resources")
    return same and (resources or not is_pending(body.processed)) and body.resolved == before.resolved


def failed_reason(events: list[Event], name: str) -> str:
    """The first failure among a stack's newest events (newest first), for people."""
    reason = ""
    for event in events:
        if event.logical_id == name and event.status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"):
            break
        if event.status.endswith("_FAILED") and event.reason and event.logical_id != name:
            reason = f"{event.logical_id}: {event.reason}"
    return reason


def failure(record: StackRecord, reason: str) -> DeployFailed:
    """The error of a deployment whose stack ended in `record.status`."""
    what = reason or record.reason or record.status
    return DeployFailed(f"stack {record.name} is {record.status}: {what}", status=record.status, stack_id=record.id)
