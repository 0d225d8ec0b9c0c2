"""GraphQL over the document database: schemas that are ready, and requests run against them."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from graphql import GraphQLError, GraphQLSchema, execute_sync
from graphql.execution.values import get_variable_values
from graphql.language import ast

from martlet.documents import Documents, Transaction, Usage, View, layout
from martlet.documents.layout import unpack_long
from martlet.errors import AccessDenied, InvalidInput, MartletError, NotFound, StoreFailed, Unsupported
from martlet.limits import LIMITS, exceeded
from martlet.protocols.graphql.asking import Call, ask_all, fill
from martlet.protocols.graphql.compiling import Plan, Write
from martlet.protocols.graphql.faults import Fault, Refusal, shown
from martlet.protocols.graphql.model import STATE, Model, State, state_of
from martlet.protocols.graphql.nodes import Constant, Level
from martlet.protocols.graphql.preparing import Cache, Prepared
from martlet.protocols.graphql.reader import Permit, Reader
from martlet.protocols.graphql.reading import read_model
from martlet.protocols.graphql.schema import make_schema
from martlet.protocols.graphql.writing import Writer

__all__ = ["Asking", "Engine", "Ready", "Service"]

_COST: Final = LIMITS["graphql_cost"].default
_ERRORS: Final = 100  # in one answer; where there are more, they are more of the same
_SCHEMAS: Final = LIMITS["graphql_schemas_cached"].default
_numbers = itertools.count(1)


class Asking(msgspec.Struct, frozen=True):
    """A request as GraphQL over HTTP has it."""

    query: str | None = None
    operation_name: str | None = None
    variables: dict[str, Any] = {}
    extensions: dict[str, Any] = {}


class Engine:
    """A schema, ready."""

    def __init__(self, state: State) -> None:
        self.number = next(_numbers)
        self.state = state
        self.model: Model = read_model(state.sources)
        self.schema: GraphQLSchema
        self.schema, self.sdl = make_schema(self.model)


class Ready(msgspec.Struct):
    """A request that may be run."""

    engine: Engine
    database: str
    prepared: Prepared
    operation: Any
    plan: Plan
    variables: Any  # graphql-core's, coerced
    given: dict[str, Any]  # as they came
    cost: int
    as_of: int | None = None
    key: str = ""  # of idempotency
    text: str = ""

    @property
    def kind(self) -> str:
        return self.plan.kind


class _Undone(Exception):
    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("the transaction is undone")
        self.faults = faults


class Service:
    """`call(database, function, event)` asks a function."""

    def __init__(self, documents: Documents, call: Callable[[str, str, bytes], Awaitable[bytes]]) -> None:
        self.documents = documents
        self.cache = Cache()
        self._call = call
        self._engines: OrderedDict[bytes, Engine] = OrderedDict()

    async def engine(self, database: str) -> Engine:
        """The database's schema as it stands. Raises `NotFound`."""
        raw = self.documents.read(database, lambda view: view.reader.get(STATE + database.encode()))
        if raw is None:
            raise NotFound(f"the database {database!r} has no GraphQL schema", remedy="import one: see docs/how-to/graphql.md")
        found = self._engines.get(raw)
        if found is None:
            found = await asyncio.to_thread(Engine, state_of(raw))
            self._engines[raw] = found
            while len(self._engines) > _SCHEMAS:
                _, gone = self._engines.popitem(last=False)
                self.cache.forget(gone.number)
        else:
            self._engines.move_to_end(raw)
        return found

    async def ready(self, database: str, asked: Asking, key: str = "") -> Ready:
        """Parse, validate, plan (or find all that done) and coerce variables. Raises `Refusal`, `NotFound`."""
        engine = await self.engine(database)
        text, given_hash = self._text(engine, asked)
        prepared = self.cache.prepared(engine.number, engine.schema, engine.model, text, engine.state.introspection)
        if given_hash:
            self.cache.remember(engine.number, given_hash, text)
        operation = prepared.operation(asked.operation_name)
        try:
            coerced = get_variable_values(engine.schema, operation.variable_definitions or (), asked.variables, max_errors=20)
            if isinstance(coerced, list):
                raise Refusal([shown(error) for error in coerced])
            plan = prepared.plan(operation, coerced.coerced)
            cost = plan.cost(coerced)
        except GraphQLError as error:
            raise Refusal([shown(error)]) from None
        except RecursionError:
            raise Refusal([shown(exceeded("graphql_depth", None, "the variables"))]) from None
        except MartletError as error:
            raise Refusal.of(error) from None
        if cost > _COST:
            raise Refusal([shown(exceeded("graphql_cost", cost, "the operation"))])
        as_of = asked.extensions.get("asOf")
        if as_of is not None and (type(as_of) is not int or plan.kind != "query"):
            raise Refusal([{"message": "extensions.asOf is a time in microseconds, and only queries take it"}])
        return Ready(engine, database, prepared, operation, plan, coerced, asked.variables, cost, as_of, key, text)

    def _text(self, engine: Engine, asked: Asking) -> tuple[str, str]:
        persisted = asked.extensions.get("persistedQuery")
        if persisted is None:
            if asked.query is None:
                raise Refusal([{"message": "the request has no `query`"}])
            return asked.query, ""
        if not isinstance(persisted, dict) or persisted.get("version") != 1 or not isinstance(persisted.get("sha256Hash"), str):
            raise Refusal([{"message": "extensions.persistedQuery is {version: 1, sha256Hash: ...}"}])
        given = persisted["sha256Hash"]
        return self.cache.by_hash(engine.number, given, asked.query), given

    async def run(self, ready: Ready, permit: Permit) -> dict[str, Any]:
        """The answer of a query or a mutation. Raises `MartletError` for a request that ends as a whole (denied, no store)."""
        if ready.key and ready.kind == "mutation" and not ready.plan.writes:
            raise Unsupported("an Idempotency-Key holds for mutations of documents, not of functions", field="Idempotency-Key")
        used = Usage()
        introspected = await self._introspect(ready, permit) if ready.plan.introspects else {}
        if ready.plan.writes:
            answer = await self._mutate(ready, permit, used)
        else:
            answer = await self._query(ready, permit, used, introspected)
        answer["extensions"] = {
            "cost": {"documents": ready.cost, "limit": _COST},
            "usage": {"read": used.read_operations, "write": used.write_operations, "compute": used.compute_operations},
            **answer.get("extensions", {}),
        }
        return answer

    # queries

    async def _query(self, ready: Ready, permit: Permit, used: Usage, introspected: Mapping[str, Any]) -> dict[str, Any]:
        signer = await self.documents.signer()
        level = Level([{}])

        def read(view: View) -> tuple[Reader, int]:
            run = Reader(view, ready.variables, permit, signer)
            run.introspected = introspected
            ready.plan.selection.run(run, level)
            raw = view.reader.get(layout.META_STAMP)
            return run, view.at if view.at is not None else unpack_long(raw) if raw is not None else 0

        run, stamp = self.documents.read(ready.database, read, as_of=ready.as_of, usage=used)
        late: list[Fault] = []
        while run.asked:
            run = await self._ask(ready, permit, used, run, level, late)
        run.check_size(level.outs[0])
        faults = [*level.faults.get(0, ()), *late]
        return _answer(level.outs[0], faults, {"ts": stamp, "reads": run.reads})

    async def _ask(self, ready: Ready, permit: Permit, used: Usage, run: Reader, root: Level, late: list[Fault]) -> Reader:
        """Ask the functions, and read what they lead to in a snapshot of its own."""
        asked, signer = run.asked, await self.documents.signer()
        for node, _ in asked:
            permit("lambda:InvokeFunction", node.function)
        answers = await ask_all(self.caller(ready.database), ready.database, asked, ready.variables)
        known = [{at: len(level.faults.get(at, ())) for at in range(len(level.outs))} for _, level in asked]

        def read(view: View) -> Reader:
            after = Reader(view, ready.variables, permit, signer)
            after.take_over(run)
            for (node, level), answer in zip(asked, answers, strict=True):
                fill(after, node, level, answer)
            return after

        after = self.documents.read(ready.database, read, as_of=ready.as_of, usage=used)
        for (_, level), before in zip(asked, known, strict=True):
            if level is root:
                continue
            for at, mine in level.faults.items():  # these came too late to be handed up
                for path, error, where in mine[before[at] :]:
                    late += [((*place, *path), error, where) for place in _paths(root.outs[0], level.outs[at])]
        return after

    def caller(self, database: str) -> Call:
        async def call(function: str, event: bytes) -> bytes:
            return await self._call(database, function, event)

        return call

    # mutations

    async def _mutate(self, ready: Ready, permit: Permit, used: Usage) -> dict[str, Any]:
        """All of an operation's mutations in one transaction: an answer with errors is of an operation that did nothing."""
        signer = await self.documents.signer()

        def change(tx: Transaction) -> bytes:
            run = Reader(tx, ready.variables, permit, signer)
            answer = _changed(run, Writer(tx, ready.engine.model, run.permit), ready.plan)
            run.check_size(answer)
            return msgspec.json.encode(answer)

        try:
            if not ready.key:
                raw, repeated = await self.documents.transact(ready.database, change, usage=used), False
            else:
                request = msgspec.json.encode(
                    [ready.text, ready.operation.name.value if ready.operation.name else "", ready.given]
                )
                raw, repeated = await self.documents.transact_once(ready.database, ready.key, request, change, usage=used)
        except _Undone as undone:
            return _answer(None, undone.faults, {})
        return {"data": msgspec.Raw(raw), "extensions": {"replayed": True} if repeated else {}}

    # introspection

    async def _introspect(self, ready: Ready, permit: Permit) -> dict[str, Any]:
        """Asked of graphql-core. Whoever may read or list one of the schema's collections may see the schema."""
        self._may_see(ready.engine, permit)
        name = ready.operation.name.value if ready.operation.name is not None else ""
        known = ready.prepared.introspected.get(name)
        if known is not None:
            return dict(known)
        fields = [field for node in ready.plan.introspects for field in node.fields]
        chosen = ast.SelectionSetNode(selections=tuple(fields))
        operation = ast.OperationDefinitionNode(
            operation=ast.OperationType.QUERY,
            variable_definitions=ready.operation.variable_definitions,
            directives=(),
            selection_set=chosen,
        )
        others = [node for node in ready.prepared.document.definitions if isinstance(node, ast.FragmentDefinitionNode)]
        document = ast.DocumentNode(definitions=(operation, *others))
        result = await asyncio.to_thread(execute_sync, ready.engine.schema, document, None, None, ready.given)
        if result.errors or result.data is None:
            raise InvalidInput(f"introspection failed: {result.errors[0].message if result.errors else 'no data'}")
        if not ready.operation.variable_definitions:
            ready.prepared.introspected[name] = result.data
        return dict(result.data)

    def _may_see(self, engine: Engine, permit: Permit) -> None:
        denied: AccessDenied | None = None
        for entity in engine.model.entities.values():
            for action in ("documents:List", "documents:Get"):
                try:
                    permit(action, entity.collection)
                    return
                except AccessDenied as error:
                    denied = error
        if denied is not None:
            raise denied


