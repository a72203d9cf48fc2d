"""Signed records. What writes, reads and signs them is held from before the repository is there: functions of C, and a
``json`` that was loaded once more, so that nobody who imports the module has it.

Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import importlib
import os
import sys
from hashlib import sha256

BLOCK = 64
READ, WRITE = os.read, os.write


def loaded_again(name):
    """A module and its package's others as objects of our own; importing them goes on giving what it gave."""

    def theirs():
        return [one for one in sys.modules if f"{one}.".startswith(f"{name}.")]

    before = {one: sys.modules.pop(one) for one in theirs()}
    module = importlib.import_module(name)
    for one in theirs():
        del sys.modules[one]
    sys.modules.update(before)
    return module


_json = loaded_again("json")
loads, dumps = _json.JSONDecoder().decode, _json.JSONEncoder().encode


def signature(key, body):
    """HMAC-SHA256 of bytes, as hexadecimal digits; the key has at most 64 bytes."""
    padded = key.ljust(BLOCK, b"\0")
    inner = sha256(bytes(one ^ 0x36 for one in padded) + body).digest()
    return sha256(bytes(one ^ 0x5C for one in padded) + inner).hexdigest().encode()


def sender(descriptor, key):
    def send(record):
        body = dumps(record).encode()
        write_all(descriptor, signature(key, body) + b" " + body + b"\n")

    return send


def verifier(key):
    def verified(line):
        signed, _, body = line.partition(b" ")
        return loads(body.decode()) if signed == signature(key, body) else None

    return verified


def write_all(descriptor, data):
    while data:
        data = data[WRITE(descriptor, data) :]


def take(descriptor, num_bytes):
    """So many bytes of a pipe; fewer at its end."""
    data = b""
    while len(data) < num_bytes:
        piece = READ(descriptor, num_bytes - len(data))
        if not piece:
            break
        data += piece
    return data
