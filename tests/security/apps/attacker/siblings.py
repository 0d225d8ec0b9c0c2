"""What siblings of one zygote have in common."""

import hashlib
import json
import os
import pipes
import random
import secrets
import ssl
import tempfile
import time
import uuid


def randomness():
    generator = random.Random()
    return {
        "random": random.random(),
        "random.Random": generator.random(),
        "uuid4": str(uuid.uuid4()),
        "secrets": secrets.token_hex(16),
        "urandom": os.urandom(16).hex(),
        "ssl": ssl.RAND_bytes(16).hex(),
        "tempfile": tempfile.mkdtemp(),
        "system": random.SystemRandom().random(),
        "shuffle": hashlib.sha256(repr(random.sample(range(1000), 20)).encode()).hexdigest(),
    }


def randomness_once():
    """Answers by itself and ends the instance: so the next event meets a fresh sibling."""
    pipes.leave_with(json.dumps(randomness()))


def traces(seconds=0):
    """What a fresh instance can see of others: environment, arguments, files, descriptors."""
    begun = time.monotonic()
    time.sleep(seconds)
    with open("/proc/self/environ") as file:
        environ = file.read()
    with open("/proc/self/cmdline") as file:
        cmdline = file.read()
    return {
        "environ": environ,
        "cmdline": cmdline,
        "tmp": os.listdir("/tmp"),
        "variables": dict(os.environ),
        "uid": os.getuid(),
        "ran": [begun, time.monotonic()],
    }


def leave_mark():
    found = os.path.exists("/tmp/mark")
    with open("/tmp/mark", "w") as file:
        file.write("mark")
    return found


def alive():
    return "alive"
