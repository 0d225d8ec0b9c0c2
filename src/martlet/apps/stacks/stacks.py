"""Stacks as apps: deployed from a template's file or folder, listed and destroyed like any app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from martlet.apps.package import check_app_name
from martlet.apps.stacks.artifacts import Assets, Workshop, is_built
from martlet.apps.stacks.compiling import CODE_BUCKET, Artifact
from martlet.apps.stacks.deployed import StackDeployment
from martlet.apps.stacks.engine import (
    Engine,
    Local,
    Prepared,
    Request,
    check_updatable,
    failed_reason,
    failure,
    nothing_changes,
)
from martlet.apps.stacks.finding import PACKED, template_of
from martlet.apps.stacks.providers.custom import Responses
from martlet.apps.stacks.reading import TemplateFault, read
from martlet.apps.stacks.records import StackRecord
from martlet.clock import Clock
from martlet.errors import DeployFailed, InvalidInput, MartletError, NotFound, Unsupported
from martlet.limits import LIMITS, exceeded

__all__ = ["StackDeployment", "Stacks"]

_GOOD: Final = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_SERVERLESS_BUCKET: Final = "ServerlessDeploymentBucket"
Say = Callable[[str], None]


class Stacks:
    """All stacks of a platform as apps. Call `load` before anything else and `close` at the end."""

    def __init__(self, engine: Engine, workshop: Workshop, clock: Clock, responses: Responses | None = None) -> None:
        self.engine = engine
        self.responses = responses or Responses()
        self._workshop = workshop
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}

    async def load(self) -> None:
        await self.engine.load()

    async def close(self) -> None:
        await self.engine.close()

    def list(self) -> list[StackRecord]:
        """Live stacks by name, nested ones left out."""
        found = [record for record in self.engine.live() if not record.parent and record.status != "REVIEW_IN_PROGRESS"]
        return sorted(found, key=lambda record: record.name)

    def find(self, name: str) -> StackRecord | None:
        record = self.engine.find(name)
        return None if record is None or record.status == "DELETE_COMPLETE" else record

    def warnings(self, record: StackRecord) -> tuple[str, ...]:
        """What `--lenient` left out."""
        return self.engine.body(record.id).warnings

    def functions(self, record: StackRecord) -> tuple[str, ...]:
        """Names of its functions."""
        rows = self.engine.resources(record.id).values()
        states = [row.now for row in rows if row.now is not None and row.now.type == "AWS::Lambda::Function"]
        return tuple(sorted(state.physical_id for state in states if state.is_made))

    def outputs(self, record: StackRecord) -> dict[str, str]:
        return {one["OutputKey"]: one["OutputValue"] for one in self.engine.body(record.id).outputs}

    def referenced(self) -> set[str]:
        """Addresses of code that stacks may need again, for a rollback or an update."""
        found: set[str] = set()
        for record in self.engine.live():
            for resource in self.engine.resources(record.id).values():
                for state in (resource.now, resource.old):
                    for name in ("Code", "Content"):
                        code = state.properties.get(name) if state is not None else None
                        if isinstance(code, dict) and code.get("S3Bucket") == CODE_BUCKET:
                            found.add(str(code.get("S3Key")))
        return found

    # --- deploying

    async def deploy(
        self,
        path: Path,
        name: str,
        parameters: Mapping[str, str] | None = None,
        *,
        is_lenient: bool = False,
        dry_run: bool = False,
        progress: Say = lambda text: None,
        begun: Callable[[], None] = lambda: None,
    ) -> StackDeployment:
        """Make stack `name` be what the template at `path` says, with code beside it. An unfinished first creation is
        removed before. `begun` is called before the first change. Parameters that are not given keep their value of the last
        deployment.

        Raises `TemplateFault`, `Unsupported`, `DeployFailed` (rolled back), `Conflict`; each names file and line."""
        started = self._clock.monotonic_ns()
        check_app_name(name)
        template = await asyncio.to_thread(lambda: template_of(path.absolute()))
        if template is None:
            raise InvalidInput(f"{path} is no template", remedy="name a .yaml, .yml or .json file")
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            try:
                request, prepared, record, new_id = await self._prepared(template, name, parameters or {}, is_lenient, progress)
            except (TemplateFault, Unsupported) as error:
                raise _placed(error, template) from error
            if dry_run or (record is not None and nothing_changes(prepared, self.engine.body(record.id))):
                return self._summary(name, record, prepared, started, dry_run=dry_run)
            for warning in prepared.plan.warnings:
                progress(f"warning: {warning}")
            begun()
            if record is None:
                task = await self.engine.create(request, prepared, new_id, progress)
            else:
                task = await self.engine.update(request, prepared, record.id, progress)
            ended = await asyncio.shield(task)
            if ended.status not in _GOOD:
                reason = failed_reason(self.engine.events(ended.id), name)
                raise failure(ended, reason)
            return self._summary(name, ended, prepared, started, dry_run=False)

    async def _prepared(
        self, template: Path, name: str, parameters: Mapping[str, str], is_lenient: bool, say: Say
    ) -> tuple[Request, Prepared, StackRecord | None, str]:
        record = self.find(name)
        if record is not None and record.status in ("ROLLBACK_COMPLETE", "CREATE_FAILED", "ROLLBACK_FAILED", "DELETE_FAILED"):
            say(f"stack {name} is {record.status}: it is removed first")
            await self.destroy(name)
            record = None
        if record is not None:
            check_updatable(record)
        text = await asyncio.to_thread(_text_of, template)
        given = dict(parameters)
        if record is not None:
            known = set(read(text).get("Parameters") or ())
            before = self.engine.body(record.id).parameters
            given = {**{key: value for key, value in before.items() if key in known}, **given}
        request = Request(name=name, template=text, parameters=given, is_lenient=is_lenient, source=str(template))
        id = record.id if record is not None else self.engine.new_id(name)
        prepared = await self.engine.prepare(request, id, self.local(template, say, is_lenient=is_lenient))
        return request, prepared, record, id

    def local(self, template: Path, say: Say, *, is_lenient: bool = False) -> Local:
        """The files beside a template."""
        base = template.absolute().parent
        built = is_built(template)

        async def package(artifact: Artifact) -> str:
            return await self._workshop.package(artifact, base, say, is_built=built, is_lenient=is_lenient)

        def load(location: str, line: int) -> bytes:
            if location.startswith(("s3://", "https://", "http://")):
                raise Unsupported(f"{location} is not fetched", remedy="name a local file", line=line)
            try:
                with (base / location).open("rb") as stream:
                    content = stream.read(LIMITS["template_bytes"].default + 1)
            except OSError as error:
                raise TemplateFault(f"cannot read {location}: {error.strerror}", line) from error
            if len(content) > LIMITS["template_bytes"].default:
                raise exceeded("template_bytes", None, location)
            return content

        async def is_slow(artifact: Artifact) -> bool:
            return not built and await self._workshop.is_slow(artifact, base, is_lenient=is_lenient)

        assets = Assets(base, template.name.removesuffix(template.suffix))
        return Local(load, package, True, is_slow, assets.find)

    def _summary(
        self, name: str, record: StackRecord | None, prepared: Prepared, started: int, *, dry_run: bool
    ) -> StackDeployment:
        changes = tuple(change.text() for change in prepared.plan.changes if change.action != "Keep")
        return StackDeployment(
            app=name,
            revision=record.revision if record is not None else 0,
            status=record.status if record is not None else "",
            outputs=self.outputs(record) if record is not None else {},
            changes=changes,
            warnings=prepared.plan.warnings,
            resources=len(prepared.plan.nodes),
            duration_ms=(self._clock.monotonic_ns() - started) // 1_000_000,
            dry_run=dry_run,
            stack_id=record.id if record is not None else "",
        )

    async def destroy(self, name: str) -> None:
        """Raises `NotFound`, `Conflict` (exports in use, an operation runs), `DeployFailed` if a resource will not go."""
        if self.find(name) is None:
            raise NotFound(f"there is no stack {name!r}", remedy="see `martlet apps`")
        task = await self.engine.delete(name)
        if task is None:
            return
        ended = await asyncio.shield(task)
        if ended.status != "DELETE_COMPLETE":
            raise failure(ended, failed_reason(self.engine.events(ended.id), name))


def _text_of(template: Path) -> str:
    try:
        with template.open("rb") as stream:
            content = stream.read(LIMITS["template_bytes"].default + 1)
    except OSError as error:
        raise DeployFailed(f"cannot read {template}: {error.strerror}", remedy="check the path") from error
    if len(content) > LIMITS["template_bytes"].default:
        raise exceeded("template_bytes", None, template.name)
    if template.name == PACKED:
        content = _without_bucket(content)
    return content.decode("utf-8-sig", "surrogateescape")


def _without_bucket(content: bytes) -> bytes:
    """The Serverless Framework's template makes a bucket for its own uploads, which are here as files: it is left out."""
    try:
        body = json.loads(content)
        for name in (_SERVERLESS_BUCKET, f"{_SERVERLESS_BUCKET}Policy"):
            body["Resources"].pop(name, None)
        body.get("Outputs", {}).pop(f"{_SERVERLESS_BUCKET}Name", None)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DeployFailed(f"{PACKED} cannot be read: {error!r}", remedy="run `osls package` again") from error
    return json.dumps(body, indent=1).encode()


def _placed(error: MartletError, template: Path) -> DeployFailed:
    """The error with the template's file."""
    line = error.details.get("line")
    where = f"{template.name}:{line}" if line else template.name
    text = error.text if isinstance(error, TemplateFault) else error.message.removesuffix(f" (line {line})")
    details = {**error.details, "file": str(template), "code": error.code}
    return DeployFailed(f"{where}: {text}", remedy=error.remedy, **details)
