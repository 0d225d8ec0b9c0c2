"""What a handler's parameters mean, decided once: at deploy for its errors, and when an instance starts.

For an HTTP handler: a name in the route's path → path; `event` and `context` → the raw ones; annotated `Request` → the request;
`Annotated[T, Header("name")]` → a header; a model, dataclass, TypedDict, dict, or `bytes` → the body; scalars and arrays of
scalars → query. For `@app.function` and schedules: Lambda's positional `(event, context)`, `event` converted if annotated with
a type other than dict.
"""

from __future__ import annotations

from martlet.sdk import convert
from martlet.sdk.errors import DeclarationError, HTTPError
from martlet.sdk.request import Header, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["Handler", "Parameter", "event_handler", "http_handler", "is_async", "names_of_path"]

_VARARGS, _KWARGS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200  # code.co_flags
_BODY_METHODS = frozenset(("POST", "PUT", "PATCH", "DELETE", "ANY"))
_MISSING = object()


class Parameter:
    """One parameter. `kind`: path, query, header, body, bytes, request, event or context; `name`: what the client writes."""

    __slots__ = ("argument", "array", "convert", "kind", "name", "required")

    def __init__(
        self,
        argument: str,
        kind: str,
        required: bool,
        name: str = "",
        converter: convert.Convert | None = None,
        array: Any = None,
    ) -> None:
        self.argument = argument
        self.kind = kind
        self.required = required
        self.name = name or argument
        self.convert = converter
        self.array = array  # list, set, frozenset or tuple: takes every value of a repeated query parameter


class Handler:
    """A handler whose parameters are known. `bind` gives the keyword arguments for one request."""

    __slots__ = ("parameters",)

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters

    def bind(self, request: Request) -> dict[str, Any]:
        """Keyword arguments. Raises `HTTPError` 422, 415 or 400 that names every wrong field and its place."""
        arguments: dict[str, Any] = {}
        problems: list[dict[str, str]] = []
        for parameter in self.parameters:
            errors: convert.Errors = []
            value = _READ[parameter.kind](parameter, request, errors)
            if errors:
                if errors[0][1].startswith("JSON is malformed"):
                    raise HTTPError(400, errors[0][1], errors=[_problem(parameter, *errors[0])])
                problems += [_problem(parameter, path, message) for path, message in errors]
            elif value is not _MISSING:
                arguments[parameter.argument] = value
            elif parameter.required:
                problems.append(_problem(parameter, parameter.name, "is missing"))
        if problems:
            first = problems[0]
            detail = " ".join(filter(None, (first["location"], first["field"], first["message"])))
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise HTTPError(422, detail + more, type="urn:martlet:error:invalid_input", errors=problems)
        return arguments


def _problem(parameter: Parameter, path: str, message: str) -> dict[str, str]:
    location = "body" if parameter.kind == "bytes" else parameter.kind
    return {"field": path, "location": location, "message": message}


# --- reading one parameter: a value, or _MISSING, or mistakes in `errors` ----------------------------------------------------


def _read_path(parameter: Parameter, request: Request, errors: convert.Errors) -> Any:
    text = request.path_parameters.get(parameter.name)
    return _MISSING if text is None else parameter.convert(text, parameter.name, errors)  # type: ignore[misc]


def _read_query(parameter: Parameter, request: Request, errors: convert.Errors) -> Any:
    try:
        values = request.query.get(parameter.name)
    except ValueError:
        raise HTTPError(400, "the query string is not UTF-8") from None
    if not values:
        return _MISSING
    read = parameter.convert
    assert read is not None
    if parameter.array is not None:
        found = [read(text, f"{parameter.name}[{index}]", errors) for index, text in enumerate(values)]
        return found if parameter.array is list else parameter.array(found)
    if len(values) > 1:
        errors.append((parameter.name, f"is given {len(values)} times"))
        return None
    return read(values[0], parameter.name, errors)


def _read_header(parameter: Parameter, request: Request, errors: convert.Errors) -> Any:
    text = request.headers.get(parameter.name)
    return _MISSING if text is None else parameter.convert(text, parameter.name, errors)  # type: ignore[misc]


def _read_body(parameter: Parameter, request: Request, errors: convert.Errors) -> Any:
    body = _bytes_of(request)
    if not body:
        return _MISSING
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        # Not only tidiness: a browser sends text/plain and forms across origins without asking first (CORS, Fetch section 3.2).
        raise HTTPError(415, f"the body must be JSON: send content-type application/json, not {media}")
    return parameter.convert(body, "", errors)  # type: ignore[misc]


def _read_bytes(parameter: Parameter, request: Request, errors: convert.Errors) -> Any:
    return _bytes_of(request) or (b"" if parameter.required else _MISSING)


def _bytes_of(request: Request) -> bytes:
    try:
        return request.body
    except ValueError as error:
        raise HTTPError(400, f"the body cannot be decoded: {error}") from None


