"""Carries a plan out, and rolls back what failed.

Every change of a resource is told to the store before it begins and after it ends, so that a rollback is the same whether
the change failed or the platform was killed: it reads the rows, takes away what was made and puts back what was there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from martlet.apps.stacks import kinds
from martlet.apps.stacks.compiling import Compiled
from martlet.apps.stacks.journal import Journal, put_exports
from martlet.apps.stacks.planning import Node, Plan, Planner, attribute_of, left_out, metadata_text
from martlet.apps.stacks.providers.apis import ApiPart
from martlet.apps.stacks.providers.provider import REPLACE, Context, Physical, Provider
from martlet.apps.stacks.reading import TemplateFault
from martlet.apps.stacks.records import Body, Rows, StackRecord, State, StoredResource
from martlet.apps.stacks.references import order
from martlet.errors import DeployFailed, MartletError

__all__ = ["CANCELLED", "Executor", "Group"]

CANCELLED: Final = "Resource creation cancelled"
_AT_ONCE: Final = 8
_LOG: Final = logging.getLogger("martlet.stacks")
_REPLACING: Final = "Requested update requires the creation of a new physical resource; hence creating one."


class Group(Protocol):
    """Resources that only together are something, such as an API with its routes. Called when all of them are in place."""

    def check(self, parts: Sequence[ApiPart], warn: Callable[[str], None] | None) -> None:
        """Whether that can be made of `parts`. Raises `DeployFailed` by name; what is not honoured goes to `warn` if given."""
        ...

    async def settle(self, context: Context, states: Mapping[str, State]) -> None:
        """Make what these resources say be so; what they do not mention any more of this stack goes."""
        ...


class Executor:
    """One operation of one stack."""

    def __init__(
        self,
        journal: Journal,
        *,
        providers: Mapping[str, Provider],
        groups: tuple[Group, ...],
        context: Callable[[str, str], Context],
        rewrite: Callable[[Any], Any],
    ) -> None:
        self._journal = journal
        self._providers = providers
        self._groups = groups
        self.stop = asyncio.Event()  # set: nothing new begins, and what only waits gives up
        self._base_context = context
        self._rewrite = rewrite
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._failed: dict[str, str] = {}
        self._made: dict[str, Physical] = {}

    def _context(self, logical_id: str, token: str, type: str = "") -> Context:
        return msgspec.structs.replace(self._base_context(logical_id, token), stop=self.stop, type=type)

    # --- forwards

    async def apply(self, plan: Plan, compiled: Compiled, planner: Planner, body: Body, *, creating: bool) -> str:
        """Do what `plan` says up to the commit. Returns "" or why it failed; then the caller rolls back."""
        existing = self._journal.resources()
        scope = compiled.scope(planner.scope.pseudo, self._ref(plan), self._attribute(plan), planner.scope._imported)
        done = {name: asyncio.Event() for name in plan.order}

        async def one(node: Node) -> None:
            try:
                for need in node.needs:
                    await done[need].wait()
                if self.stop.is_set() or node.is_dropped:
                    return
                async with self._gate:
                    if not self.stop.is_set():
                        await self._bring(node, scope, existing.get(node.logical_id), creating)
            finally:
                done[node.logical_id].set()

        work = [one(plan.nodes[name]) for name in plan.order]
        results = await asyncio.gather(*work, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if self._failed:
            return self._why(creating)
        try:
            await self._settle()
            body = self._finished(body, compiled, scope)
            await self._commit(plan, body, creating)
        except MartletError as error:
            return error.message
        return ""

    def _why(self, creating: bool) -> str:
        verb = "create" if creating else "update"
        names = ", ".join(name for name, why in self._failed.items() if why != CANCELLED)
        return f"The following resource(s) failed to {verb}: [{names}]. "

    @property
    def failures(self) -> dict[str, str]:
        """Why, by logical id."""
        return dict(self._failed)

    def _ref(self, plan: Plan) -> Callable[[str], Any]:
        def ref(logical_id: str) -> Any:
            return self._made[logical_id].id if logical_id in self._made else left_out(logical_id)

        return ref

    def _attribute(self, plan: Plan) -> Callable[[str, str], Any]:
        def attribute(logical_id: str, name: str) -> Any:
            node = plan.nodes.get(logical_id)
            if node is None or node.is_dropped or logical_id not in self._made:
                return left_out(logical_id)
            return attribute_of(self._providers[node.kind].kind, logical_id, self._made[logical_id], name)

        return attribute

    async def _bring(self, node: Node, scope: Any, found: StoredResource | None, creating: bool) -> None:
        """Make `node` be as the template says. A failure is recorded, not raised."""
        state = found.now if found is not None else None
        provider = self._providers[node.kind]
        try:
            properties = self._properties(node, provider, scope)
            if state is None or found is None:
                await self._create(node, provider, properties)
                return
            if properties == state.properties:
                self._made[node.logical_id] = Physical(state.physical_id, state.attributes)
                return
            await self._update(node, provider, found, state, properties)
        except MartletError as error:
            await self._fail(node, found, error.message)
        except TimeoutError:
            await self._fail(node, found, "it did not become ready in time")
        except Exception as error:
            _LOG.exception("resource %s failed", node.logical_id)
            await self._fail(node, found, f"internal failure: {type(error).__name__}: {error}")

    def _properties(self, node: Node, provider: Provider, scope: Any) -> dict[str, Any]:
        evaluated = scope.evaluate(node.declared.properties)
        faults = [
            one
            for one in kinds.check(provider.kind, evaluated, node.logical_id, node.declared.line)
            if not one.unsupported  # told, and allowed, when it was planned
        ]
        if faults:
            raise TemplateFault(faults[0].text, faults[0].line, logical_id=node.logical_id)
        found: dict[str, Any] = self._rewrite(kinds.typed(provider.kind, evaluated))
        return found

    async def _create(
        self, node: Node, provider: Provider, properties: dict[str, Any], old: StoredResource | None = None
    ) -> None:
        """Make a resource; with `old`, to take its place."""
        context = self._context(node.logical_id, node.token, node.declared.type)
        physical = provider.identify(context, properties)
        state = self._state(node, physical, properties, is_made=False)
        row = StoredResource(
            logical_id=node.logical_id,
            status="CREATE_IN_PROGRESS" if old is None else "UPDATE_IN_PROGRESS",
            reason="" if old is None else _REPLACING,
            updated_at_ms=self._journal.now_ms,
            now=state,
            old=old.now if old is not None else None,
            is_new=old is None,
            is_replaced=old is not None,
            is_touched=True,
        )
        await self._journal.resource(row, physical_id="" if old is None else None)
        made = await provider.create(context, physical.id, properties)
        done = msgspec.structs.replace(
            row,
            status="CREATE_COMPLETE" if old is None else "UPDATE_COMPLETE",
            reason="",
            updated_at_ms=self._journal.now_ms,
            now=msgspec.structs.replace(state, physical_id=made.id, attributes=made.attributes, is_made=True),
        )
        await self._initiated(done, "Resource creation Initiated" if old is None else "")
        self._made[node.logical_id] = made

    async def _initiated(self, done: StoredResource, first: str) -> None:
        def change(rows: Rows, record: StackRecord) -> StackRecord:
            rows.put_resource(self._journal.stack_id, done)
            if first:
                begun = msgspec.structs.replace(done, status="CREATE_IN_PROGRESS", reason=first)
                record = self._journal.event(rows, record, begun)
            return self._journal.event(rows, record, done)

        await self._journal.write(change)

    async def _update(
        self, node: Node, provider: Provider, found: StoredResource, state: State, properties: dict[str, Any]
    ) -> None:
        if kinds.needs_replacement(provider.kind, state.properties, properties):
            await self._replace(node, provider, found, properties)
            return
        context = self._context(node.logical_id, state.token, state.type)
        wanted = self._state(node, Physical(state.physical_id, state.attributes), properties, token=state.token)
        row = StoredResource(
            logical_id=node.logical_id,
            status="UPDATE_IN_PROGRESS",
            updated_at_ms=self._journal.now_ms,
            now=wanted,
            old=state,
            is_touched=True,
        )
        await self._journal.resource(row)
        made = await provider.update(context, Physical(state.physical_id, state.attributes), state.properties, properties)
        if made is REPLACE:
            await self._replace(node, provider, found, properties)
            return
        assert isinstance(made, Physical)
        done = msgspec.structs.replace(
            row,
            status="UPDATE_COMPLETE",
            updated_at_ms=self._journal.now_ms,
            now=msgspec.structs.replace(wanted, physical_id=made.id, attributes=made.attributes),
            is_replaced=made.id != state.physical_id,  # a custom resource may answer with another id
        )
        await self._journal.resource(done)
        self._made[node.logical_id] = made

    async def _replace(self, node: Node, provider: Provider, found: StoredResource, properties: dict[str, Any]) -> None:
        """The new one first; the old one goes when everything has ended well. A name of one's own can exist only once."""
        state = found.now
        assert state is not None
        token = node.token if node.token != state.token else f"{node.token}r"
        renewed = msgspec.structs.replace(node, token=token)
        physical = provider.identify(self._context(node.logical_id, token), properties)
        if physical.id and physical.id == state.physical_id:
            raise DeployFailed(
                f"CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename "
                f"{state.physical_id} and update the stack again."
            )
        await self._create(renewed, provider, properties, found)

    def _state(
        self, node: Node, physical: Physical, properties: dict[str, Any], *, is_made: bool = True, token: str | None = None
    ) -> State:
        return State(
            type=node.declared.type,
            physical_id=physical.id,
            properties=properties,
            attributes=physical.attributes,
            depends_on=tuple(sorted(node.needs)),
            deletion_policy=node.deletion_policy,
            update_replace_policy=node.update_replace_policy,
            metadata=metadata_text(node.declared),
            token=node.token if token is None else token,
            is_made=is_made,
        )

    async def _fail(self, node: Node, found: StoredResource | None, reason: str) -> None:
        self._failed[node.logical_id] = reason
        self.stop.set()
        now = self._journal.resources().get(node.logical_id)
        is_new = found is None or found.now is None
        status = "CREATE_FAILED" if is_new else "UPDATE_FAILED"
        if now is None:  # it failed before anything was begun
            now = StoredResource(
                logical_id=node.logical_id,
                status=status,
                updated_at_ms=self._journal.now_ms,
                now=self._state(node, Physical(""), {}, is_made=False),
                is_new=True,
            )
        failed = msgspec.structs.replace(now, status=status, reason=reason, updated_at_ms=self._journal.now_ms)
        await self._journal.resource(failed)

    # --- the commit

    async def _settle(self) -> None:
        states = {name: one.now for name, one in self._journal.resources().items() if one.now and one.now.is_made}
        for group in self._groups:
            await group.settle(self._context("", ""), states)

    def _finished(self, body: Body, compiled: Compiled, scope: Any) -> Body:
        """The body with its outputs evaluated."""
        outputs = []
        for name, output in compiled.template.outputs.items():
            if output.get("Condition") and not compiled.conditions.get(output["Condition"], False):
                continue
            line = compiled.template.outputs.lines.get(name, 0)
            found = scope.evaluate(output["Value"])
            if isinstance(found, list | dict) or found is None:
                raise TemplateFault(
                    f"Template format error: The Value field of every Outputs member must evaluate to a String. ({name})", line
                )
            shown = {"OutputKey": name, "OutputValue": scope.text(found, f"output {name}", line)}
            if "Description" in output:
                shown["Description"] = str(output["Description"])
            if "Export" in output:
                shown["ExportName"] = scope.text(output["Export"]["Name"], f"the export of output {name}", line)
            outputs.append(shown)
        return msgspec.structs.replace(body, outputs=tuple(outputs))

    async def _commit(self, plan: Plan, body: Body, creating: bool) -> None:
        """The moment the operation happened: from here on it is only cleaned up."""

        def change(rows: Rows, record: StackRecord) -> StackRecord:
            put_exports(rows, record.id, record.name, body)
            rows.put_body(record.id, body)
            for name, row in rows.resources(record.id).items():
                node = plan.nodes.get(name)
                if node is None or node.is_dropped:
                    rows.put_resource(record.id, msgspec.structs.replace(row, is_removed=True))
                elif row.now is not None:
                    keep = row.old if row.is_replaced else None
                    state = msgspec.structs.replace(
                        row.now,
                        depends_on=tuple(sorted(node.needs)),
                        deletion_policy=node.deletion_policy,
                        update_replace_policy=node.update_replace_policy,
                        metadata=metadata_text(node.declared),
                    )
                    rows.put_resource(
                        record.id,
                        msgspec.structs.replace(row, now=state, old=keep, is_new=False, is_touched=False),
                    )
            record = msgspec.structs.replace(
                record,
                status="CREATE_COMPLETE" if creating else "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
                reason="",
                revision=record.revision + 1,
            )
            return self._journal.own_event(rows, record)

        await self._journal.write(change)

    async def clean(self, final: str) -> None:
        """After the commit of an update: old and removed resources go. One that will not go is left, and its event says why."""
        rows = self._journal.resources()
        going = {name: one for name, one in rows.items() if one.is_removed}
        states = {name: one.now for name, one in going.items() if one.now is not None}
        await self._in_reverse(states, lambda name: self._drop(going[name], states[name], "Retain"))
        for name, row in rows.items():
            if row.old is not None and not row.is_removed:
                await self._drop_old(name, row)
        await self._journal.status(final)

    async def _drop_old(self, name: str, row: StoredResource) -> None:
        old = row.old
        assert old is not None
        clean = msgspec.structs.replace(row, old=None, is_replaced=False, is_touched=False, is_new=False)
        if old.update_replace_policy == "Retain":
            await self._journal.write(lambda rows, record: _put(rows, record, clean))
            return
        reason = ""
        try:
            await self._delete_state(name, old)
        except MartletError as error:
            reason = error.message
        gone = StoredResource(
            logical_id=name,
            status="DELETE_FAILED" if reason else "DELETE_COMPLETE",
            reason=reason,
            updated_at_ms=self._journal.now_ms,
            now=old,
        )

        def change(rows: Rows, record: StackRecord) -> StackRecord:
            rows.put_resource(record.id, clean)
            return self._journal.event(rows, record, gone)

        await self._journal.write(change)

    # --- backwards

    async def roll_back_creation(self) -> bool:
        """Take away everything that was made; True if all went."""
        rows = self._journal.resources()
        states = {name: one.now for name, one in rows.items() if one.now is not None}
        failed: list[str] = []

        async def drop(name: str) -> None:
            # Retain keeps what a failed creation made as well; RetainExceptOnCreate is there to say otherwise.
            if not await self._drop(rows[name], states[name], "Retain", recovering=True):
                failed.append(name)

        await self._in_reverse(states, drop)
        await self._settle_quietly()
        return not failed

    async def roll_back_update(self) -> bool:
        """Put back what was there before the update; True if all of it is. New resources go afterwards, in `clean_rollback`."""
        rows = self._journal.resources()
        touched = {name: one for name, one in rows.items() if one.is_touched and not one.is_new and one.old is not None}
        needs = {name: frozenset(one.old.depends_on) & touched.keys() for name, one in touched.items() if one.old}
        failed: list[str] = []

        async def restore(name: str) -> None:
            if not await self._restore(touched[name]):
                failed.append(name)

        await self._in_order(needs, restore)
        if not failed:
            await self._settle_restored()
        return not failed

    async def _restore(self, row: StoredResource) -> bool:
        now, old = row.now, row.old
        assert old is not None
        if now is None or row.is_replaced:  # the old one was never touched; what was made beside it goes in the clean-up
            return True
        provider = self._providers[self._kind(old.type)]
        context = msgspec.structs.replace(self._context(row.logical_id, old.token, old.type), is_repair=True)
        begun = msgspec.structs.replace(row, status="UPDATE_IN_PROGRESS", reason="", updated_at_ms=self._journal.now_ms)
        await self._journal.resource(begun)
        try:
            made = await provider.update(context, Physical(old.physical_id, old.attributes), now.properties, old.properties)
        except MartletError as error:
            await self._journal.resource(msgspec.structs.replace(begun, status="UPDATE_FAILED", reason=error.message))
            return False
        attributes = made.attributes if isinstance(made, Physical) and made.attributes else old.attributes
        state = msgspec.structs.replace(old, attributes=attributes)
        await self._journal.resource(
            msgspec.structs.replace(begun, status="UPDATE_COMPLETE", now=state, old=None, is_touched=False)
        )
        return True

    async def clean_rollback(self) -> None:
        """After a rollback: what the failed update made goes, and the rows say what was before."""
        rows = self._journal.resources()
        fresh = {name: one.now for name, one in rows.items() if one.is_new and one.now is not None}
        await self._in_reverse(fresh, lambda name: self._drop(rows[name], fresh[name], "Retain", recovering=True))
        for name, row in rows.items():
            if row.is_replaced and row.old is not None and row.now is not None:
                await self._drop_replacement(name, row, row.now, row.old)

    async def _drop_replacement(self, name: str, row: StoredResource, now: State, old: State) -> None:
        reason = ""
        try:
            await self._delete_state(name, now, recovering=not now.is_made)
        except MartletError as error:
            reason = error.message
        back = StoredResource(logical_id=name, status="UPDATE_COMPLETE", updated_at_ms=self._journal.now_ms, now=old)
        gone = msgspec.structs.replace(
            row, status="DELETE_FAILED" if reason else "DELETE_COMPLETE", reason=reason, updated_at_ms=self._journal.now_ms
        )

        def change(rows: Rows, record: StackRecord) -> StackRecord:
            rows.put_resource(record.id, back)
            return self._journal.event(rows, record, gone)

        await self._journal.write(change)

    async def delete_all(self, retained: frozenset[str] = frozenset()) -> list[str]:
        """Remove every resource; returns those that would not go."""
        rows = self._journal.resources()
        states = {name: one.now for name, one in rows.items() if one.now is not None}
        failed: list[str] = []

        async def drop(name: str) -> None:
            if name in retained:
                await self._journal.dropped(rows[name], "DELETE_SKIPPED")
            elif not await self._drop(rows[name], states[name], "Retain", "RetainExceptOnCreate", recovering=True):
                failed.append(name)

        await self._in_reverse(states, drop, lambda: bool(failed))
        return failed

    # --- one by one

    def _kind(self, type: str) -> str:
        return "AWS::CloudFormation::CustomResource" if type.startswith("Custom::") else type

    async def _drop(self, row: StoredResource, state: State, *policies: str, recovering: bool = False) -> bool:
        """Delete one resource and its row; False, with an event, if it will not go."""
        if state.is_made and state.deletion_policy in policies:
            await self._journal.dropped(row, "DELETE_SKIPPED")
            return True
        if state.physical_id or state.is_made:
            begun = msgspec.structs.replace(row, status="DELETE_IN_PROGRESS", reason="", updated_at_ms=self._journal.now_ms)
            await self._journal.resource(begun)
        try:
            await self._delete_state(row.logical_id, state, recovering=recovering and not state.is_made)
            if row.old is not None and row.is_replaced:
                await self._delete_state(row.logical_id, row.old)
        except MartletError as error:
            failed = msgspec.structs.replace(
                row, status="DELETE_FAILED", reason=error.message, updated_at_ms=self._journal.now_ms
            )
            await self._journal.resource(failed)
            return False
        await self._journal.dropped(row, "DELETE_COMPLETE")
        return True

    async def _delete_state(self, logical_id: str, state: State, *, recovering: bool = False) -> None:
        provider = self._providers.get(self._kind(state.type))
        if provider is None:
            return  # of a type that this Martlet does not know any more: there is nothing behind it
        context = self._context(logical_id, state.token, state.type)
        physical: Physical | None = Physical(state.physical_id, state.attributes)
        if not state.is_made:
            begun = bool(state.physical_id or state.properties)
            physical = await provider.recover(context, state.physical_id, state.properties) if begun else None
        if physical is None:
            return
        try:
            await provider.delete(context, physical, state.properties)
        except TimeoutError as error:
            raise DeployFailed("it did not go in time") from error

    async def _settle_quietly(self) -> None:
        try:
            await self._settle()
        except MartletError as error:
            _LOG.error("after a rollback: %s", error.message)

    async def _settle_restored(self) -> None:
        """The groups as they were: replaced resources count as their old ones, new ones not at all."""
        states: dict[str, State] = {}
        for name, row in self._journal.resources().items():
            state = row.old if row.is_replaced else None if row.is_new else row.now
            if state is not None and state.is_made:
                states[name] = state
        for group in self._groups:
            await group.settle(self._context("", ""), states)

    # --- order

    async def _in_order(
        self,
        needs: Mapping[str, frozenset[str]],
        work: Callable[[str], Awaitable[Any]],
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        done = {name: asyncio.Event() for name in needs}
        try:
            order(needs)
        except TemplateFault:  # rows of two templates, half way between them, may need each other
            needs = dict.fromkeys(needs, frozenset())

        async def one(name: str) -> None:
            try:
                for need in needs[name]:
                    await done[need].wait()
                async with self._gate:
                    if not give_up():
                        await work(name)
            finally:
                done[name].set()

        results = await asyncio.gather(*map(one, needs), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _in_reverse(
        self,
        states: Mapping[str, State],
        work: Callable[[str], Awaitable[Any]],
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """What needs others goes before them."""
        needed: dict[str, set[str]] = {name: set() for name in states}
        for name, state in states.items():
            for need in state.depends_on:
                if need in needed:
                    needed[need].add(name)
        await self._in_order({name: frozenset(users) for name, users in needed.items()}, work, give_up)


def _put(rows: Rows, record: StackRecord, row: StoredResource) -> StackRecord:
    rows.put_resource(record.id, row)
    return record
