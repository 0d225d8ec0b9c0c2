"""The supervisor: the one process with privilege. It boots zygotes, keeps stem cells, starts and ends instances.

Single-threaded, standard library only, driven by messages on one SEQPACKET socket (descriptor 3) from the platform:

    {"order": "hello", "name", "isolated"}                          → {"event": "hello", "level", "features", "missing"}
    {"order": "zygote", "key", "interpreter", "binds", "path", "task", "modules", "environment", "stems"}
                                                                    → {"event": "zygote", "key", "failed", …}
    {"order": "start", "id", "zygote", "code", "memory_mb", "tmp_mb", …} + [events, results, log]
                                                                    → {"event": "started", "id", …} + [listeners, usage files]
    {"order": "kill", "id"}, {"order": "drop", "key"}, {"order": "stems", "key", "count"}
    … and when an instance ends                                     → {"event": "exit", "id", "out_of_memory", "signal", "code"}

End of file on the socket, for whatever reason, ends every process and removes every control group; the kernel does the
former by itself (death signals down the tree) should this process be killed.

Zygotes import packages that nobody has vouched for, so what they say is checked: a zygote that says anything out of its turn,
does not read its orders, or takes too long is ended, with its instances and no others, and this process never waits for one.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from . import cgroups, linux, probe

CONTROL = 3
_USUAL = (256, 128)  # memory in MB and processes of a function that says nothing: set at birth, off the cold start
_FORKS_AT_ONCE = 32  # of one zygote; bounds what waits in its socket
_BOOT_SECONDS = 7.0  # from a zygote's start to its readiness, imports included
_FORK_SECONDS = 5.0  # from an order to fork to the birth
_BURY_SECONDS = 3.0  # from the end of a process to the zygote's word about it
_CALM_SECONDS = 0.008  # without anything to do, before new stem cells are made: in a burst they would take its processors
_LOOK_SECONDS = 0.5  # how often these are looked at, while something is due
_ZYGOTES_OWN = 2  # processes: its init and itself
_ZYGOTE_BYTES, _ZYGOTE_PROCESSES = 4_294_967_296, 512  # what importing may take; instances leave the zygote's group
_UID_BASE, _UID_SPAN = 0x2000_0000, 65_536
_LAUNCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")


class Stem:
    """One fork of a zygote: unborn, then parked, then an instance, then gone."""

    def __init__(self, number: int, zygote: Zygote) -> None:
        self.number = number
        self.zygote = zygote
        self.birth: socket.socket | None = None
        self.group: cgroups.Group | None = None
        self.listeners: list[int] = []
        self.log = -1  # what a blank program writes, when it has one
        self.usage: list[int] = []
        self.pid = 0  # in the zygote's pid namespace
        self.host_pid = 0
        self.pidfd = -1
        self.ordered_at = time.monotonic()
        self.dead_at = 0.0
        self.born = False
        self.order: dict[str, Any] | None = None  # the start that this stem is for
        self.pipes: list[int] = []
        self.ended = False

    @property
    def instance(self) -> int | None:
        return None if self.order is None else self.order["id"]


class Zygote:
    """One zygote and its forks."""

    def __init__(self, key: str, index: int, order: dict[str, Any], control: socket.socket) -> None:
        self.key = key
        self.index = index
        self.order = order
        self.control = control
        self.group: cgroups.Group | None = None
        self.init_pid = 0
        self.mapped = False
        self.ready = False
        self.started_at = time.monotonic()
        self.parked: deque[Stem] = deque()
        self.by_pid: dict[int, Stem] = {}
        self.stems: dict[int, Stem] = {}
        self.forking = 0
        self.waiting: deque[tuple[dict[str, Any], list[int]]] = deque()  # starts that no stem could be made for yet
        self.wanted: int = order["stems"]


class Supervisor:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poller = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._zygotes: dict[str, Zygote] = {}
        self._instances: dict[int, Stem] = {}
        self._stem_numbers = 0
        self._zygote_numbers = 0
        self._tree: cgroups.Tree | None = None
        self._uid_range = False
        self._busy_groups: list[cgroups.Group] = []
        self._refill: set[str] = set()
        self._dying: set[Stem] = set()
        self._running = True
        self._looked_at = 0.0

    def run(self) -> None:
        wake_reader, wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the platform's end of the socket decides, also after Ctrl-C
        self._watch(self._control.fileno(), self._on_order)
        self._watch(wake_reader, lambda: self._on_child(wake_reader))
        while self._running:
            events = self._poller.poll(_CALM_SECONDS if self._refill else self._patience())
            for fd, _ in events:
                reader = self._readers.get(fd)
                if reader is not None:
                    reader()
            if not events:
                self._when_idle()
            if time.monotonic() - self._looked_at > _LOOK_SECONDS:
                self._end_the_late()
        self._end()

    def _patience(self) -> float:
        if self._busy_groups:
            return 0.05
        due = self._dying or any(zygote.forking or not zygote.ready for zygote in self._zygotes.values())
        return _LOOK_SECONDS if due else -1

    def _end_the_late(self) -> None:
        """A zygote whose import never returns, that does not fork or keeps its dead for itself, must hold up nobody."""
        now = self._looked_at = time.monotonic()
        for stem in list(self._dying):
            if not stem.dead_at and _has_ended(stem.pidfd):
                stem.dead_at = now
            elif stem.dead_at and now - stem.dead_at > _BURY_SECONDS:
                self._boot_again(stem.zygote, f"it did not report an end within {_BURY_SECONDS:g} s")
        for zygote in list(self._zygotes.values()):
            if not zygote.ready:
                if now - zygote.started_at > _BOOT_SECONDS:
                    self._boot_again(zygote, f"importing took longer than {_BOOT_SECONDS:g} s")
            elif any(not stem.born and now - stem.ordered_at > _FORK_SECONDS for stem in zygote.stems.values()):
                self._boot_again(zygote, f"it did not fork within {_FORK_SECONDS:g} s")

    def _watch(self, fd: int, reader: Callable[[], None]) -> None:
        self._readers[fd] = reader
        self._poller.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def _tell(self, event: dict[str, Any], fds: list[int] | None = None) -> None:
        try:
            linux.send(self._control, event, fds)
        except OSError:
            self._running = False  # the platform is gone

    def _when_idle(self) -> None:
        """What may wait until nothing else is to do: new stem cells, control groups that were busy."""
        self._busy_groups = [group for group in self._busy_groups if not group.remove()]
        for key in list(self._refill):
            zygote = self._zygotes.get(key)
            if zygote is None or len(zygote.parked) + zygote.forking >= zygote.wanted or not zygote.ready:
                self._refill.discard(key)
                continue
            if not self._fork(zygote):
                self._refill.discard(key)
            return  # one at a time, so that an order never waits for more than one fork

    # --- orders ---------------------------------------------------------------------------------------------------

    def _on_order(self) -> None:
        order, fds, _ = linux.receive(self._control)
        if order is None:
            self._running = False
            return
        getattr(self, "_order_" + order["order"])(order, fds)

    def _order_hello(self, order: dict[str, Any], _: list[int]) -> None:
        report = probe.probe(order["name"])
        self._tree, self._uid_range = report.tree, report.uid_range
        if report.level >= 2:
            try:
                if report.enter_user_namespace:
                    probe.enter_user_namespace()
                if self._tree is not None:
                    self._tree.prepare()
            except OSError as error:
                report.level, report.missing = 0, [*report.missing, str(error)]
        self._tell({"event": "hello", "level": report.level, "features": report.features, "missing": report.missing})

    def _order_zygote(self, order: dict[str, Any], _: list[int]) -> None:
        if order["key"] in self._zygotes:
            return
        try:
            self._boot(order)
        except OSError as error:
            self._tell({"event": "zygote_lost", "key": order["key"], "error": str(error)})

    def _order_start(self, order: dict[str, Any], fds: list[int]) -> None:
        zygote = self._zygotes.get(order["zygote"])
        if zygote is None:
            self._close(fds)
            self._tell({"event": "exit", "id": order["id"], "error": f"zygote {order['zygote']} is gone"})
            return
        if zygote.ready and zygote.parked:
            self._assign(zygote.parked.popleft(), order, fds)
        else:
            zygote.waiting.append((order, fds))
            self._serve_waiting(zygote)
        self._refill.add(zygote.key)

    def _order_kill(self, order: dict[str, Any], _: list[int]) -> None:
        stem = self._instances.get(order["id"])
        if stem is not None:
            self._kill(stem)
            return
        for zygote in self._zygotes.values():
            for entry in zygote.waiting:
                if entry[0]["id"] == order["id"]:
                    zygote.waiting.remove(entry)
                    self._close(entry[1])
                    self._tell({"event": "exit", "id": order["id"], "error": "ended before it started"})
                    return

    def _order_stems(self, order: dict[str, Any], _: list[int]) -> None:
        zygote = self._zygotes.get(order["key"])
        if zygote is None:
            return
        zygote.wanted = order["count"]
        while len(zygote.parked) > zygote.wanted:
            self._kill(zygote.parked.pop())
        self._refill.add(zygote.key)

    def _order_drop(self, order: dict[str, Any], _: list[int]) -> None:
        zygote = self._zygotes.get(order["key"])
        if zygote is not None:
            self._lose(zygote, "dropped")

    # --- zygotes --------------------------------------------------------------------------------------------------

    def _boot(self, order: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        self._zygote_numbers += 1
        zygote = Zygote(order["key"], self._zygote_numbers, order, ours)
        links, mounts, fds = _image(order["binds"])
        try:
            if self._tree is not None:
                zygote.group = self._tree.group(f"z{zygote.index}")
                zygote.group.limit(
                    memory_bytes=_ZYGOTE_BYTES,
                    processes=_ZYGOTE_PROCESSES,
                    cpu_weight=1024,
                    cpu_cores=float(os.cpu_count() or 1),
                )
                fds += zygote.group.join_files()
            _spawn("boot", theirs)
            message = {"uid_range": self._uid_range, "interpreter": order["interpreter"], "links": links, "mounts": mounts}
            linux.send(ours, message, fds)
        finally:
            theirs.close()
            self._close(fds)
        self._zygotes[zygote.key] = zygote
        self._watch(ours.fileno(), lambda: self._on_zygote(zygote))

    def _on_zygote(self, zygote: Zygote) -> None:
        try:
            event, fds, pid = linux.receive(zygote.control)
        except BlockingIOError:
            return
        except OSError as error:
            self._boot_again(zygote, f"it broke the protocol: {error}")
            return
        self._close(fds)
        if event is None:
            self._end_of(zygote)
            return
        try:
            self._heard(zygote, event, pid)
        except (OSError, KeyError, TypeError, ValueError) as error:
            self._boot_again(zygote, f"it broke the protocol: {type(error).__name__}: {error}"[:300])

    def _end_of(self, zygote: Zygote) -> None:
        if zygote.ready:
            self._lose(zygote, "the zygote ended")
        else:
            self._boot_again(zygote, "the zygote ended while it imported")

    def _heard(self, zygote: Zygote, event: dict[str, Any], pid: int) -> None:
        """One message. Raises KeyError, TypeError or ValueError for what is not its turn: the sender is then ended."""
        kind = event["event"]
        if kind == "map" and not zygote.mapped and not zygote.init_pid:
            zygote.mapped = True
            self._map_ids(zygote, pid)
        elif kind == "init" and not zygote.init_pid:
            zygote.init_pid = pid
            told = ("path", "modules", "task", "environment")
            linux.send(zygote.control, {"order": "import", **{name: zygote.order[name] for name in told}})
        elif kind == "ready" and zygote.init_pid and not zygote.ready:
            self._zygote_ready(zygote, event)
        elif kind == "forked" and zygote.stems[event["stem"]].pid == 0 and event["pid"] not in zygote.by_pid:
            stem = zygote.stems[event["stem"]]
            stem.pid = int(event["pid"])
            zygote.by_pid[stem.pid] = stem
        elif kind == "exit":
            self._ended(zygote.by_pid.pop(event["pid"]), int(event["status"]))
        elif kind == "unforked" and zygote.stems[event["stem"]].pid == 0:
            self._ended(zygote.stems[event["stem"]], 0)
            self._refuse_waiting(zygote, str(event.get("error"))[:300])
        elif kind == "failed" and not zygote.ready:
            self._lose(zygote, str(event.get("error"))[:300])
        else:
            raise ValueError(f"{kind!r} out of turn")

    def _map_ids(self, zygote: Zygote, pid: int) -> None:
        base = _UID_BASE + (zygote.index % 8_000) * _UID_SPAN
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="utf-8") as file:
                file.write(f"0 {base} {_UID_SPAN}")
        linux.send(zygote.control, {"order": "mapped"})

    def _zygote_ready(self, zygote: Zygote, event: dict[str, Any]) -> None:
        failed = {str(name)[:200]: str(reason)[:300] for name, reason in list(dict(event["failed"]).items())[:200]}
        if int(event["threads"]) > 1 and zygote.order["modules"]:
            # A package started a thread while it was imported; a fork would copy its locks but not the thread.
            self._boot_again(zygote, "")
            return
        if zygote.group is not None and zygote.group.processes() > _ZYGOTES_OWN and zygote.order["modules"]:
            self._boot_again(zygote, "a package left processes behind when it was imported")
            return
        zygote.ready = True
        milliseconds = int((time.monotonic() - zygote.started_at) * 1000)
        self._tell({"event": "zygote", "key": zygote.key, "failed": failed, "ms": milliseconds, "pid": zygote.init_pid})
        self._serve_waiting(zygote)
        self._refill.add(zygote.key)

    def _boot_again(self, zygote: Zygote, error: str) -> None:
        """Start it anew without the imports that went wrong; what waits for it goes on waiting."""
        if self._zygotes.get(zygote.key) is not zygote:
            return  # lost before
        if not zygote.order["modules"]:
            self._lose(zygote, error)
            return
        order = {**zygote.order, "modules": []}
        waiting = zygote.waiting
        zygote.waiting = deque()
        self._lose(zygote, error, quietly=True)
        self._order_zygote(order, [])
        successor = self._zygotes.get(order["key"])
        if successor is None:
            zygote.waiting = waiting
            self._refuse_waiting(zygote, error)
            return
        successor.waiting = waiting
        if error:
            failed = {", ".join(zygote.order["modules"])[:200]: error}
            self._tell({"event": "zygote", "key": zygote.key, "failed": failed, "ms": 0, "pid": 0})

    def _lose(self, zygote: Zygote, error: str, quietly: bool = False) -> None:
        """The zygote is gone, or must go: with its pid namespace goes every instance in it."""
        if self._zygotes.get(zygote.key) is not zygote:
            return  # lost before
        del self._zygotes[zygote.key]
        self._unwatch(zygote.control.fileno())
        zygote.control.close()
        if zygote.init_pid:
            _kill_pid(zygote.init_pid)
        for stem in list(zygote.stems.values()):
            self._kill(stem)
            self._ended(stem, signal.SIGKILL)
        if zygote.group is not None:
            self._busy_groups.append(zygote.group)
        for order, fds in zygote.waiting:
            self._close(fds)
            self._tell({"event": "exit", "id": order["id"], "error": error})
        if not quietly:
            self._tell({"event": "zygote_lost", "key": zygote.key, "error": error})

    # --- stems and instances --------------------------------------------------------------------------------------

    def _serve_waiting(self, zygote: Zygote) -> None:
        if not zygote.ready:
            return
        while zygote.waiting and zygote.parked:
            order, fds = zygote.waiting.popleft()
            self._assign(zygote.parked.popleft(), order, fds)
        while zygote.forking < min(len(zygote.waiting), _FORKS_AT_ONCE):
            if not self._fork(zygote):
                return

    def _fork(self, zygote: Zygote) -> bool:
        self._stem_numbers += 1
        stem = Stem(self._stem_numbers, zygote)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        joins: list[int] = []
        order: dict[str, Any] = {"order": "fork", "stem": stem.number, "rehearse": not zygote.waiting}
        try:
            if zygote.order["blank"]:
                stem.log, log = os.pipe2(os.O_CLOEXEC)
                joins.append(log)
                order["blank"] = {**zygote.order["blank"], "uid": _uid(stem), "uid_range": self._uid_range}
            if self._tree is not None:
                stem.group = self._tree.group(f"i{stem.number}")
                _limit(stem.group, *_USUAL)  # from birth on, and for most it stays so
                joins += stem.group.join_files()
                stem.usage = stem.group.usage_files()
            linux.send(zygote.control, order, [theirs.fileno(), *joins])
        except BlockingIOError:
            ours.close()
            self._forget_group(stem)
            return False  # its socket is full; the next birth makes room
        except OSError as error:
            ours.close()
            self._forget_group(stem)
            self._refuse_waiting(zygote, str(error))
            return False
        finally:
            theirs.close()
            self._close(joins)
        stem.birth = ours
        zygote.stems[stem.number] = stem
        zygote.forking += 1
        self._watch(ours.fileno(), lambda: self._on_birth(stem))
        return True

    def _refuse_waiting(self, zygote: Zygote, error: str) -> None:
        self._refill.discard(zygote.key)
        while zygote.waiting:
            self._refuse_one(zygote, error)

    def _refuse_one(self, zygote: Zygote, error: str) -> None:
        if zygote.waiting:
            order, fds = zygote.waiting.popleft()
            self._close(fds)
            self._tell({"event": "exit", "id": order["id"], "error": error})

    def _on_birth(self, stem: Stem) -> None:
        assert stem.birth is not None
        zygote = stem.zygote
        try:
            event, fds, pid = linux.receive(stem.birth)
        except BlockingIOError:
            return
        except OSError:
            event, fds, pid = {}, [], 0
        failed = "a fork of the zygote ended before it was isolated" if event is None else ""
        if event is not None and event.get("event") == "failed":
            failed = f"a sandbox could not be isolated: {event.get('error')}"[:300]
        if failed or stem.born or not _are_listeners(fds):
            self._close(fds)
            self._unwatch(stem.birth.fileno())
            if not stem.born:
                zygote.forking -= 1
                stem.born = True
                self._refuse_one(zygote, failed)
            if failed:
                self._kill(stem)
            else:
                self._boot_again(zygote, "a fork of it broke the protocol")
            return
        stem.born, stem.listeners, stem.host_pid = True, fds, pid
        zygote.forking -= 1
        try:
            stem.pidfd = linux.pidfd_open(pid)
        except OSError:
            return  # it died at once; the zygote will say so
        if zygote.waiting:
            order, pipes = zygote.waiting.popleft()
            self._assign(stem, order, pipes)
        else:
            zygote.parked.append(stem)
        self._serve_waiting(zygote)  # a place among the forks at once is free again
        self._refill.add(zygote.key)

    def _assign(self, stem: Stem, order: dict[str, Any], pipes: list[int]) -> None:
        stem.order = order
        self._instances[order["id"]] = stem
        assert stem.birth is not None
        mounts: list[int] = []
        try:
            if stem.group is not None and (order["memory_mb"], order["processes"]) != _USUAL:
                _limit(stem.group, order["memory_mb"], order["processes"])
            mounts = [linux.open_tree_readonly(folder) for folder in (order["code"], order.get("opt")) if folder]
            message = {
                "uid": _uid(stem),
                "uid_range": self._uid_range,
                "tmp_mb": order["tmp_mb"],
                "inodes": max(4_096, order["tmp_mb"] * 64),
                "rlimits": order["rlimits"],
            }
            linux.send(stem.birth, message, [*pipes, *mounts])
            logs = [stem.log] if stem.log >= 0 else []
            event = {"event": "started", "id": order["id"], "pid": stem.host_pid, "logs": len(logs)}
            self._tell(event, [*logs, *stem.listeners, *stem.usage])
        except OSError as error:
            order["error"] = str(error)
            self._kill(stem)
        finally:
            self._close(pipes)
            self._close([*stem.usage, *mounts, *stem.listeners])
            stem.usage, stem.listeners = [], []
            self._unwatch(stem.birth.fileno())
            stem.birth.close()

    def _kill(self, stem: Stem) -> None:
        if stem.pidfd >= 0:
            self._dying.add(stem)
            try:
                signal.pidfd_send_signal(stem.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _ended(self, stem: Stem, status: int) -> None:
        if stem.ended:
            return
        stem.ended = True
        self._dying.discard(stem)
        zygote = stem.zygote
        zygote.stems.pop(stem.number, None)
        zygote.by_pid.pop(stem.pid, None)
        if stem in zygote.parked:
            zygote.parked.remove(stem)
            self._refill.add(zygote.key)
        if not stem.born:
            zygote.forking -= 1
        if stem.birth is not None and stem.birth.fileno() >= 0:
            self._unwatch(stem.birth.fileno())
            stem.birth.close()
        self._close(stem.listeners)
        if stem.pidfd >= 0:
            os.close(stem.pidfd)
            stem.pidfd = -1
        if stem.order is not None:
            self._instances.pop(stem.order["id"], None)
            self._tell(self._obituary(stem, stem.order, status))
        self._forget_group(stem)

    def _obituary(self, stem: Stem, order: dict[str, Any], status: int) -> dict[str, Any]:
        event: dict[str, Any] = {"event": "exit", "id": order["id"]}
        if "error" in order:
            event["error"] = order["error"]
        if os.WIFSIGNALED(status):
            event["signal"] = os.WTERMSIG(status)
        elif os.WIFEXITED(status):
            event["code"] = os.WEXITSTATUS(status)
        if stem.group is not None:
            event["out_of_memory"] = stem.group.was_out_of_memory()
            event["peak_bytes"] = stem.group.peak_bytes()
        return event

    def _forget_group(self, stem: Stem) -> None:
        if stem.log >= 0:
            os.close(stem.log)
            stem.log = -1
        self._close(stem.usage)
        stem.usage = []
        if stem.group is not None and not stem.group.remove():
            self._busy_groups.append(stem.group)

    # --- the end --------------------------------------------------------------------------------------------------

    def _on_child(self, wake_reader: int) -> None:
        try:
            os.read(wake_reader, 4_096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return

    def _end(self) -> None:
        for zygote in list(self._zygotes.values()):
            zygote.control.close()  # one that is still being started waits for us there
            if zygote.init_pid:
                _kill_pid(zygote.init_pid)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    time.sleep(0.002)
            except ChildProcessError:
                break
        if self._tree is not None:
            self._tree.clear()

    @staticmethod
    def _close(fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)


def _uid(stem: Stem) -> int:
    return 1_000 + stem.number % 60_000


def _limit(group: cgroups.Group, memory_mb: int, processes: int) -> None:
    """Memory is the hard limit; CPU is a weight by memory, and at most a core for 1769 MB but never less than one."""
    cores = max(1.0, memory_mb / 1769)
    group.limit(memory_bytes=memory_mb * 1_048_576, processes=processes, cpu_weight=memory_mb * 4, cpu_cores=cores)


def _has_ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _kill_pid(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _are_listeners(fds: list[int]) -> bool:
    """Two listening TCP sockets, as an instance hands them over; anything else did not come from our code."""
    if len(fds) != 2:
        return False
    for fd in fds:
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if sock.family != socket.AF_INET or sock.type != socket.SOCK_STREAM or not listening:
                    return False
        except OSError:
            return False
    return True


def _spawn(module: str, channel: socket.socket) -> None:
    """Start `module` of this folder with `channel` as its descriptor 3 and an empty environment."""
    arguments = [sys.executable, "-I", "-S", _LAUNCH, module]
    null = os.open("/dev/null", os.O_RDWR)
    file_actions = [
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, null, 1),
        (os.POSIX_SPAWN_DUP2, null, 2),  # what a package prints while it is imported is not for the operator's terminal
        (os.POSIX_SPAWN_DUP2, channel.fileno(), CONTROL),
    ]
    os.set_inheritable(channel.fileno(), channel.fileno() == CONTROL)
    os.posix_spawn(sys.executable, arguments, {}, file_actions=file_actions, setsigdef=[signal.SIGINT, signal.SIGTERM])
    os.close(null)


def _image(binds: list[list[str]]) -> tuple[list[list[str]], list[list[Any]], list[int]]:
    """The image's symbolic links, mount points and the detached mounts for them (opened here, where paths can be)."""
    links: list[list[str]] = []
    wanted: list[tuple[str, str]] = [("/usr", "/usr")]
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        if os.path.islink(f"/{name}"):
            links.append([f"/{name}", os.readlink(f"/{name}")])
        elif os.path.isdir(f"/{name}"):
            wanted.append((f"/{name}", f"/{name}"))
    for name in ("ssl", "ca-certificates", "pki", "alternatives", "ld.so.cache", "localtime", "mime.types"):
        if os.path.exists(f"/etc/{name}"):
            wanted.append((os.path.realpath(f"/etc/{name}"), f"/etc/{name}"))
    wanted += [(source, target) for source, target in binds]
    mounts: list[list[Any]] = []
    fds: list[int] = []
    for source, target in wanted:
        fds.append(linux.open_tree_readonly(source))
        mounts.append([target, os.path.isdir(source)])
    for name in ("null", "zero", "full", "random", "urandom"):
        fds.append(linux.open_tree_device(f"/dev/{name}"))
        mounts.append([f"/dev/{name}", False])
    return links, mounts, fds


def main() -> None:
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    linux.prctl(linux.PR_SET_PDEATHSIG, 0)
    Supervisor(socket.socket(fileno=CONTROL)).run()
