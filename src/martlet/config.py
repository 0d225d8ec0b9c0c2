"""The one door to settings: defaults, then `MARTLET_*` environment variables, then what the command line says.

A setting is one field of `Settings`; its environment variable is `MARTLET_` and the field's name in capitals.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from martlet.errors import InvalidInput

__all__ = ["Settings", "environment", "load"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one platform."""

    data: str = ".martlet"  # folder that holds all state
    store: str = ""  # postgresql://user@host/database for a database as the store; "": a file in the data folder
    host: str = "127.0.0.1"  # address of both listeners
    port: int = 8700  # app traffic: the public edge
    api_port: int = 0  # platform API; 0: port + 1
    sandbox: str = "isolated"  # isolated | process (no isolation: your own code only)
    python: str = ""  # interpreter for functions; "": the one that runs Martlet
    node: str = ""  # Node.js for functions of its version; "": found on this host, or installed by `martlet runtimes install`
    stem_cells: int = 4  # isolated blank instances parked for each hot zygote
    keep_alive_seconds: float = 300.0  # an idle instance is kept this long at most
    region: str = "us-east-1"  # named in ARNs and in AWS request signatures
    objects: str = ""  # where bytes of objects are: a folder, or s3://, gs://, az:// (obstore); "": in the data folder
    integration_hosts: str = ""  # local hosts, or host:port, that proxy routes, integrations, HTTP targets may call; "*": all
    secret_key: str = ""  # key of secrets at rest: file:PATH, env:NAME or command:PROGRAM; "": secret.key in the data folder
    prices: str = ""  # price book of bills: own, list, or the path of a TOML file like them; "": own
    quiet: bool = False  # print nothing but errors

    @property
    def called_hosts(self) -> tuple[str, ...]:
        """`integration_hosts`, one by one."""
        return tuple(name.strip() for name in self.integration_hosts.split(",") if name.strip())

    @property
    def data_path(self) -> Path:
        return Path(self.data).absolute()


def environment() -> dict[str, str]:
    """The process's environment; only this module reads it."""
    return dict(os.environ)


def load(overrides: dict[str, Any], environ: dict[str, str] | None = None) -> Settings:
    """Settings from the environment under `overrides` (None values in it are left out). Raises `InvalidInput` by name."""
    values: dict[str, Any] = {}
    source = environment() if environ is None else environ
    for field in msgspec.structs.fields(Settings):
        name = f"MARTLET_{field.name.upper()}"
        if name in source:
            values[field.name] = _convert(name, source[name], field.type)
    values.update({key: value for key, value in overrides.items() if value is not None})
    settings = Settings(**values)
    if not settings.api_port:
        settings = msgspec.structs.replace(settings, api_port=settings.port + 1 if settings.port else 0)
    if settings.port and settings.port == settings.api_port:
        raise InvalidInput(
            f"port and api_port are both {settings.port}: apps and the platform's API need a port each",
            remedy="give --api-port another number, or leave it out: then it is the next one",
        )
    if not 0 <= settings.port <= 65_535 or not 0 <= settings.api_port <= 65_535:
        raise InvalidInput(
            f"port {settings.port} and api_port {settings.api_port} must be from 0 to 65535",
            remedy="give --port and --api-port",
        )
    return settings


def _convert(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{name}={text!r}: {error}", remedy=f"unset {name} or give it a valid value") from error
