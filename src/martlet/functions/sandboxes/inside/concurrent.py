"""Several events at one time in one instance: one event loop, a task an event; synchronous handlers run in threads."""

from __future__ import annotations

import asyncio
import contextvars
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from . import frames, runtime

_running: contextvars.ContextVar[tuple[int, str]] = contextvars.ContextVar("martlet_event", default=(0, ""))


class _Current:
    @property
    def request_id(self) -> str:
        return _running.get()[1]

    @request_id.setter
    def request_id(self, value: str) -> None:
        _running.set((_running.get()[0], value))


def serve(shared: runtime.Runtime) -> NoReturn:
    shared.stream.tag = lambda: _running.get()[0]
    shared.current = _Current()  # type: ignore[assignment]
    for handler in __import__("logging").getLogger().handlers:
        handler._current = shared.current
    loop = shared.loop()
    asynchronous = _is_asynchronous(shared.entry)
    threads = None if asynchronous else ThreadPoolExecutor(shared.init["concurrency"])
    tasks: dict[int, asyncio.Task[None]] = {}
    gates = _Gates()

    def begin(sequence: int, payload: bytes) -> None:
        def ended(_: asyncio.Task[None]) -> None:
            del tasks[sequence]
            gates.open(sequence)

        tasks[sequence] = loop.create_task(_handle(shared, sequence, payload, threads, gates))
        tasks[sequence].add_done_callback(ended)

    def readable() -> None:
        while True:
            kind, sequence, payload = shared.channel.receive()
            if kind == frames.INVOKE:
                begin(sequence, payload)
            elif kind == frames.HOLD and sequence in tasks:
                gates.shut(sequence)
            elif kind == frames.GO_ON:
                gates.open(sequence)
            if not shared.channel.buffered():
                return

    loop.add_reader(shared.channel.events, readable)
    loop.run_forever()
    raise SystemExit(1)


class _Gates:
    """Which events must wait before they send more of their streamed answers."""

    def __init__(self) -> None:
        self._shut: dict[int, asyncio.Event] = {}

    def shut(self, sequence: int) -> None:
        self._shut.setdefault(sequence, asyncio.Event())

    def open(self, sequence: int) -> None:
        gate = self._shut.pop(sequence, None)
        if gate is not None:
            gate.set()

    async def passed(self, sequence: int) -> None:
        while (gate := self._shut.get(sequence)) is not None:
            await gate.wait()


def _is_asynchronous(entry: Any) -> bool:
    target = entry if hasattr(entry, "__code__") else getattr(entry, "__call__", entry)  # noqa: B004
    return asyncio.iscoroutinefunction(target)


async def _handle(
    shared: runtime.Runtime, sequence: int, payload: bytes, threads: ThreadPoolExecutor | None, gates: _Gates
) -> None:
    _running.set((sequence, ""))
    try:
        event, context = shared.open(payload)
        if threads is None:
            result = await shared.entry(event, context)
        else:
            inside = contextvars.copy_context()
            result = await asyncio.get_running_loop().run_in_executor(threads, lambda: inside.run(shared.entry, event, context))
            if hasattr(result, "__await__"):
                result = await result
    except runtime.Failure as failure:
        shared.fail(sequence, _running.get()[1], failure)
        return
    except Exception as error:
        shared.fail(sequence, _running.get()[1], runtime.failure_of(error))
        return
    request_id = _running.get()[1]
    if not getattr(result, "__martlet_stream__", False):
        shared.answer(sequence, request_id, result)
        return
    shared.channel.send(frames.HEAD, sequence, json.dumps(result.head).encode())
    try:
        if hasattr(result, "__aiter__"):
            await shared.stream_async(sequence, result, gates.passed)
        else:
            for chunk in result:
                shared.send_chunk(sequence, chunk)
                await asyncio.sleep(0)
                await gates.passed(sequence)
            result.close()
    except Exception as error:
        shared.fail(sequence, request_id, runtime.failure_of(error), frames.STREAM_ERROR)
        return
    shared.channel.send(frames.END, sequence, b"")
