"""Attacks on files: the host's, the platform's, other functions', and what one's own sandbox is made of."""

import hashlib
import os
import stat
from pathlib import Path

from trying import outcome


def read(paths):
    def content(path):
        with open(path, "rb") as file:
            return file.read(200).decode("latin-1")

    return {path: outcome(content, path) for path in paths}


def entries(paths):
    return {path: outcome(os.listdir, path) for path in paths}


def write(paths):
    def put(path):
        with open(path, "ab") as file:
            return file.write(b"# attacked\n")

    return {path: outcome(put, path) for path in paths}


def make_in(folders):
    def make(folder):
        path = f"{folder}/attacked"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        return path

    return {folder: outcome(make, folder) for folder in folders}


def change(paths):
    """chmod, rename, unlink, utime, link away."""
    results = {}
    for path in paths:
        results[path] = {
            "chmod": outcome(os.chmod, path, 0o777),
            "unlink": outcome(os.unlink, path),
            "rename": outcome(os.rename, path, "/tmp/stolen"),
            "link": outcome(os.link, path, "/tmp/linked"),
            "utime": outcome(os.utime, path),
            "truncate": outcome(os.truncate, path, 0),
        }
    return results


def walk_up():
    """Everything that can be reached by ".." from every folder and open descriptor."""
    roots = {}
    for start in ("/var/task", "/rw/tmp", "/proc/self/cwd", "/proc/1/root", "/proc/1/cwd", "/opt"):
        roots[start] = outcome(os.listdir, start + "/.." * 12)
    return roots


def search(needles, start="/"):
    """Every readable file below `start` that holds one of `needles`."""
    found = []
    wanted = [needle.encode() for needle in needles]
    for folder, folders, files in os.walk(start):
        folders[:] = [name for name in folders if f"{folder}/{name}".replace("//", "/") not in ("/proc", "/usr", "/var/lang")]
        for name in files:
            path = f"{folder}/{name}"
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                with open(path, "rb") as file:
                    content = file.read(1 << 20)
            except OSError:
                continue
            if any(needle in content for needle in wanted):
                found.append(path)
    return found


def writable(start="/"):
    """Folders and files below `start` that this process could write."""
    found = []
    for folder, folders, files in os.walk(start):
        folders[:] = [
            name
            for name in folders
            if f"{folder}/{name}".replace("//", "/") not in ("/proc", "/dev", "/usr/share", "/usr/include")
        ]
        if os.access(folder, os.W_OK):
            found.append(folder)
        paths = (f"{folder}/{name}" for name in files)
        found += [path for path in paths if not os.path.islink(path) and os.access(path, os.W_OK)]
    return found


def links_out():
    """Links in /tmp that lead to what must not be reached, and a hard link to the code."""
    results = {}
    for name, target in (("shadow", "/etc/shadow"), ("host", "/proc/1/root/etc/shadow"), ("up", "/../../../../etc/shadow")):
        os.symlink(target, f"/tmp/{name}")
        results[name] = outcome(lambda name=name: Path(f"/tmp/{name}").read_text())
        os.unlink(f"/tmp/{name}")
    results["hard"] = outcome(os.link, "/var/task/app.py", "/tmp/hard")
    results["rename_exchange"] = outcome(os.rename, "/tmp", "/tmp2")
    results["over_root"] = outcome(os.rename, "/rw/tmp", "/rw/other")
    return results


def overwrite_runtime():
    """The interpreter's memory is one's own; its files are everybody's."""
    return write(
        [
            "/var/task/app.py",
            "/var/lang/bin/python3.11",
            "/var/lang/lib/python3.11/json/__init__.py",
            "/var/martlet/inside/runtime.py",
            "/var/martlet/sdk/martlet/__init__.py",
            "/var/martlet/sdk/martlet/sdk/app.py",
            "/var/martlet/lib/msgspec/__init__.py",
            "/usr/bin/env",
            "/etc/passwd",
            "/etc/hosts",
        ]
    )


def memory_of(pid):
    return {
        name: outcome(lambda name=name: open(f"/proc/{pid}/{name}", "rb").read(64).decode("latin-1"))
        for name in ("environ", "mem", "maps")
    }


def other_memory():
    """/proc of everybody: what is there beyond oneself, and what does it show."""
    own = os.getpid()
    others = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != own]
    return {
        "others": others,
        "root": outcome(os.listdir, "/proc/1/root"),
        "root_etc": outcome(os.listdir, "/proc/1/root/etc"),
        "parent": os.getppid(),
        "self_environ": open("/proc/self/environ").read().split("\0"),
        "cmdline": open("/proc/1/cmdline").read().split("\0"),
        "task": os.listdir("/proc/1/task"),
    }


def scan_own_memory(needles):
    """Which of `needles`, each [how it begins, its length, its SHA-256], is anywhere in the memory of this process.

    A needle is never known here in full, so that this code does not find what it was told.
    """
    found = set()
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", buffering=0) as memory:
        for line in list(maps):
            low, high = (int(text, 16) for text in line.split()[0].split("-"))
            try:
                memory.seek(low)
                content = memory.read(high - low)
            except (OSError, OverflowError):
                continue
            for index, (beginning, length, digest) in enumerate(needles):
                at = content.find(beginning.encode())
                while at >= 0:
                    if hashlib.sha256(content[at : at + length]).hexdigest() == digest:
                        found.add(index)
                    at = content.find(beginning.encode(), at + 1)
    return sorted(found)


def descriptors():
    return {
        name: os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{name}")
    }


def mount_table():
    with open("/proc/self/mountinfo") as file:
        return [[line.split()[4], line.split()[5]] for line in file]
