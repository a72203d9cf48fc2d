"""A container that is used again is as new, or is not used again."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from verigym.envs.sandbox import pool as pools
from verigym.envs.sandbox.docker import DockerBackend
from verigym.envs.sandbox.pool import ContainerPool, PooledSandbox
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError

pytestmark = pytest.mark.docker

LOOK = "git status --porcelain --ignored; git log --oneline | wc -l; cat calc.py pkg/deep.py; ls -A /tmp ~ /var/tmp"
LOOK += "; echo ${LEAK-unset} ${KEPT-unset}; pwd; umask; cat made; stat -c %a:%Y pkg calc.py"
LOOK += "; cat /proc/[0-9]*/comm | grep -c '^sl[e]ep'"

UNDONE = {
    "files": "echo B = 3 > pkg/deep.py; rm calc.py; mkdir new; echo x > new/x; echo y > a.log; rm made",
    "git": "echo evil >> .git/config; rm calc.py; git -c user.name=a -c user.email=a@b commit -qam m; rm -r .git/refs",
    "times": "cp -p calc.py k; echo C = 9 > calc.py; touch -r k calc.py; rm k",
    "index": "git update-index --assume-unchanged calc.py; echo D = 4 > calc.py",
    "environment": "export LEAK=1; unset KEPT; cd /; umask 000; echo alias ls=false > ~/.bashrc; (setsid sleep 999 &)",
    "all": "rm -rf /testbed/* /testbed/.git",
    "odd": "ln -s / link; ln calc.py twice; chmod 700 pkg; chmod 777 made; mkfifo /tmp/fifo; echo x > /dev/shm/y",
    "folder times": "touch -d 2001-01-01 pkg; touch -d 2001-01-01 .",
}
NOT_UNDONE = {
    "program": "mkdir -p /usr/local/bin; echo x > /usr/local/bin/git; chmod +x /usr/local/bin/git",
    "limits": "python3 -c 'import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (200, 200))'",
    "users": "echo evil >> /etc/passwd; mkdir /srv/hidden",
    "closed": "mkdir -p d/e && touch d/e/f && chmod 000 d",
    "hosts": "echo 127.0.0.1 evil >> /etc/hosts",
    "memory": "python3 -c 'import ctypes; assert ctypes.CDLL(None).shmget(7, 4096, 0o1600) >= 0'",
    "device": "rm /dev/null; echo x > /dev/null",
}


@asynccontextmanager
async def pool_of(engine, **settings):
    engine.num_containers = 0
    pool = ContainerPool(DockerBackend(engines=[engine], settings=SandboxSettings(**settings)))
    try:
        yield pool
    finally:
        await pool.empty()
    assert engine.num_containers == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def prepare(sandbox):
    result = await sandbox.aexec("echo made > made; export KEPT=kept")
    assert result.exit_code == 0


async def reused(engine, image, dirt):
    """{what: (whether the next user sees the same as the one before, whether it got the same container)}."""
    spec = SandboxSpec(image=image, workdir="/testbed")
    seen = {}
    async with pool_of(engine) as pool:
        await (await pool.reuse(spec, "s", prepare)).aclose()
        for name, command in {"nothing": "true", **dirt}.items():
            box = await pool.reuse(spec, "s", prepare)
            first, container = await box.aexec(LOOK), box.box.stream.container
            result = await box.aexec(command, timeout_s=30)
            assert result.exit_code == 0, result
            await box.aclose()
            with pytest.raises(SandboxError, match="was closed"):
                await box.aexec("echo ok")
            box = await pool.reuse(spec, "s", prepare)
            again = await box.aexec(LOOK)
            assert again.output == first.output, name
            seen[name] = box.box.stream.container == container
            await box.aclose()
    return seen


def test_what_can_be_undone_is_undone(engine, repo_image):
    assert asyncio.run(reused(engine, repo_image, UNDONE)) == {"nothing": True} | dict.fromkeys(UNDONE, True)


def test_what_cannot_be_undone_costs_the_container(engine, repo_image):
    assert asyncio.run(reused(engine, repo_image, NOT_UNDONE)) == {"nothing": True} | dict.fromkeys(NOT_UNDONE, False)


def test_a_container_that_dies_or_is_new_is_not_lent_again(engine, repo_image):
    spec = SandboxSpec(image=repo_image, workdir="/testbed")

    async def main():
        async with pool_of(engine) as pool:
            fresh = [await pool.create(spec) for _ in range(2)]
            await fresh[0].aexec("true")
            await asyncio.gather(*(box.aclose() for box in fresh))
            again = [await pool.create(spec) for _ in range(2)]
            assert again[0].box is fresh[1].box  # it was not used
            assert again[1].box is not fresh[0].box
            for box in again:
                await box.read_file("calc.py")
                await box.aclose()
            boxes = [await pool.reuse(spec, "s", prepare) for _ in range(3)]
            assert [isinstance(box, PooledSandbox) for box in boxes] == [False, True, True]
            engine.api.kill(boxes[1].box.stream.container)
            await asyncio.gather(*(box.aclose() for box in boxes))
            engine.api.kill(boxes[2].box.stream.container)  # while it waits
            await asyncio.sleep(0.5)
            box = await pool.reuse(spec, "s", prepare)
            assert box.box.stream.container not in {one.box.stream.container for one in boxes[1:]}
            await box.aclose()
            other = await pool.reuse(spec, "another state", prepare)
            assert other is not box
            assert (await other.aexec("cat made")).output == "made\n"
            await other.aclose()

    asyncio.run(main())


def test_containers_of_episodes_that_begin_together_are_all_kept(engine, repo_image):
    spec = SandboxSpec(image=repo_image, workdir="/testbed")

    async def main():
        async with pool_of(engine) as pool:
            boxes = await asyncio.gather(*(pool.reuse(spec, "s", prepare) for _ in range(5)))
            assert all(isinstance(box, PooledSandbox) for box in boxes)
            containers = {box.box.stream.container for box in boxes}
            await asyncio.gather(*(box.aclose() for box in boxes))
            again = await asyncio.gather(*(pool.reuse(spec, "s", prepare) for _ in range(5)))
            assert {box.box.stream.container for box in again} == containers
            assert {(await box.aexec("cat made")).output for box in again} == {"made\n"}
            await asyncio.gather(*(box.aclose() for box in again))

    asyncio.run(main())


def test_the_cap_holds_and_nobody_waits_for_ever(engine, repo_image):
    async def main():
        async with pool_of(engine, max_containers=2) as pool:

            async def one(number):
                spec = SandboxSpec(image=repo_image, workdir="/testbed")
                box = await (pool.create(spec) if number % 3 == 0 else pool.reuse(spec, str(number % 3), prepare))
                most = engine.num_containers
                output = (await box.aexec(f"echo {number}")).output
                await box.aclose()
                return output, most <= 2

            async with asyncio.timeout(300):
                return await asyncio.gather(*map(one, range(9)))

    assert asyncio.run(main()) == [(f"{i}\n", True) for i in range(9)]


def test_what_waits_goes_with_its_loop_after_a_while_and_beyond_the_most(engine, repo_image, monkeypatch):
    spec = SandboxSpec(image=repo_image, workdir="/testbed")
    engine.num_containers = 0
    pool = ContainerPool(DockerBackend(engines=[engine], settings=SandboxSettings(max_idle=1)))

    async def use():
        await (await pool.reuse(spec, "s", prepare)).aclose()
        boxes = [await pool.reuse(spec, "s", prepare) for _ in range(2)]
        await asyncio.gather(*(box.aclose() for box in boxes))
        assert engine.num_containers == 1

    asyncio.run(use())
    assert engine.num_containers == 0

    async def wait():
        await use()
        async with asyncio.timeout(30):
            while engine.num_containers:
                await asyncio.sleep(0.05)

    monkeypatch.setattr(pools, "IDLE_S", 0.2)
    asyncio.run(wait())