def _read_user(request: Request) -> Any:
    from martlet.sdk.users import User

    try:
        return User(request.event["requestContext"]["authorizer"]["jwt"]["claims"])
    except (KeyError, TypeError):
        raise HTTPError(401, "nobody has signed in: the route needs user=") from None


_READ: dict[str, Callable[[Parameter, Request, convert.Errors], Any]] = {
    "path": _read_path,
    "query": _read_query,
    "header": _read_header,
    "body": _read_body,
    "bytes": _read_bytes,
    "request": lambda parameter, request, errors: request,
    "event": lambda parameter, request, errors: request.event,
    "context": lambda parameter, request, errors: request.context,
    "user": lambda parameter, request, errors: _read_user(request),
}


# --- reading a signature -----------------------------------------------------------------------------------------------------


def is_async(target: Any) -> bool:
    """Whether calling it gives something to await or to iterate asynchronously."""
    return bool(_code(target).co_flags & (_COROUTINE | _ASYNC_GENERATOR))


def names_of_path(path: str) -> list[str]:
    """The names in "/orders/{id}/{rest+}": ["id", "rest"]."""
    return [part.partition("}")[0].removesuffix("+") for part in path.split("{")[1:]]


def _inner(target: Any) -> Any:
    while hasattr(target, "__wrapped__"):  # functools.wraps: the signature is the innermost one's
        target = target.__wrapped__
    return target


def _code(target: Any) -> Any:
    code = getattr(_inner(target), "__code__", None)
    if code is None:
        raise DeclarationError(f"a handler is a function made with def, got {type(target).__name__}")
    return code


def _signature(target: Any) -> list[tuple[str, Any, Any]]:
    """(name, annotation or _MISSING, default or _MISSING) of each parameter. Raises `DeclarationError` for *args and such."""
    function = _inner(target)
    code = _code(target)
    if code.co_posonlyargcount:
        raise DeclarationError("it has positional-only parameters; handlers are called by keyword: remove the /")
    if code.co_flags & (_VARARGS | _KWARGS):
        rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
        stars = "*" if code.co_flags & _VARARGS else "**"
        raise DeclarationError(f"it takes {stars}{rest}; name each parameter, so that a request can be checked against it")
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    positional = names[: code.co_argcount]
    defaults = dict(zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False))
    defaults |= function.__kwdefaults__ or {}
    space = dict(function.__globals__)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            space[name] = cell.cell_contents
        except ValueError:  # not bound yet
            pass
    try:
        annotations = function.__annotations__
    except NameError as error:  # Python 3.14 evaluates them here
        raise DeclarationError(f"an annotation cannot be resolved: {error}") from error
    found = []
    for name in names:
        try:
            annotation = convert.resolve(annotations.get(name, _MISSING), space)
        except TypeError as error:
            raise DeclarationError(f"parameter {name}: {error}") from error
        found.append((name, annotation, defaults.get(name, _MISSING)))
    return found


def is_raw(target: Any) -> bool:
    """Whether its parameters are exactly Lambda's `(event, context)`, without types that ask for more."""
    signature = _signature(target)
    return [name for name, _, _ in signature] == ["event", "context"] and all(
        _is_raw_name(name, annotation) for name, annotation, _ in signature
    )


def _is_raw_name(name: str, annotation: Any) -> bool:
    """`event` and `context` mean the raw ones, unless their type says that they are data of the request."""
    if name not in ("event", "context"):
        return False
    return annotation is _MISSING or _is_untyped(convert.strip(annotation))


def _is_untyped(kind: Any) -> bool:
    """Whether a type says nothing that could be checked: dict, object, Any, a context class."""
    return getattr(kind, "__origin__", kind) is dict or not (convert.is_text(kind) or convert.is_model(kind))


def http_handler(target: Any, routes: Iterable[tuple[str, str]]) -> Handler:
    """The handler for its routes, (method, path) each. Raises `DeclarationError` that names the parameter and the way out."""
    routes = list(routes)
    in_path = {name for _, path in routes for name in names_of_path(path)}
    parameters = []
    for name, annotation, default in _signature(target):
        try:
            parameters.append(_parameter(name, annotation, default, in_path))
        except TypeError as error:
            raise DeclarationError(f"parameter {name}: {error}") from error
    known = {parameter.argument: parameter for parameter in parameters}
    for method, path in routes:
        here = names_of_path(path)
        for name in here:
            if name not in known:
                raise DeclarationError(f"the path {path} has {{{name}}} but there is no parameter {name}: add {name}: str")
        for parameter in parameters:
            if parameter.kind == "path" and parameter.required and parameter.name not in here:
                raise DeclarationError(f"parameter {parameter.name} is not in the path {path}: give it a default")
            if parameter.kind in ("body", "bytes") and parameter.required and method not in _BODY_METHODS:
                raise DeclarationError(
                    f"parameter {parameter.argument} is read from the body, but {method} has none: use POST, PUT or PATCH, "
                    "or a scalar type (str, int …), which is read from the query"
                )
    bodies = [parameter.argument for parameter in parameters if parameter.kind in ("body", "bytes")]
    if len(bodies) > 1:
        raise DeclarationError(f"parameters {' and '.join(bodies)} are both read from the body: put them into one model")
    return Handler(parameters)


