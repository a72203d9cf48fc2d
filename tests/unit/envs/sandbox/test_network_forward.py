"""A process inside that is no longer ours: what it says reaches no handler that it should not, and it is replaced."""

import asyncio
import struct

import pytest

from verigym.envs.sandbox.network import forward
from verigym.envs.sandbox.network.guest_forward import DATA, END, HEADER, MOST_CONNECTIONS, OPEN, READY, TOOK, WINDOW
from verigym.envs.sandbox.types import ProcessResult
from verigym.errors import SandboxError


def frame(kind, number, data=b""):
    return struct.pack(HEADER, kind, number, len(data)) + data


class Process:
    """Says what it is told to, then waits until it is killed."""

    def __init__(self, said):
        self.said, self.written, self.killed = [frame(READY, 0, b"3128"), *said], bytearray(), asyncio.Event()

    def write(self, data):
        self.written += data

    async def read(self):
        if self.said:
            return self.said.pop(0)
        await self.killed.wait()
        return b""

    async def wait(self):
        return ProcessResult(stdout=b"", stderr=b"", exit_code=1)

    def kill(self):
        self.killed.set()


class Sandbox:
    """Its first process says what is told; the later ones are honest; after ``most`` there are none."""

    def __init__(self, said, most=3):
        self.said, self.most, self.started, self.argv = said, most, [], []

    async def astart(self, argv, *, cwd=None, env=None):
        if len(self.started) == self.most:
            raise SandboxError("it is gone")
        self.argv.append(argv)
        self.started.append(Process([] if self.started else self.said))
        return self.started[-1]


async def run(sandbox, wait_s=0.3):
    served = []

    async def handler(connection):
        served.append(await connection.read())
        await connection.write(b"answer")

    async with forward.forwarded(sandbox, [(0, handler)]) as ports:
        assert ports == [3128]
        await asyncio.sleep(wait_s)
    return served


BREACHES = {
    "no frame": [b"\xff" * 64],
    "a frame of 16 MiB": [struct.pack(HEADER, DATA, 1, 1 << 24)],
    "a route that there is not": [frame(OPEN, 1, b"7")],
    "a route that is no number": [frame(OPEN, 1, b"-1")],
    "the same connection twice": [frame(OPEN, 1, b"0"), frame(OPEN, 1, b"0")],
    "more bytes than were asked for": [frame(OPEN, 1, b"0") + frame(DATA, 1, b"x" * WINDOW) + frame(DATA, 1, b"x")],
    "bytes after the end": [frame(OPEN, 1, b"0") + frame(END, 1) + frame(DATA, 1, b"x")],
    "took what was not sent": [frame(OPEN, 1, b"0") + frame(TOOK, 1, struct.pack(">I", 1))],
    "a kind that there is not": [frame(OPEN, 1, b"0") + frame(99, 1)],
    "too many connections": [b"".join(frame(OPEN, number, b"0") for number in range(1, 2 * MOST_CONNECTIONS + 2))],
}


@pytest.mark.parametrize("what", BREACHES)
def test_a_process_that_breaks_the_protocol_is_ended_and_started_again_on_its_ports(what):
    sandbox = Sandbox(BREACHES[what])
    asyncio.run(run(sandbox))
    assert len(sandbox.started) == 2
    assert sandbox.started[0].killed.is_set()
    assert [argv[-1] for argv in sandbox.argv] == ["0", "3128"]


def test_an_honest_process_stays_and_is_ended_with_the_block():
    sandbox = Sandbox([frame(OPEN, 1, b"0"), frame(DATA, 1, b"question")])
    assert asyncio.run(run(sandbox)) == [b"question"]
    (process,) = sandbox.started
    assert bytes(process.written) == (frame(TOOK, 1, struct.pack(">I", 8)) + frame(DATA, 1, b"answer") + frame(END, 1))
    assert process.killed.is_set()


def test_bytes_of_connections_that_there_are_not_go_nowhere():
    sandbox = Sandbox([frame(DATA, 5, b"x"), frame(END, 6), frame(TOOK, 7, b"")])
    assert asyncio.run(run(sandbox)) == []
    assert len(sandbox.started) == 1


def test_where_the_sandbox_is_gone_nothing_is_started_for_ever(monkeypatch):
    monkeypatch.setattr(forward, "LONGEST_PAUSE_S", 0.1)
    sandbox = Sandbox(BREACHES["no frame"], most=1)
    asyncio.run(run(sandbox, wait_s=0.6))
    assert len(sandbox.started) == 1
