"""A process that is talked to while it runs."""

import asyncio

import pytest

from verigym.envs.sandbox.choose import candidates
from verigym.envs.sandbox.local import UnsafeBackend
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError


def backends():
    return [*candidates()[:1], UnsafeBackend()]


@pytest.mark.parametrize("number", range(2))
def test_it_answers_while_it_runs(number):
    made = backends()
    if len(made) <= number:
        pytest.skip("no local sandbox here")

    async def talk():
        sandbox = await made[number].create(SandboxSpec())
        try:
            process = await sandbox.astart(
                ["sh", "-c", "while read line; do echo got $line; done; echo bye >&2; exit 3"]
            )
            process.write(b"one\n")
            assert await process.read() == b"got one\n"
            process.write(b"two\n" * 30_000)
            got = b""
            while len(got) < 30_000 * 8:
                got += await process.read()
            assert got == b"got two\n" * 30_000
            beside = await sandbox.arun(["echo", "beside"])
            assert beside.stdout == b"beside\n"
            process.kill()
            assert await process.read() == b""
            assert (await process.wait()).killed == "cancelled"
            ended = await sandbox.astart(["sh", "-c", "echo all; echo bye >&2; exit 3"])
            assert await ended.read() == b"all\n"
            result = await ended.wait()
            assert (result.exit_code, result.stderr, result.killed) == (3, b"bye\n", None)
            last = await sandbox.astart(["cat"])
        finally:
            await sandbox.aclose()
        with pytest.raises(SandboxError):
            await last.read()

    asyncio.run(talk())


def test_input_for_a_process_that_has_closed_its_input_is_lost_and_nothing_else():
    async def talk():
        sandbox = await backends()[0].create(SandboxSpec())
        try:
            process = await sandbox.astart(["sh", "-c", "exec 0<&-; echo closed; sleep 0.3; exit 4"])
            assert await process.read() == b"closed\n"
            for _ in range(3):
                process.write(b"lost\n")
            assert (await process.wait()).exit_code == 4
            assert (await sandbox.arun(["echo", "ok"])).stdout == b"ok\n"
        finally:
            await sandbox.aclose()

    asyncio.run(talk())
