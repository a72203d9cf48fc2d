"""Images without an engine: who runs in them, what of them can be changed, and what is told where one cannot be had."""

import asyncio
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from verigym.envs.sandbox import control_group
from verigym.envs.sandbox.guest.watching import alive
from verigym.envs.sandbox.nursery import nursery
from verigym.envs.sandbox.oci.backend import OciBackend
from verigym.envs.sandbox.oci.flavor import AS_ROOT, AS_USER, FIRST_ID
from verigym.envs.sandbox.oci.store import ImageStore
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.errors import SandboxError

from .archives import docker_archive, layer, member

pytestmark = pytest.mark.usefixtures("local_sandbox")
FLAVORS = [
    pytest.param(AS_USER, id="user"),
    pytest.param(AS_ROOT, id="root", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
]


@pytest.fixture(params=FLAVORS)
def backend(request, tmp_path):
    store = ImageStore(tmp_path / "store", flavor=request.param)
    made = OciBackend(store=store, user_namespace=request.param is AS_USER)
    yield made
    made.close()


def image_of(tmp_path, programs, *members, **settings):
    """An archive of an image: this machine's programs, and a layer of one's own above."""
    return str(docker_archive(tmp_path / "own.tar", [programs, layer(*members)], **settings))


async def said(backend, spec, command):
    box = await backend.create(spec)
    try:
        result = await box.aexec(command, timeout_s=30)
        return result.output
    finally:
        await box.aclose()


def test_commands_run_as_the_image_says(backend, tmp_path, programs_layer):
    members = (member("testbed/"), member("theirs/", uid=1234, gid=77), member("home/u/", uid=500, gid=500))
    passwd = b"root:x:0:0:root:/root:/bin/bash\nu:x:500:500::/home/u:/bin/bash\n"
    whole = image_of(tmp_path, programs_layer, *members, Env=["A=of the image"])
    named = docker_archive(
        tmp_path / "named.tar", [programs_layer, layer(*members, member("etc/passwd", passwd))], User="u"
    )
    ask = 'echo "$(id -u):$(id -g) $HOME $A"; pwd; touch here && stat -c %u:%g here .'
    answers = {
        (whole, "/testbed"): "0:0 /root of the image\n/testbed\n0:0\n0:0\n",
        (whole, "/theirs"): "1234:77 /home/agent of the image\n/theirs\n1234:77\n1234:77\n",
        (whole, "/new/folder"): "1000:1000 /home/agent of the image\n/new/folder\n1000:1000\n1000:1000\n",
        (str(named), "/home/u"): "500:500 /home/u \n/home/u\n500:500\n500:500\n",
    }
    for (image, workdir), wanted in answers.items():
        assert asyncio.run(said(backend, SandboxSpec(image=image, workdir=workdir), ask)) == wanted


def test_root_of_an_image_has_no_rights_and_is_nobody_here(backend, tmp_path, programs_layer):
    image = image_of(tmp_path, programs_layer, member("testbed/"), member("tool", b"", mode=0o4755))
    commands = (
        "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs)' /proc/self/status | tr -s '\\t0' ' '; cat /proc/self/uid_map; "
        "mount -t tmpfs none /tmp 2>/dev/null; echo $?; kill -9 1; cat /proc/1/environ 2>/dev/null | wc -c; "
        "chown 5 /testbed 2>/dev/null; echo $?; ls -d /.host* 2>/dev/null"
    )
    lines = asyncio.run(said(backend, SandboxSpec(image=image, workdir="/testbed"), commands)).splitlines()
    assert lines[:4] == ["CapPrm: ", "CapEff: ", "CapAmb: ", "NoNewPrivs: 1"]
    users = lines[4].split()
    assert users == (["0", "0", "1"] if backend.store.flavor is AS_USER else ["0", str(FIRST_ID), "65536"])
    assert lines[5:] == ["32", "0", "1"]


def test_what_is_written_is_this_boxes_alone(backend, tmp_path, programs_layer):
    image = image_of(
        tmp_path, programs_layer, member("testbed/"), member("testbed/file", b"as it was"), member("testbed/d/x", b"1")
    )
    spec = SandboxSpec(image=image, workdir="/testbed")
    change = "echo changed > file; rm -r d; mkdir d; ls d | wc -l; mv file moved; ln moved also; cat also"
    assert asyncio.run(said(backend, spec, change)) == "0\nchanged\n"
    assert asyncio.run(said(backend, spec, "cat file; ls d")) == "as it wasx\n"


def test_folders_of_the_image_that_are_links_lead_nowhere_outside(backend, tmp_path, programs_layer):
    victim = tmp_path / "victim"
    victim.mkdir()
    image = image_of(
        tmp_path,
        programs_layer,
        member("opt", kind=tarfile.SYMTYPE, link=str(victim)),
        member("run", kind=tarfile.SYMTYPE, link="../../../../" + str(victim)),
        member("tmp", kind=tarfile.SYMTYPE, link="/elsewhere"),
        member("elsewhere/"),
        member("etc/hosts", kind=tarfile.SYMTYPE, link=str(victim / "hosts")),
    )
    command = "echo x > /opt/y; cat /etc/hosts | head -c 9; echo ok"
    spec = SandboxSpec(image=image, workdir="/opt/work")
    try:
        assert asyncio.run(said(backend, spec, command)).endswith("127.0.0.1ok\n")
    except SandboxError:
        pass  # a folder that the box needs leads nowhere: it may be refused, too
    assert list(victim.iterdir()) == []


def test_a_disk_is_as_large_as_its_limit_and_no_more(backend, tmp_path, programs_layer):
    image = image_of(tmp_path, programs_layer, member("testbed/"), member("testbed/big", b"x" * (12 << 20)))
    spec = SandboxSpec(image=image, workdir="/testbed", limits=Limits(disk_mib=16))
    command = "cat big big > twice 2>/dev/null; echo $?; stat -c %s twice; rm twice; echo more > m; cat m"
    code, size, more = asyncio.run(said(backend, spec, command)).splitlines()
    assert (code, more) == ("1", "more")
    assert 8 << 20 < int(size) <= 16 << 20


def test_a_task_without_an_image_gets_the_local_sandbox(backend):
    assert asyncio.run(said(backend, SandboxSpec(), "pwd")) == "/workspace\n"


def test_an_image_that_cannot_be_had_is_told_with_the_remedy(tmp_path, monkeypatch):
    backend = OciBackend(store=ImageStore(tmp_path / "store"), settings=SandboxSettings(pull_attempts=1))

    def fails(image, told):
        with pytest.raises(SandboxError, match=told):
            asyncio.run(backend.create(SandboxSpec(image=image)))

    fails("/not/there.tar", "cannot be read")
    monkeypatch.setenv("PATH", str(tmp_path))
    fails("some/name:1", r"not here.*skopeo.*is not installed.*docker save NAME")
    skopeo = tmp_path / "skopeo"
    skopeo.write_text('#!/bin/sh\necho "pinging container registry: dial tcp: connection refused" >&2\nexit 1\n')
    skopeo.chmod(0o755)
    fails("some/name:1", r"cannot be pulled \(.*connection refused\).*its registry can be reached, or bring it")
    assert os.listdir(tmp_path / "store") == []


def test_a_pull_is_one_call_of_skopeo(tmp_path, monkeypatch):
    """What skopeo would have fetched lies in a layout here."""
    from .archives import oci_layout

    layout = oci_layout(tmp_path / "there", [layer(member("a", b"1"))], name="image")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "skopeo").write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/asked\nfor last; do :; done\n'
        f'to=${{last#oci:}}; /bin/cp -r {layout} "${{to%:image}}"\n'
    )
    (bin_folder / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    backend = OciBackend(store=ImageStore(tmp_path / "store"))

    async def both():
        return await asyncio.gather(backend.image("reg.example/a/b"), backend.image("reg.example/a/b"))

    one, other = asyncio.run(both())
    assert one.id == other.id == backend.store.find("reg.example/a/b:latest").id
    asked = (tmp_path / "asked").read_text()
    assert asked.count("\n") == 1
    assert "docker://reg.example/a/b:latest" in asked
    assert [name for name in os.listdir(tmp_path / "store") if name.startswith("pulling-")] == []
    backend.close()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_user_without_any_rights_runs_images(tmp_path, programs_layer):
    """The rootless way for real: another user, nothing of ours, a cache of its own."""
    import subprocess
    import sys

    home = tmp_path / "home"
    home.mkdir()
    archive = docker_archive(home / "own.tar", [programs_layer, layer(member("testbed/"), member("testbed/a", b"1\n"))])
    for path in (home, archive):
        os.chown(path, 54321, 54321)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import asyncio\nfrom verigym.envs.sandbox.oci.backend import OciBackend\n"
        "from verigym.envs.sandbox.types import SandboxSpec\n"
        "async def main():\n"
        f" box = await OciBackend().create(SandboxSpec(image={str(archive)!r}, workdir='/testbed'))\n"
        " print((await box.aexec('id -u; cat a; rm a; echo b > a; cat a; ls | wc -l')).output.split())\n"
        " await box.aclose()\nasyncio.run(main())\n"
    )
    argv = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", sys.executable, "-c", code]
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "VERIGYM_CACHE": str(home / "cache")}
    done = subprocess.run(argv, env=env, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.stdout == "['0', '1', 'b', '1']\n", done.stderr


def test_root_that_was_asked_for_has_a_containers_rights_and_no_more(backend, tmp_path, programs_layer):
    image = image_of(tmp_path, programs_layer, member("testbed/", uid=1000), member("testbed/theirs", b"1", uid=1000))
    commands = (
        "id -u; echo 2 > theirs && cat theirs; mkdir /made && touch /etc/made && echo made; "
        "chown 5:6 theirs 2>/dev/null; stat -c %u theirs; mount -t tmpfs none /tmp 2>/dev/null; echo $?; "
        "cat /proc/1/environ 2>/dev/null | wc -c; head -c 1 /proc/1/mem 2>/dev/null | wc -c; kill -9 1; "
        "grep CapEff /proc/self/status; echo x 2>/dev/null > /proc/sys/kernel/hostname || echo read-only"
    )
    spec = SandboxSpec(image=image, workdir="/testbed", root=True)
    lines = asyncio.run(said(backend, spec, commands)).splitlines()
    alone = backend.store.flavor is AS_USER
    assert lines[:4] == ["0", "2", "made", "0" if alone else "5"]
    assert lines[4:7] == ["32", "0", "0"]
    assert int(lines[7].split()[1], 16) == 0b10011111011
    assert lines[8] == "read-only"


@pytest.mark.slow
def test_two_hundred_episodes_leave_nothing(backend, tmp_path, programs_layer):
    """At 16 at once, some of which crash, are cancelled, or end in the middle of a command."""
    image = image_of(tmp_path, programs_layer, member("testbed/"), member("testbed/a", b"1\n"))
    spec = SandboxSpec(image=image, workdir="/testbed")

    async def episode(number, slots):
        async with slots:
            box = await backend.create(spec)
            job = asyncio.create_task(box.aexec(("kill -9 $$", "sleep 600 & sleep 600", "rm a; cat a")[number % 3]))
            await asyncio.sleep(0.02)
            if number % 6 == 1:
                job.cancel()
            await box.aclose()
            await asyncio.gather(job, return_exceptions=True)

    async def all_of(number):
        slots = asyncio.Semaphore(16)
        await asyncio.gather(*(episode(one, slots) for one in range(number)))

    def held():
        groups = [place[0] for place in [control_group.place()] if place]
        return (
            len(os.listdir("/proc/self/fd")),
            sum(len(list(one.glob(f"verigym-{os.getpid()}-*"))) for one in groups),
            Path("/proc/self/mountinfo").read_text().count(str(tmp_path)),
            len([one for one in alive().values() if one.parent == nursery()._process.pid]),
        )

    asyncio.run(all_of(16))
    before = held()
    asyncio.run(all_of(200))
    after = held()
    assert after[0] <= before[0] + 5
    assert after[1:] == (0, 0, 0)
