"""What the control plane keeps: one row for each function, version, alias, configuration of calls … Values are frozen."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar

import msgspec

from martlet.functions import failures
from martlet.store import Reader, Tx, keys

__all__ = [
    "Alias",
    "Configuration",
    "EventConfig",
    "Function",
    "Layer",
    "LayerUse",
    "Logging",
    "Policy",
    "Provisioned",
    "Signing",
    "Tables",
    "UrlConfig",
]

T = TypeVar("T", bound=msgspec.Struct)
LATEST: Final = "$LATEST"


class LayerUse(msgspec.Struct, frozen=True):
    """A layer version as a function uses it: it stays usable after the layer version is deleted."""

    arn: str
    size: int  # of the archive, bytes
    address: str
    unzipped_bytes: int


class Logging(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a function logs. Levels are set for JSON only."""

    group: str
    format: str = "Text"
    application_level: str = ""
    system_level: str = ""


class Configuration(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a function, or $LATEST."""

    name: str
    version: str = LATEST
    number: int  # of this state, never used twice for one function: what instances and the ledger tell apart
    revision_id: str
    modified_at_ms: int
    runtime: str
    role: str
    handler: str
    description: str = ""
    timeout_seconds: int = 3
    memory_mb: int = 128
    tmp_mb: int = 512
    environment: dict[str, str] | None = None
    layers: tuple[LayerUse, ...] = ()
    dead_letter: str = ""
    tracing: str = "PassThrough"
    architecture: str = "x86_64"
    snap_start: str = "None"
    logging: Logging
    has_vpc: bool = False  # a VpcConfig without subnets was given: it is told, and means nothing
    code: str  # content address of the code's folder
    zip: str  # SHA-256 of the archive as it was sent, hex
    code_bytes: int
    code_unzipped_bytes: int
    state: Literal["Pending", "Active", "Failed"] = "Pending"
    update: Literal["", "InProgress", "Successful", "Failed"] = ""
    problem: str = ""  # why the last change failed


class Function(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all versions of a function share. Functions of apps have one as soon as something here is set for them."""

    name: str
    app: str = ""  # the stack that made it
    created_at_ms: int = 0
    last_version: int = 0  # published; numbers are not used again
    last_digest: str = ""  # of $LATEST when it was published last
    tags: dict[str, str] = {}
    reserved: int | None = None
    recursion: str = "Terminate"
    signing: str = ""  # ARN of its code signing configuration
    runtime_updates: dict[str, tuple[str, str]] = {}  # qualifier -> (when, ARN of the runtime version or "")


class Alias(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    version: str
    description: str = ""
    weights: dict[str, float] = {}  # of a second version, at most one
    revision_id: str


class Policy(msgspec.Struct, frozen=True):
    """A resource policy. `statements` are in the form that GetPolicy shows."""

    statements: tuple[dict[str, Any], ...]
    revision_id: str


class EventConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How asynchronous events of one qualifier are treated; None: the default."""

    modified_at_ms: int
    retries: int | None = None
    age_seconds: int | None = None
    on_success: str = ""
    on_failure: str = ""


class UrlConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function URL. `id` is the first label of its host name."""

    id: str
    auth_type: str
    invoke_mode: str = ""  # "": BUFFERED, as not said
    cors: dict[str, Any] | None = None
    created_at_ms: int
    modified_at_ms: int


class Provisioned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    requested: int
    status: Literal["IN_PROGRESS", "READY", "FAILED"] = "IN_PROGRESS"
    reason: str = ""
    modified_at_ms: int


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a layer."""

    name: str
    version: int
    description: str = ""
    license: str = ""
    runtimes: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None
    address: str
    zip: str
    code_bytes: int
    unzipped_bytes: int
    created_at_ms: int


class Signing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A code signing configuration."""

    id: str
    description: str = ""
    publishers: tuple[str, ...]
    policy: str = "Warn"
    modified_at_ms: int
    tags: dict[str, str] = {}


_ROWS: Final[dict[type, str]] = {
    Function: "lambda.function",  # (.., name)
    Configuration: "lambda.version",  # (.., name, version)
    Alias: "lambda.alias",  # (.., name, alias)
    Policy: "lambda.policy",  # (.., name, qualifier or "") and ("lambda.policy", "layer:<name>", version)
    EventConfig: "lambda.events",  # (.., name, qualifier)
    UrlConfig: "lambda.url",  # (.., name, qualifier or "")
    Provisioned: "lambda.provisioned",  # (.., name, qualifier)
    Layer: "lambda.layer",  # (.., name, version)
    Signing: "lambda.signing",  # (.., id)
}
_OF_FUNCTION: Final = (Configuration, Alias, Policy, EventConfig, UrlConfig, Provisioned)
_ENCODE = msgspec.json.Encoder().encode
_DECODERS: Final[dict[type, msgspec.json.Decoder[Any]]] = {kind: msgspec.json.Decoder(kind) for kind in _ROWS}
_PAGE: Final = 1_000

Parts = tuple[str | int, ...]


class Tables:
    """Typed rows of one transaction or snapshot. Keys are the tuples named in `_ROWS`, without their first part."""

    __slots__ = ("_reader",)

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def get(self, kind: type[T], *parts: str | int) -> T | None:
        raw = self._reader.get(keys.encode(_ROWS[kind], *parts))
        return None if raw is None else _DECODERS[kind].decode(raw)

    def all(self, kind: type[T], *parts: str | int) -> list[tuple[Parts, T]]:
        """Every row below `parts`, by key: (the key's parts after the kind, value)."""
        decode = _DECODERS[kind].decode
        found: list[tuple[Parts, T]] = []
        low, high = keys.prefix_range(_ROWS[kind], *parts)
        while True:
            page = self._reader.scan(low, high, _PAGE)
            found.extend((keys.decode(key)[1:], decode(raw)) for key, raw in page)  # type: ignore[misc]
            if len(page) < _PAGE:
                return found
            low = page[-1][0] + b"\x00"

    def page(self, kind: type[T], parts: Parts, after: Parts | None, limit: int) -> list[tuple[Parts, T]]:
        """At most `limit` rows below `parts` that follow the row `after`."""
        low, high = keys.prefix_range(_ROWS[kind], *parts)
        if after is not None:
            low = max(low, keys.encode(_ROWS[kind], *after) + b"\x00")
        rows = self._reader.scan(low, high, limit)
        decode = _DECODERS[kind].decode
        return [(keys.decode(key)[1:], decode(raw)) for key, raw in rows]  # type: ignore[misc]

    def put(self, value: msgspec.Struct, *parts: str | int) -> None:
        self._tx.put(keys.encode(_ROWS[type(value)], *parts), _ENCODE(value))

    def delete(self, kind: type[msgspec.Struct], *parts: str | int) -> None:
        self._tx.delete(keys.encode(_ROWS[kind], *parts))

    def increment(self, *parts: str | int) -> int:
        """The next number of a counter that is never reset."""
        return self._tx.increment(keys.encode("lambda.counter", *parts), 1)

    def forget(self, name: str) -> None:
        """Every row of a function, and its failed events."""
        for kind in _OF_FUNCTION:
            for parts, _ in self.all(kind, name):
                self.delete(kind, *parts)
        self.delete(Function, name)
        failures.forget(self._tx, name)

    @property
    def _tx(self) -> Tx:
        assert isinstance(self._reader, Tx), "rows are written in a transaction only"
        return self._reader
