"""SAM templates to CloudFormation templates, in a process of its own that is started when needed and ends when idle."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from martlet import config
from martlet.apps.stacks.reading import Map, Seq, TemplateFault, line_of
from martlet.errors import DeployFailed
from martlet.limits import LIMITS, exceeded

__all__ = ["Translation"]

_IDLE_SECONDS: Final = 120.0
_PROGRAM: Final = Path(__file__).with_name("translator.py")
_ANSWER_BYTES: Final = 64 << 20
_FAILED: Final = "Transform AWS::Serverless-2016-10-31 failed with: "
_PATTERN_SECONDS: Final = 2.0


class Translation:
    """One worker process, shared by all stacks. `close` ends it."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None

    async def warm(self) -> None:
        """Start the process ahead of need; it imports the translator when it is first asked."""
        async with self._turn:
            await self._started()

    async def translate(self, template: Map, parameters: dict[str, Any]) -> Map:
        """The CloudFormation template that SAM's `template` stands for, with the lines of what it came from.

        Raises `TemplateFault` with the translator's own words, `LimitExceeded` (translation_seconds)."""
        request = {"template": template, "parameters": parameters, "region": self._region}
        answer = await self._ask(request, LIMITS["translation_seconds"].default, "translation_seconds")
        if "template" in answer:
            return _lined(answer["template"], template)
        errors = answer.get("errors") or []
        logical_id = next((one["logical_id"] for one in errors if one["logical_id"]), "")
        line = line_of(template.get("Resources"), logical_id) if logical_id else 0
        text = " ".join([str(answer.get("text", "no answer")), *(one["text"] for one in errors)])
        raise TemplateFault(_FAILED + text, line, logical_id=logical_id)

    async def matches(self, pattern: str, value: str) -> bool:
        """Whether all of `value` matches: in the worker, because a hostile pattern never ends. Raises `ValueError`."""
        try:
            answer = await self._ask({"pattern": pattern, "value": value}, _PATTERN_SECONDS, "")
        except TimeoutError:
            raise ValueError(f"it takes more than {_PATTERN_SECONDS:g} seconds") from None
        if "matches" not in answer:
            raise ValueError(str(answer.get("text")))
        return bool(answer["matches"])

    async def _ask(self, request: dict[str, Any], seconds: float, limit: str) -> dict[str, Any]:
        async with self._turn:
            process = await self._started()
            try:
                async with asyncio.timeout(seconds):
                    return await self._exchange(process, request)
            except TimeoutError as error:
                await self._end()
                if not limit:
                    raise
                raise exceeded(limit, None, "the SAM template") from error
            except BaseException:
                await self._end()  # the next request must not read this one's answer
                raise
            finally:
                self._rest()

    async def _exchange(self, process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE))
            await process.stdin.drain()
            line = await process.stdout.readline()
        except (ConnectionError, ValueError) as error:
            raise DeployFailed(f"the SAM translator broke off: {error}", remedy="deploy again") from error
        if not line:
            raise DeployFailed(
                "the SAM translator ended without an answer", remedy="make the template smaller, or deploy again"
            )
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    async def _started(self) -> asyncio.subprocess.Process:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._process is None or self._process.returncode is not None:
            known = config.environment()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={"PATH": known.get("PATH", ""), "LANG": "C.UTF-8", "AWS_DEFAULT_REGION": self._region},
                start_new_session=True,
                limit=_ANSWER_BYTES,
            )
        return self._process

    def _rest(self) -> None:
        if self._process is not None:
            self._idle = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._expire)

    def _expire(self) -> None:
        if not self._turn.locked() and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # end of file is how the process is told to go
            self._process = None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def close(self) -> None:
        """End the process."""
        if self._idle is not None:
            self._idle.cancel()
        await self._end()


def _lined(value: Any, source: Map) -> Map:
    """The translator's plain JSON as a template: what it made stands at the line of the resource that it was made from."""
    found = _wrapped(value, 1)
    assert isinstance(found, Map)
    for section in found:
        found.lines[section] = line_of(source, section)
        origin, made = source.get(section), found[section]
        if isinstance(made, Map):
            made.line = line_of(origin) or line_of(source, section)
            for name in made:
                at = _origin(name, origin) if isinstance(origin, Map) else ""
                _place(made, name, origin.get(at) if isinstance(origin, Map) and at else None, line_of(origin, at) if at else 0)
    return found


def _origin(name: str, section: Map) -> str:
    if name in section:
        return name
    return max((one for one in section if name.startswith(one)), key=len, default="")


def _place(section: Map, name: str, origin: Any, line: int) -> None:
    section.lines[name] = line
    _graft(section[name], origin, line)


def _graft(made: Any, origin: Any, line: int) -> None:
    """Give `made` the lines of the members of `origin` that have the same names, and `line` for all others."""
    if isinstance(made, Map):
        made.line = line_of(origin) or line
        for key, value in made.items():
            inner = origin.get(key) if isinstance(origin, Map) else None
            made.lines[key] = line_of(origin, key) if isinstance(origin, Map) and key in origin else line
            _graft(value, inner, made.lines[key])
    elif isinstance(made, Seq):
        made.line = line
        made.lines = [line] * len(made)
        for at, value in enumerate(made):
            inner = origin[at] if isinstance(origin, Seq) and at < len(origin) else None
            _graft(value, inner, line)


def _wrapped(value: Any, line: int) -> Any:
    if isinstance(value, dict):
        return Map(((key, _wrapped(one, line)) for key, one in value.items()), line, dict.fromkeys(value, line))
    if isinstance(value, list):
        return Seq([_wrapped(one, line) for one in value], line, [line] * len(value))
    return value