def _parameter(name: str, annotation: Any, default: Any, in_path: set[str]) -> Parameter:
    required = default is _MISSING
    if name in in_path:
        return Parameter(name, "path", required, converter=convert.from_text(str if annotation is _MISSING else annotation))
    if _is_raw_name(name, annotation):
        return Parameter(name, name, True)
    if annotation is _MISSING:
        if required or default is None:
            raise TypeError(f"say its type, e.g. {name}: str")
        annotation = type(default)
    return _typed_parameter(name, annotation, required)


def _typed_parameter(name: str, annotation: Any, required: bool) -> Parameter:
    if convert.strip(annotation) is Request:
        return Parameter(name, "request", True)
    if is_user(annotation):
        return Parameter(name, "user", True)
    marks = [mark for mark in convert.metadata(annotation) if isinstance(mark, Header)]
    if marks:
        return Parameter(name, "header", required, marks[0].name, convert.from_text(annotation))
    if convert.is_text(annotation):
        return Parameter(name, "query", required, converter=convert.from_text(annotation))
    if convert.strip(annotation) is bytes:
        return Parameter(name, "bytes", required)
    if convert.is_model(annotation):
        return Parameter(name, "body", required, converter=convert.from_body(annotation))
    kinds = convert.arguments(annotation)
    array = convert.items_of(kinds[0]) if len(kinds) == 1 else None
    if array is not None:
        return Parameter(name, "query", required, converter=convert.from_text(array[1]), array=array[0])
    raise TypeError(
        f"{convert.describe(annotation)} is no type that a request carries: use a scalar (str, int, float, bool, UUID, "
        "datetime, Decimal, Enum, Literal), list of one, a pydantic model, msgspec Struct, dataclass, dict, bytes, or Request"
    )


def is_user(annotation: Any) -> bool:
    """Whether it is `User`: compared without importing it, since most handlers have none."""
    kind = convert.strip(annotation)
    return getattr(kind, "__name__", "") == "User" and getattr(kind, "__module__", "") == "martlet.sdk.users"


def takes_user(target: Any) -> bool:
    """Whether a handler has a parameter annotated `User`."""
    return any(annotation is not _MISSING and is_user(annotation) for _, annotation, _ in _signature(target))


def event_handler(target: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    """How `(event, context)` becomes the positional arguments of a Lambda-style function.

    Raises `DeclarationError`; the returned function raises `ValueError` for an event that does not fit its annotation.
    """
    signature = _signature(target)
    needed = [name for name, _, default in signature if default is _MISSING]
    if len(needed) > 2 or needed != [name for name, _, _ in signature][: len(needed)]:
        raise DeclarationError(f"it needs ({', '.join(needed)}); a function takes (event, context), (event) or nothing")
    by_keyword = set(needed) & set(_inner(target).__code__.co_varnames[_code(target).co_argcount :])
    if by_keyword:
        raise DeclarationError(f"parameter {min(by_keyword)} is keyword-only; a function is called with (event, context)")
    if needed == ["context"]:
        return lambda event, context: (context,)
    if len(needed) < 2:
        signature = signature[:1] if needed or (signature and signature[0][0] != "context") else []
    else:
        signature = signature[:2]
        if signature[1][1] is not _MISSING and convert.is_text(signature[1][1]):
            raise DeclarationError(
                f"it takes ({', '.join(needed)}); the second parameter is Lambda's context: put the values into one model"
            )
    if not signature:
        return lambda event, context: ()
    take_context = len(signature) == 2
    annotation = signature[0][1]
    if annotation is _MISSING or _is_untyped(convert.strip(annotation)):
        return (lambda event, context: (event, context)) if take_context else (lambda event, context: (event,))
    try:
        read = convert.from_json(annotation)
    except TypeError as error:
        raise DeclarationError(f"parameter {signature[0][0]}: {error}") from error
    return _typed_event(read, take_context)


def _typed_event(read: convert.Convert, take_context: bool) -> Callable[[Any, Any], tuple[Any, ...]]:
    def arrange(event: Any, context: Any) -> tuple[Any, ...]:
        errors: convert.Errors = []
        value = read(event, "", errors)
        if errors:
            raise ValueError("the event does not fit: " + "; ".join(f"{path or 'it'} {message}" for path, message in errors))
        return (value, context) if take_context else (value,)

    return arrange
