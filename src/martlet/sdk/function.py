"""`Function`: a declared function. Calling it calls the plain Python function; `.invoke` goes through the platform.

The runtime's seam: `Function.__martlet_entry__()` is called once, when an instance starts, and gives `entry(event, context)`,
synchronous or asynchronous, whose result is what the runtime sends (see `answer` for streams).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from martlet.sdk.bucket import Subscription
    from martlet.sdk.bus import Listener
    from martlet.sdk.client import Answer
    from martlet.sdk.queue import Consumer

__all__ = ["Function"]

_INVOKE_SECONDS = 960.0  # a function may run for 900 s (limit function_timeout_seconds_max) and wait for an instance before


class Route:
    """One route as declared, with the place that declares it. `options`: cors, throttle, payload, when, share, by."""

    __slots__ = ("by", "cors", "method", "path", "payload", "share", "throttle", "upstream", "when", "where")

    def __init__(self, method: str, path: str, options: dict[str, Any], where: str, upstream: Any = None) -> None:
        self.method = method
        self.path = path
        self.cors = options.get("cors")
        self.throttle = options.get("throttle")
        self.payload = options.get("payload", "2.0")
        self.when = options.get("when")
        self.share = options.get("share", 100)
        self.by = options.get("by", "address")
        self.where = where
        self.upstream: dict[str, Any] | None = upstream  # of a proxy route, which has no function


class Schedule:
    """One schedule as declared, with the place that declares it."""

    __slots__ = ("expression", "input", "name", "timezone", "where")

    def __init__(self, expression: str, timezone: str, input: Any, name: str | None, where: str) -> None:
        self.expression = expression
        self.timezone = timezone
        self.input = input
        self.name = name
        self.where = where


class Function:
    """A function of an app, made by the app's decorators. Not made by hand."""

    def __init__(self, target: Any, name: str, where: str) -> None:
        self.target = target
        self.name = name
        self.where = where
        self.app: Any = None
        self.mount: str | None = None  # the path under which a whole ASGI or WSGI app hangs
        self.interface: str | None = None  # "asgi" or "wsgi", when the user says it
        self.raw = False
        self.routes: list[Route] = []
        self.schedules: list[Schedule] = []
        self.consumers: list[Consumer] = []
        self.subscriptions: list[Subscription] = []
        self.listeners: list[Listener] = []
        self.settings: dict[str, Any] = {}
        self.uses: list[Any] = []  # functions, or what `graph` knows to take
        self.__wrapped__ = target
        self.__name__ = getattr(target, "__name__", name)
        self.__doc__ = getattr(target, "__doc__", None)
        self.__module__ = getattr(target, "__module__", "")

    def __repr__(self) -> str:
        return f"<Function {self.name}, {self.where}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The plain Python function, as if undecorated: no checks, no conversion, no platform."""
        return self.target(*args, **kwargs)

    def invoke(self, payload: Any = None, *, timeout_seconds: float = _INVOKE_SECONDS) -> Any:
        """Run the function on the platform with `payload` as its event and return its result, both JSON.

        The calling function must say `uses=[this]`. Raises `FunctionError` when the function failed, `AccessDenied`,
        `Throttled`, `LimitExceeded` … when the platform refused, `Unavailable` when no answer came: it may have run then.
        """
        from martlet.sdk.client import call

        target, body = self._request(payload)
        return _result(call("POST", target, headers=_JSON, body=body, timeout_seconds=timeout_seconds))

    async def ainvoke(self, payload: Any = None, *, timeout_seconds: float = _INVOKE_SECONDS) -> Any:
        """`invoke` for coroutines."""
        from martlet.sdk.client import acall

        target, body = self._request(payload)
        return _result(await acall("POST", target, headers=_JSON, body=body, timeout_seconds=timeout_seconds))

    def _request(self, payload: Any) -> tuple[str, bytes]:
        import os

        from martlet.sdk.client import quote
        from martlet.sdk.encode import dumps

        app = os.environ.get("MARTLET_APP") or getattr(self.app, "name", None) or ""
        name = quote(f"{app}-{self.name}")
        return f"/2015-03-31/functions/{name}/invocations", dumps({} if payload is None else payload).encode()

    def __martlet_entry__(self) -> Callable[[Any, Any], Any]:
        """The runtime's way in. Called once when an instance starts."""
        if self.mount is not None:
            return self._mounted()
        from martlet.sdk.entry import event_entry, http_entry, raw_entry

        if not self.routes:
            return event_entry(self.target)
        if self.is_raw():
            return raw_entry(self.target)
        return http_entry(self.target, list(dict.fromkeys((route.method, route.path) for route in self.routes)))

    def is_raw(self) -> bool:
        """Whether it gets Lambda's `(event, context)` untouched."""
        from martlet.sdk.signature import is_raw

        return self.raw or is_raw(self.target)

    def _mounted(self) -> Callable[[Any, Any], Any]:
        assert self.mount is not None
        prefix = self.mount.rstrip("/")
        if interface_of(self) == "asgi":
            from martlet.sdk import asgi

            return asgi.entry(self.target, prefix)
        from martlet.sdk import wsgi

        return wsgi.entry(self.target, prefix)


def interface_of(function: Function) -> str:
    """ "asgi" or "wsgi": what was said, else by how the app is called. Raises `TypeError` when that cannot be told."""
    if function.interface is not None:
        if function.interface not in ("asgi", "wsgi"):
            raise TypeError(f'interface must be "asgi" or "wsgi", got {function.interface!r}')
        return function.interface
    target = function.target
    while hasattr(target, "func") and hasattr(target, "keywords"):  # functools.partial
        target = target.func
    code = getattr(target, "__code__", None)
    bound = 0
    if code is None:
        code, bound = getattr(type(target).__call__, "__code__", None), 1  # a class without __call__ gives type's, without code
    if code is not None:
        if code.co_flags & 0x80 or code.co_argcount - bound == 3:  # a coroutine function, or (scope, receive, send)
            return "asgi"
        if code.co_argcount - bound == 2:  # (environ, start_response)
            return "wsgi"
    raise TypeError(
        f"cannot tell whether {type(target).__module__}.{type(target).__qualname__} is an ASGI 3 or a WSGI app: "
        'say mount(..., interface="asgi") or interface="wsgi"'
    )


_JSON = {"content-type": "application/json"}


def _result(answer: Answer) -> Any:
    import json

    from martlet.sdk.errors import FunctionError, from_answer

    if answer.status != 200:
        raise from_answer(answer.status, answer.headers, answer.body)
    value = json.loads(answer.body) if answer.body else None
    if "x-amz-function-error" in answer.headers:
        error: dict[str, Any] = value if isinstance(value, dict) else {"errorMessage": str(value)}
        raise FunctionError(str(error.get("errorType", "")), str(error.get("errorMessage", "")), error.get("stackTrace"))
    return value
