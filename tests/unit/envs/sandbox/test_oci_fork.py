"""A running sandbox once more: files to the byte, a shell in the same state, nothing shared; or no fork."""

import asyncio
import os
import subprocess
import sys

import pytest

from verigym.envs.sandbox.oci import fork as fork_module
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.flavor import AS_ROOT, AS_USER
from verigym.envs.sandbox.oci.fork import tree_digest
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.types import ForkingSandbox, SandboxSpec
from verigym.errors import SandboxError

from .archives import docker_archive, layer, member

pytestmark = [
    pytest.mark.usefixtures("local_sandbox"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a user cannot reach a box's files"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory, programs_layer):
    own = layer(member("testbed/"), member("testbed/old", b"old\n"), member("testbed/dir/a", b"1\n"))
    return str(docker_archive(tmp_path_factory.mktemp("image") / "own.tar", [programs_layer, own]))


@pytest.fixture
def backend(tmp_path):
    made = OciBackend(store=ImageStore(tmp_path / "store", flavor=AS_ROOT))
    yield made
    made.close()
    assert list((tmp_path / "store" / "forks").glob("*")) == []


async def gives(box, command):
    result = await box.aexec(command, timeout_s=30)
    assert result.exit_code == 0, result
    return result.output


def test_files_are_the_same_and_then_each_ones_own(backend, image):
    async def main():
        box = await backend.create(SandboxSpec(image=image, workdir="/testbed"))
        await gives(
            box, "echo new > new; ln new twice; ln -s new link; mkfifo pipe; rm old; rm -r dir; mkdir dir; touch dir/b"
        )
        await gives(box, "chmod 640 new; touch -d @5 dir/b; head -c 3000000 /dev/zero > big; echo x > /tmp/t")
        look = "find . /tmp -type d -printf '%P %m %U %T@\n' -o -printf '%P %y %m %U %n %s %T@ %l\n' | sort; cat new"
        before = await gives(box, look)
        fork = await box.fork()
        try:
            assert isinstance(fork, ForkingSandbox)
            assert await gives(fork, look) == before == await gives(box, look)
            await gives(fork, "echo forked > new; rm twice; rm -r dir")
            assert await gives(box, "cat new twice; ls dir") == "new\nnew\nb\n"
            await gives(box, "echo first > new")
            assert (
                await gives(fork, "cat new; ls; ls -d old dir 2>/dev/null || echo gone")
                == "forked\nbig\nlink\nnew\npipe\ngone\n"
            )
        finally:
            await fork.aclose()
            await box.aclose()

    asyncio.run(main())


def test_a_shell_in_the_same_state(backend, image):
    state = (
        "mkdir -p deep && cd deep; export E='a b'; V=$'line\\nline'; A=(1 'two 2' 3); declare -A M=([k]='v w')\n"
        "f() { echo \"f $1\"; }\nshopt -s nullglob; set -o pipefail; umask 027; trap 'echo bye' USR1; I=5; declare -i I"
    )
    ask = (
        'pwd; echo "$E|$V|${A[1]}|${M[k]}"; f x; env | grep ^E=; shopt nullglob; set -o | grep pipefail; '
        "umask; trap -p USR1; I+=2; echo $I"
    )

    async def main():
        box = await backend.create(SandboxSpec(image=image, workdir="/testbed"))
        await gives(box, state)
        fork = await box.fork()
        try:
            told = await gives(fork, ask)
            assert told == await gives(box, ask)
            assert told.startswith("/testbed/deep\na b|line\nline|two 2|v w\nf x\nE=a b\n")
            assert told.endswith("7\n")
            await gives(fork, "cd /; E=other")
            assert await gives(box, "pwd; echo $E") == "/testbed/deep\na b\n"
        finally:
            await fork.aclose()
            await box.aclose()

    asyncio.run(main())


def test_a_fork_of_a_fork_outlives_both(backend, image):
    async def main():
        box = await backend.create(SandboxSpec(image=image, workdir="/testbed"))
        await gives(box, "echo 1 > one; rm old")
        second = await box.fork()
        await gives(second, "echo 2 > two; rm one; echo x > old")
        third = await second.fork()
        await box.aclose()
        await second.aclose()
        try:
            assert await gives(third, "cat two old; ls") == "2\nx\ndir\nold\ntwo\n"
        finally:
            await third.aclose()

    asyncio.run(main())


def test_what_runs_forbids_a_fork(backend, image):
    async def main():
        box = await backend.create(SandboxSpec(image=image, workdir="/testbed"))
        try:
            await gives(box, "sleep 600 & echo")
            with pytest.raises(SandboxError, match="1 processes run beside the shell"):
                await box.fork()
            await gives(box, "kill $!; wait || :")
            await (await box.fork()).aclose()
        finally:
            await box.aclose()

    asyncio.run(main())


def test_a_copy_that_differs_is_no_fork(backend, image, monkeypatch):
    real = fork_module.tree_digest

    def changing(folder):
        digest = real(folder)
        if folder.startswith("/proc/"):
            with open(f"{folder}/testbed/new", "a") as file:
                file.write("meanwhile")
        return digest if folder.startswith("/proc/") else real(folder) + "!"

    monkeypatch.setattr(fork_module, "tree_digest", changing)

    async def main():
        box = await backend.create(SandboxSpec(image=image, workdir="/testbed"))
        try:
            await gives(box, "echo new > new")
            with pytest.raises(SandboxError, match="changed while it was copied"):
                await box.fork()
            assert await gives(box, "echo ok") == "ok\n"
        finally:
            await box.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "change", ["echo y > a", "chmod 600 a", "touch -d @9 a", "rm a", "touch b", "ln -sf z link", "mv a c"]
)
def test_a_digest_sees_every_change(tmp_path, change):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("y")
    os.utime(tmp_path / "a", (5, 5))
    before = tree_digest(str(tmp_path))
    assert tree_digest(str(tmp_path)) == before
    subprocess.run(["sh", "-c", change], cwd=tmp_path, check=True)
    assert tree_digest(str(tmp_path)) != before


def test_a_user_is_told_that_there_is_no_fork(tmp_path, image):
    async def main():
        backend = OciBackend(store=ImageStore(tmp_path / "user", flavor=AS_USER), user_namespace=True)
        box = await backend.create(SandboxSpec(image=image, workdir="/testbed"))
        try:
            with pytest.raises(SandboxError, match="where root started it"):
                await box.fork()
        finally:
            await box.aclose()
            backend.close()

    asyncio.run(main())


def test_what_a_killed_owner_left_goes_at_the_next_fork(tmp_path, image):
    code = (
        "import asyncio, os, signal\nfrom pathlib import Path\n"
        "from verigym.envs.sandbox.oci.backend import OciBackend\n"
        "from verigym.envs.sandbox.oci.store import ImageStore\n"
        "from verigym.envs.sandbox.types import SandboxSpec\n"
        "async def main():\n"
        f" backend = OciBackend(store=ImageStore(Path({str(tmp_path / 'store')!r})))\n"
        f" box = await backend.create(SandboxSpec(image={image!r}, workdir='/testbed'))\n"
        " await box.fork()\n os.kill(os.getpid(), signal.SIGKILL)\nasyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=120)
    forks = tmp_path / "store/forks"
    assert len(list(forks.iterdir())) == 1
    fork_module.sweep(forks)
    assert list(forks.iterdir()) == []
