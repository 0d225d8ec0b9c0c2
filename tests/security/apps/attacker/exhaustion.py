"""Attacks that eat: memory in every form, disk, inodes."""

import mmap
import os
import time

from trying import outcome


def eat_heap(megabytes):
    kept = []
    for _ in range(megabytes):
        kept.append(bytearray(os.urandom(4096) * 256))
    return len(kept)


def eat_in_children(megabytes_each, children):
    """Each child stays below the limit, together they do not."""
    for _ in range(children):
        if not os.fork():
            kept = bytearray(megabytes_each << 20)
            for at in range(0, len(kept), 4096):
                kept[at] = 1
            time.sleep(5)
            os._exit(0)
    time.sleep(3)
    return "all of them live"


def eat_memfd(megabytes):
    descriptor = os.memfd_create("eater")
    for _ in range(megabytes):
        os.write(descriptor, bytes(1 << 20))
    return megabytes


def eat_shared_mapping(megabytes):
    area = mmap.mmap(-1, megabytes << 20)
    for at in range(0, len(area), 4096):
        area[at] = 1
    return megabytes


def fill_tmp():
    written = 0
    with open("/tmp/filler", "wb", buffering=0) as file:
        while written < 1 << 30:
            try:
                written += file.write(bytes(1 << 20))
            except OSError as error:
                ended = error.errno
                break
        else:
            ended = 0
    os.unlink("/tmp/filler")
    return {"written": written, "ended": ended}


def fill_inodes():
    made, ended = 0, 0
    os.makedirs("/tmp/inodes", exist_ok=True)
    try:
        while made < 200_000:
            os.close(os.open(f"/tmp/inodes/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        ended = error.errno
    for number in range(made):
        os.unlink(f"/tmp/inodes/{number}")
    return {"made": made, "ended": ended}


def sparse():
    """A file far larger than /tmp, without data; then make it real."""
    descriptor = os.open("/tmp/sparse", os.O_CREAT | os.O_RDWR)
    result = {
        "truncate": outcome(os.ftruncate, descriptor, 1 << 40),
        "fallocate": outcome(os.posix_fallocate, descriptor, 0, 1 << 30),
    }
    os.close(descriptor)
    os.unlink("/tmp/sparse")
    return result


def lock_memory():
    import ctypes

    area = mmap.mmap(-1, 16 << 20)
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    result = libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(16 << 20))
    return {"result": result, "errno": ctypes.get_errno(), "all": libc.mlockall(3)}
