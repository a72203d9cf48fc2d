"""Memory that belongs to no process is bounded too: files in memory, System V memory, buffers of sockets and pipes."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from verigym.envs.sandbox import control_group
from verigym.envs.sandbox.local import LocalBackend
from verigym.envs.sandbox.types import Limits, SandboxSpec

SPEC = SandboxSpec(limits=Limits(memory_mib=192, disk_mib=64))
HOLD = "import time; print('held', flush=True); time.sleep(30)"
ATTACKS = {
    "a file in memory": "import os; f = os.memfd_create('x'); [os.write(f, b'x' * (1 << 20)) for _ in range(400)]",
    "many files in memory": """
import os
for _ in range(100):
    f = os.memfd_create('x')
    for _ in range(4): os.write(f, b'x' * (1 << 20))
""",
    "a file in memory, sparse, then filled": """
import mmap, os
f = os.memfd_create('x')
os.ftruncate(f, 400 << 20)
for at in range(0, 400 << 20, 1 << 20): os.pwrite(f, b'x' * (1 << 20), at)
""",
    "System V memory": """
import ctypes
c = ctypes.CDLL(None)
c.shmat.restype = ctypes.c_void_p
for _ in range(100):
    at = c.shmat(c.shmget(0, 4 << 20, 0o1600), None, 0)
    ctypes.memset(at, 1, 4 << 20)
    c.shmdt(ctypes.c_void_p(at))
""",
    "buffers of sockets": """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
kept = []
for _ in range(1500):
    pair = socket.socketpair()
    kept.append(pair)
    for one in pair:
        one.setblocking(False)
        try:
            while True: one.send(b'x' * 65536)
        except BlockingIOError:
            pass
""",
    "memory shared by children": """
import mmap, os
for _ in range(8):
    if os.fork() == 0:
        m = mmap.mmap(-1, 50 << 20)
        m.write(b'x' * (50 << 20))
        import time; time.sleep(30)
""",
}
counted = pytest.mark.skipif(control_group.place() is None, reason="no control group can be had here")


async def _tried(code, backend, spec=SPEC):
    sandbox = await backend.create(spec)
    try:
        await sandbox.write_file("/tmp/attack.py", f"{code}\n{HOLD}\n".encode())
        result = await sandbox.aexec("python3 /tmp/attack.py", timeout_s=60)
        after = await sandbox.aexec("echo ok", timeout_s=30)
        return result, after.output
    finally:
        await sandbox.aclose()


@counted
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("way", [("bwrap", False), ("unshare", False)])
def test_each_is_killed_for_memory_and_the_session_lives(attack, way):
    backend = LocalBackend(launcher=way[0], user_namespace=way[1])
    result, after = asyncio.run(_tried(ATTACKS[attack], backend))
    assert (result.killed, result.exit_code) == ("memory", None), result.output
    assert after == "ok\n"


@counted
def test_what_fits_is_not_killed():
    code = """
import os, socket
f = os.memfd_create('x')
for _ in range(60): os.write(f, b'x' * (1 << 20))
x = bytearray(b'x' * (60 << 20))
for name in range(30): open(f'/tmp/{name}', 'wb').write(b'x' * (1 << 20))
for name in range(2000): open(f'/tmp/small-{name}', 'w').close()
print('fits', flush=True)
raise SystemExit
"""
    result, after = asyncio.run(_tried(code, LocalBackend()))
    assert (result.output, result.killed, after) == ("fits\n", None, "ok\n")


def test_without_a_control_group_they_cannot_be_made(monkeypatch):
    monkeypatch.setattr(control_group, "make", lambda limits, extra: None)
    code = """
import ctypes, os
try:
    os.memfd_create('x')
except OSError as error:
    print(error.strerror)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.shmget(0, 4096, 0o1600), os.strerror(ctypes.get_errno()), flush=True)
raise SystemExit
"""
    result, _ = asyncio.run(_tried(code, LocalBackend()))
    assert result.output == "Function not implemented\n-1 Function not implemented\n"


@counted
def test_no_group_is_left():
    folder, _ = control_group.place()

    def groups():
        return set(folder.glob(f"{control_group.PREFIX}{os.getpid()}-*"))

    async def main():
        sandboxes = [await LocalBackend().create(SPEC) for _ in range(3)]
        assert len(groups() - before) >= 3
        for sandbox in sandboxes:
            await sandbox.aexec("sleep 100 & echo ok", timeout_s=20)
            await sandbox.aclose()

    before = groups()  # of what other tests have not closed yet
    asyncio.run(main())
    ends = time.monotonic() + 60
    while groups() - before and time.monotonic() < ends:
        control_group.make(SPEC.limits, 0).close()  # what was not quite gone goes with the next
        time.sleep(0.05)
    assert groups() <= before


@counted
def test_what_a_killed_process_has_left_is_swept(tmp_path):
    folder, _ = control_group.place()
    left = folder / f"{control_group.PREFIX}4194000-123-0"
    left.mkdir()
    control_group._sweep(folder)
    assert not left.exists()


def test_groups_are_looked_for_where_this_process_is(monkeypatch, tmp_path):
    """Version 2 beside our own group, because a group that holds processes can bound nothing below it."""
    mount = tmp_path / "cgroup"
    (mount / "user.slice" / "app.slice" / "run.scope").mkdir(parents=True)
    (mount / "user.slice" / "app.slice" / "cgroup.subtree_control").write_text("memory pids\n")
    (mount / "user.slice" / "cgroup.subtree_control").write_text("cpu memory pids\n")
    texts = {
        "/proc/self/mountinfo": [f"30 24 0:26 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw"],
        "/proc/self/cgroup": ["0::/user.slice/app.slice/run.scope"],
    }
    lines = control_group._lines
    monkeypatch.setattr(control_group, "_lines", lambda path: texts.get(str(path)) or lines(path))
    assert list(control_group._candidates()) == [
        (mount / "user.slice" / "app.slice", 2),
        (mount / "user.slice", 2),
    ]
    texts["/proc/self/mountinfo"] = ["30 24 0:26 / /m rw - cgroup cgroup rw,memory"]
    texts["/proc/self/cgroup"] = ["4:memory:/a/b", "0::/"]
    assert list(control_group._candidates()) == [(Path("/m/a/b"), 1)]
