"""The loop that runs user code in an instance, with AWS Lambda's semantics for Python handlers.

`prepare`, `settle` and `reseed` belong to the zygote's side of the fork; `Runtime` loads the handler and serves events from one
pipe, answering on another (`frames`). Error objects, log lines and environment are those of Lambda's runtime for Python.
"""

from __future__ import annotations

import json
import logging
import marshal
import os
import sys
import time
import traceback
import types
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import MAGIC_NUMBER
from typing import Any, NoReturn

from . import frames

TASK = "/var/task"
_HERE = os.path.dirname(os.path.abspath(__file__))
_PLATFORM_FILES = (
    "/var/martlet/",
    "<frozen importlib",
    _HERE + "/",
    os.path.dirname(os.path.dirname(os.path.dirname(_HERE))) + "/sdk/",
)
_baseline: frozenset[str] = frozenset()
_AHEAD = (
    "base64 collections.abc contextlib copy dataclasses datetime decimal encodings.idna enum functools hashlib io itertools "
    "json.decoder math operator random re string threading time typing urllib.parse uuid"
)


class Failure(Exception):
    """An error that becomes Lambda's error object."""

    def __init__(self, error_type: str, message: str, stack: list[str] | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.stack = stack or []

    def to_json(self, request_id: str) -> dict[str, Any]:
        return {
            "errorMessage": str(self.args[0]),
            "errorType": self.error_type,
            "requestId": request_id,
            "stackTrace": self.stack,
        }


# --- on the zygote's side -------------------------------------------------------------------------------------------


def prepare() -> None:
    """Import what nearly every handler needs, and give back the names that `site` would have made."""
    import importlib

    for name in _AHEAD.split():
        importlib.import_module(name)
    import site  # without -S it would have run at start; only its builtins are wanted

    site.setquit()
    sys.dont_write_bytecode = True
    sys.path += ["/var/martlet/sdk", "/var/martlet/lib", _HERE + "/python", "/var/runtime"]
    settle()


def settle() -> None:
    """Remember what is imported ahead, so that a build can tell what user code adds."""
    global _baseline
    _baseline = frozenset(sys.modules)


def reseed() -> None:
    """Siblings must not share random numbers. `random` reseeds itself after a fork; these do not."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 32.0)


# --- in the instance ------------------------------------------------------------------------------------------------


def _number(value: Any) -> int | float:
    """What JSON has no form for but Lambda's runtime accepts: a Decimal, e.g. from DynamoDB, is a number."""
    if isinstance(value, sys.modules["decimal"].Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# NaN is refused: Lambda's runtime for Python would send it bare, and no reader of JSON (RFC 8259 section 6) would take it.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_number).encode


class Channel:
    """Frames in and out over two pipes; blocking."""

    def __init__(self, events: int, results: int) -> None:
        self.events = events
        self._results = results
        self._buffer = b""

    def receive(self) -> tuple[int, int, bytes]:
        """(kind, sequence, payload). Ends the process when the platform has closed its end."""
        while len(self._buffer) < frames.SIZE:
            self._fill(65_536)
        length, sequence, kind, _ = frames.HEADER.unpack_from(self._buffer)
        whole = frames.SIZE + length
        if len(self._buffer) < whole:
            parts, have = [self._buffer], len(self._buffer)
            while have < whole:
                # Never less than a packet: a pipe in packet mode throws away what a read leaves of one (pipe(2)).
                part = os.read(self.events, max(65_536, min(whole - have, 1 << 20))) or _leave()
                parts.append(part)
                have += len(part)
            self._buffer = b"".join(parts)
        payload = self._buffer[frames.SIZE : whole]
        self._buffer = self._buffer[whole:]
        return kind, sequence, payload

    def buffered(self) -> bool:
        """True when a whole frame is waiting here already (so nothing would make the pipe readable)."""
        if len(self._buffer) < frames.SIZE:
            return False
        length: int = frames.HEADER.unpack_from(self._buffer)[0]
        return len(self._buffer) >= frames.SIZE + length

    def _fill(self, size: int) -> None:
        self._buffer += os.read(self.events, size) or _leave()

    def send(self, kind: int, sequence: int, payload: bytes) -> None:
        data = frames.HEADER.pack(len(payload), sequence, kind, LogStream.wrote) + payload
        LogStream.wrote = 0
        written = os.write(self._results, data)
        while written < len(data):
            written += os.write(self._results, memoryview(data)[written:])


def _leave() -> NoReturn:
    os._exit(0)


class LogStream:
    """`sys.stdout` and `sys.stderr`: whole lines, each in one write, tagged with their event where several run at once."""

    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"
    name = "<log>"
    closed = False
    newlines = None
    line_buffering = True
    wrote = 0  # of all streams: 1 when the log got lines since the last frame

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = ""
        self.tag: Any = None  # callable: the running event's sequence number, or None

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._rest += text
        if "\n" in text:
            whole, _, self._rest = self._rest.rpartition("\n")
            self._emit(whole)
        elif len(self._rest) > 65_536:
            self.flush()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def record(self, text: str) -> None:
        """One log record, kept as one event: its line breaks become carriage returns, as Lambda's do."""
        self.flush()
        self._emit(text.rstrip("\n").replace("\n", "\r"))

    def _emit(self, text: str) -> None:
        LogStream.wrote = frames.WROTE
        if self.tag is not None:
            prefix = f"\x1e{self.tag():08x}\x1f"
            text = prefix + text.replace("\n", "\n" + prefix)
        data = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
        while data:
            data = data[os.write(self._fd, data) :]

    def flush(self) -> None:
        if self._rest:
            rest, self._rest = self._rest, ""
            self._emit(rest)

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.flush()

    @property
    def buffer(self) -> Any:
        self.flush()
        return _RawStream(self._fd)

    def __enter__(self) -> LogStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()


class _RawStream:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes) -> int:
        LogStream.wrote = frames.WROTE
        return os.write(self._fd, data)

    def flush(self) -> None:
        return None


class _LogHandler(logging.Handler):
    """Lambda's handler on the root logger: `[LEVEL]\\ttime\\trequest id\\tmessage`."""

    def __init__(self, stream: LogStream, current: types.SimpleNamespace) -> None:
        super().__init__()
        self._stream = stream
        self._current = current

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
            if record.exc_info:
                message += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            request_id = self._current.request_id
            self._stream.record(f"[{record.levelname}]\t{stamp}.{int(record.msecs):03d}Z\t{request_id}\t{message}")
        except Exception:
            self.handleError(record)


class Context:
    """The second argument of a handler (Lambda's context object for Python)."""

    def __init__(self, init: dict[str, Any], request_id: str, deadline_ms: int, arn: str, trace: str, client: str) -> None:
        self.aws_request_id = request_id
        self.function_name = init["function_name"]
        self.function_version = init["function_version"]
        self.invoked_function_arn = arn
        self.memory_limit_in_mb = str(init["memory_mb"])
        self.log_group_name = init["log_group"]
        self.log_stream_name = init["log_stream"]
        self.identity = None
        self.tenant_id = None
        self._trace = trace
        self._client = client
        self._deadline_ms = deadline_ms

    @property
    def client_context(self) -> Any:
        if not self._client:
            return None
        value = json.loads(self._client)
        client = types.SimpleNamespace(**value["client"]) if isinstance(value.get("client"), dict) else None
        return types.SimpleNamespace(custom=value.get("custom"), env=value.get("env"), client=client)

    def get_remaining_time_in_millis(self) -> int:
        return max(0, self._deadline_ms - time.time_ns() // 1_000_000)

    def log(self, message: object) -> None:
        sys.stdout.write(str(message))

    def __repr__(self) -> str:
        return f"LambdaContext([aws_request_id={self.aws_request_id},function_name={self.function_name}])"


class Runtime:
    """What both loops share: the handler, its errors, its answers."""

    def __init__(self, channel: Channel, init: dict[str, Any], stream: LogStream) -> None:
        self.channel = channel
        self.init = init
        self.stream = stream
        self.entry: Any = None
        self.current = types.SimpleNamespace(request_id="", sequence=0)
        self._loop: Any = None
        root = logging.getLogger()
        root.handlers = [_LogHandler(stream, self.current)]

    def load(self) -> None:
        """Import the handler. Raises `Failure` with the error types of Lambda's runtime."""
        self.entry = load_handler(self.init["handler"])
        startup = getattr(self.entry, "startup", None)
        if startup is not None:  # an ASGI application's lifespan: what fails in it is an init error
            try:
                self.run(startup())
            except Exception as error:
                raise failure_of(error) from error

    def open(self, payload: bytes) -> tuple[Any, Context]:
        """The event and the context of an INVOKE frame."""
        line, _, event = payload.partition(b"\n")
        request_id, timeout, arn, trace, client = line.decode().split("\x1f")
        deadline = time.time_ns() // 1_000_000 + int(timeout)  # it may have waited here: its time begins when it does
        if trace:
            os.environ["_X_AMZN_TRACE_ID"] = trace
        self.current.request_id = request_id
        try:
            value = json.loads(event)
        except ValueError as error:
            raise Failure("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
        return value, Context(self.init, request_id, deadline, arn, trace, client)

    def answer(self, sequence: int, request_id: str, result: Any) -> None:
        try:
            payload = _encode_json(result).encode()
        except (TypeError, ValueError, RecursionError) as error:
            self.fail(sequence, request_id, Failure("Runtime.MarshalError", f"Unable to marshal response: {error}"))
            return
        if len(payload) > self.init["response_bytes"]:
            limit = self.init["response_bytes"]
            message = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
            body = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
            self._flush()
            self.channel.send(frames.ERROR, sequence, json.dumps(body).encode())
            return
        self._flush()
        self.channel.send(frames.RESULT, sequence, payload)

    def fail(self, sequence: int, request_id: str, failure: Failure, kind: int = frames.ERROR) -> None:
        lines = f"[ERROR] {failure.error_type}: {failure.args[0]}"
        if failure.stack:
            lines += "\nTraceback (most recent call last):\n" + "".join(failure.stack).rstrip("\n").replace(
                "  File", "\xa0\xa0File"
            )
        self.stream.record(lines)
        self._flush()
        self.channel.send(
            kind, sequence, json.dumps(failure.to_json(request_id), ensure_ascii=False).encode("utf-8", "replace")
        )

    def _flush(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()

    # One event at a time: no event loop unless the handler is asynchronous.

    def serve(self) -> NoReturn:
        while True:
            self.serve_one()

    def serve_one(self) -> None:
        _, sequence, payload = self.channel.receive()
        request_id = ""
        try:
            event, context = self.open(payload)
            request_id = context.aws_request_id
            result = self.entry(event, context)
            if hasattr(result, "__await__"):
                result = self.run(result)
        except Failure as failure:
            self.fail(sequence, self.current.request_id, failure)
        except Exception as error:
            self.fail(sequence, request_id, failure_of(error))
        else:
            if getattr(result, "__martlet_stream__", False):
                self._stream(sequence, request_id, result)
            else:
                self.answer(sequence, request_id, result)

    def loop(self) -> Any:
        """The event loop of asynchronous handlers, made when first needed."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def run(self, awaitable: Any) -> Any:
        async def whole() -> Any:
            return await awaitable

        return self.loop().run_until_complete(whole())

    def _stream(self, sequence: int, request_id: str, result: Any) -> None:
        self.channel.send(frames.HEAD, sequence, json.dumps(result.head).encode())
        try:
            if hasattr(result, "__aiter__"):
                self.run(self.stream_async(sequence, result))
            else:
                for chunk in result:
                    self.send_chunk(sequence, chunk)
        except Exception as error:
            self.fail(sequence, request_id, failure_of(error), frames.STREAM_ERROR)
        else:
            self._flush()
            self.channel.send(frames.END, sequence, b"")
        finally:
            if not hasattr(result, "__aiter__") and hasattr(result, "close"):
                result.close()

    async def stream_async(self, sequence: int, result: Any, passed: Any = None) -> None:
        """`passed(sequence)` is awaited after each part: it returns when the next may be sent."""
        try:
            async for chunk in result:
                self.send_chunk(sequence, chunk)
                if passed is not None:
                    await passed(sequence)
        finally:
            if hasattr(result, "aclose"):
                await result.aclose()

    def send_chunk(self, sequence: int, chunk: Any) -> None:
        data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
        for start in range(0, len(data), 262_144):
            self.channel.send(frames.CHUNK, sequence, data[start : start + 262_144])


def run_snapshot_hooks() -> None:
    """What user code registered with `snapshot_restore_py`.

    The snapshot here is the zygote, which holds no user code. So both kinds of hooks run in each instance once its module is
    imported, one after the other, before its first event: what the one gives up the other makes anew.
    """
    module = sys.modules.get("snapshot_restore_py")
    if module is None:
        return
    try:
        for function, arguments, named in reversed(module.get_before_snapshot()):
            function(*arguments, **named)
    except Exception as error:
        raise Failure("Runtime.BeforeSnapshotError", str(error), stack_of(error)) from error
    try:
        for function, arguments, named in module.get_after_restore():
            function(*arguments, **named)
    except Exception as error:
        raise Failure("Runtime.AfterRestoreError", str(error), stack_of(error)) from error


def load_handler(name: str) -> Any:
    """The callable that `name` ("module:attribute" or "package.module.attribute") stands for."""
    module_name, separator, attribute = name.partition(":")
    if not separator:
        module_name, separator, attribute = name.rpartition(".")
        module_name = module_name.replace("/", ".")
        if not separator:
            message = f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
            raise Failure("Runtime.MalformedHandlerName", message)
    module = import_user_module(module_name)
    target: Any = module
    for part in attribute.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            message = f"Handler '{attribute}' missing on module '{module_name}'"
            raise Failure("Runtime.HandlerNotFound", message) from None
    make_entry = getattr(target, "__martlet_entry__", None)
    if make_entry is not None:
        try:
            return make_entry()
        except Exception as error:
            raise failure_of(error) from error
    return target


def import_user_module(name: str) -> types.ModuleType:
    try:
        return __import__(name, fromlist=["_"])
    except SyntaxError as error:
        where = f'  File "{error.filename}" Line {error.lineno}\n    {(error.text or "").strip()}\n'
        raise Failure("Runtime.UserCodeSyntaxError", f"Syntax error in module '{name}': {error}", [where]) from error
    except ImportError as error:
        message = f"Unable to import module '{name}': {error}"
        raise Failure("Runtime.ImportModuleError", message, stack_of(error)) from error
    except Exception as error:
        raise failure_of(error) from error


class CompiledModules:
    """Finds an app's modules by the .pyc that the build left beside each, without the import system's search.

    Code folders never change, so nothing needs to be compared (470 → 100 µs a module). Everything else, packages among it,
    is left to the finders behind this one (importlib: PEP 451).
    """

    def __init__(self, folder: str = TASK) -> None:
        self._folder = folder
        self._suffix = f".{sys.implementation.cache_tag}.pyc"

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if path is not None or "." in name:
            return None
        cached = f"{self._folder}/__pycache__/{name}{self._suffix}"
        try:
            with open(cached, "rb") as file:
                data = file.read()
        except OSError:
            return None
        if data[:4] != MAGIC_NUMBER or os.path.isdir(f"{self._folder}/{name}"):  # a package goes before a module
            return None
        origin = f"{self._folder}/{name}.py"
        spec = ModuleSpec(name, _CompiledModule(name, origin, data), origin=origin)
        spec.cached = cached
        spec.has_location = True
        return spec


class _CompiledModule(SourceFileLoader):
    def __init__(self, name: str, origin: str, data: bytes) -> None:
        super().__init__(name, origin)
        self._data = data

    def get_code(self, fullname: str) -> Any:
        data, self._data = self._data, b""
        return marshal.loads(memoryview(data)[16:]) if data else super().get_code(fullname)  # asked again: by a debugger, say


def stack_of(error: BaseException) -> list[str]:
    """The frames of user code, as Lambda prints them."""
    found = traceback.extract_tb(error.__traceback__)
    return [
        text
        for frame, text in zip(found, traceback.format_list(found), strict=True)
        if not frame.filename.startswith(_PLATFORM_FILES)
    ]


def failure_of(error: BaseException) -> Failure:
    known = getattr(error, "__martlet_error_type__", None)  # the SDK speaking, not user code
    if known is not None:
        return Failure(known, str(error))
    return Failure(type(error).__name__, str(error), stack_of(error))
