"""What is sent to a sandbox: in order, whatever the carrier can take, and without copies of it."""

import asyncio
import random
import tracemalloc

from verigym.envs.sandbox.frames import PIECE, Frames


class Carrier(Frames):
    """Takes what it is given until it is full, at random."""

    def __init__(self, dice):
        super().__init__()
        self.dice, self.taken, self.largest = dice, bytearray(), 0

    def _write(self, data):
        assert not self._is_full
        self.largest = max(self.largest, len(data))
        self.taken += data
        if self.dice.random() < 0.5:
            self.pause_writing()

    def kill(self, why):
        self.fail(why)

    async def aclose(self):
        self.kill("closed")


def test_frames_follow_each_other_whatever_the_carrier_takes():
    async def work(seed):
        dice = random.Random(seed)
        carrier, sent = Carrier(dice), []
        for number in range(30):
            body = dice.randbytes(dice.choice((0, 10, PIECE, 3 * PIECE + 1)))
            carrier.tell({"id": number}, body)
            sent.append((number, body))
            if dice.random() < 0.5:
                carrier.resume_writing()
        while carrier._outgoing:
            carrier.resume_writing()
        return carrier, sent

    for seed in range(5):
        carrier, sent = asyncio.run(work(seed))
        data, found = bytes(carrier.taken), []
        while data:
            head, size = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
            found.append(data[8 + head : 8 + head + size])
            data = data[8 + head + size :]
        assert found == [body for _, body in sent]
        assert carrier.largest <= PIECE


def test_what_waits_is_not_copied_and_goes_with_the_sandbox():
    body = bytes(8 << 20)

    async def work():
        carrier = Carrier(random.Random(0))
        carrier.pause_writing()
        tracemalloc.start()
        for _ in range(4):
            carrier.tell({"id": 1}, body)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        carrier.fail("gone")
        return held, list(carrier._outgoing)

    held, left = asyncio.run(work())
    assert held < 100_000
    assert left == []