def _changed(run: Reader, writer: Writer, plan: Plan) -> dict[str, Any]:
    """The operation's mutations one after the other; each answer shows the state that it left. Raises `_Undone`."""
    level = Level([{}])
    out = level.outs[0]
    assert out is not None
    for node in plan.selection.nodes:
        if not isinstance(node, Write):
            assert isinstance(node, Constant)
            node.run(run, level)
            continue
        try:
            answer, faults = _write(run, writer, node)
        except (AccessDenied, StoreFailed):
            raise
        except (GraphQLError, MartletError) as error:
            raise _Undone([((node.key,), error, node.ast)]) from None
        if faults:
            raise _Undone([((node.key, *path), error, where) for path, error, where in faults])
        out[node.key] = answer
    return out


def _write(run: Reader, writer: Writer, node: Write) -> tuple[Any, list[Fault]]:
    given = node.arguments(run.variables)
    entity, version = node.entity, given.get("version")
    if node.reads:
        run.permit("documents:Get", entity.collection)
    if node.what == "delete":
        found = run.view.get(entity.collection, given["id"])
        level = run.documents(node.selection, [found]) if found is not None else None
        writer.delete(entity, given["id"], version)
        return (None, []) if level is None else (level.outs[0], level.faults.get(0, []))
    if node.what == "create":
        id = writer.create(entity, given.get("id"), given["data"])
    else:
        id = writer.update(entity, given["id"], given["data"], version, whole=node.what == "update")
    written = run.view.get(entity.collection, id)
    if written is None:  # its time to live is over already
        raise InvalidInput(f"the {entity.name} would be past its time to live at once", field="data")
    level = run.documents(node.selection, [written])
    return level.outs[0], level.faults.get(0, [])


def _answer(data: Any, faults: list[Fault], extensions: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if faults:
        answer["errors"] = [shown(error, path, where) for path, error, where in faults[:_ERRORS]]
    answer["data"] = data
    if extensions:
        answer["extensions"] = extensions
    return answer


def _paths(data: Any, wanted: Any) -> list[tuple[str | int, ...]]:
    """Where an object stands in an answer: in several places, where several documents lead to it."""
    found: list[tuple[str | int, ...]] = []
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    while waiting and wanted is not None:
        path, value = waiting.pop()
        if value is wanted:
            found.append(path)
        elif isinstance(value, dict):
            waiting += [((*path, name), item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, place), item) for place, item in enumerate(value)]
    return found[:20]
