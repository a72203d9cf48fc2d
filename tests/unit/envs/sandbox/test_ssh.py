"""Sandboxes on another machine, which here is this one behind an sshd of the test's own."""

import asyncio
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from verigym.envs.sandbox import guest_look
from verigym.envs.sandbox.conformance import CHECKS, ISOLATION_CHECKS
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.ssh import SshBackend
from verigym.envs.sandbox.types import Bind, SandboxSpec
from verigym.errors import SandboxError

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
AS_USER_QUICK = {"check_session", "check_invisible"}
QUICK = {
    "check_session",
    "check_run",
    "check_close",
    "check_network",
    "check_invisible",
    "check_deadline",
    "check_binds",
}


def start(folder, port):
    """An sshd for this user alone, and the client's configuration of it under the name "box"."""
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, capture_output=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin prohibit-password\n"
    )
    (folder / "config").write_text(
        f"Host box\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n  IdentityFile {folder}/user\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking yes\n"
    )
    return subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=(folder / "log").open("wb"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Settings that lead to the machine."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("no sshd here (apt install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("ssh")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = start(folder, port)
    for _ in range(100):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                break
        if process.poll() is not None:
            pytest.skip(f"sshd does not start: {(folder / 'log').read_text()[-300:]}")
        time.sleep(0.05)
    yield SandboxSettings(ssh_hosts=("box",), ssh_config=folder / "config", ssh_folder=str(folder / "brought"))
    process.terminate()
    process.wait()


def checked(backend):
    """The backend, or a skip where the machine gives nobody namespaces."""
    try:
        asyncio.run(session(backend, "true"))
    except SandboxError as error:
        if "unshare" in str(error):
            pytest.skip(f"no namespaces: {error}")
        raise
    return backend


@pytest.fixture(scope="module")
def backend(machine):
    return checked(SshBackend(settings=machine))


@pytest.fixture(scope="module")
def as_user(machine):
    """As where the machine is entered by somebody who is not root."""
    backend = SshBackend(settings=machine)
    (one,) = backend._machines
    honest = one._look
    one._look = lambda digests: {**honest(digests), "uid": 1000}
    return checked(backend)


async def session(backend, command, spec=None):
    sandbox = await backend.create(spec or SandboxSpec())
    try:
        return (await sandbox.aexec(command)).output
    finally:
        await sandbox.aclose()


def checks(quick):
    """Every check, those that are not quick marked slow."""
    return [
        pytest.param(check, marks=[] if check.__name__ in quick else [pytest.mark.slow], id=check.__name__)
        for check in (*CHECKS, *ISOLATION_CHECKS)
    ]


@pytest.mark.parametrize("check", checks(QUICK))
def test_it_passes_what_every_sandbox_must(check, backend):
    asyncio.run(asyncio.wait_for(check(backend), 120))


@pytest.mark.parametrize("check", checks(AS_USER_QUICK))
def test_it_passes_that_as_a_user_too(check, as_user):
    asyncio.run(asyncio.wait_for(check(as_user), 120))


def another(machine, missing):
    """As where the machine is another one, on which a path is not what it is here."""
    backend = SshBackend(settings=machine)
    (one,) = backend._machines
    honest = one._look

    def look(digests):
        facts = honest(digests)
        return {**facts, "same": [path for path in facts["same"] if path != missing]}

    one._look = look
    return backend


def test_what_the_machine_lacks_is_brought_once_and_whole(backend, machine, tmp_path):
    brought = Path(machine.ssh_folder)
    here = tmp_path / "shown"
    (here / "a").mkdir(parents=True)
    (here / "a" / "text").write_text("brought\n")
    (here / "link").symlink_to("a/text")
    spec = SandboxSpec(binds=(Bind(source=here, target="/opt/shown"),))
    elsewhere = another(machine, str(here))
    read = "cat /opt/shown/link; touch /opt/shown/x 2>/dev/null || echo kept"
    assert asyncio.run(session(elsewhere, read, spec)) == "brought\nkept\n"
    name = f"bind-{guest_look.digest(str(here))}"
    assert (brought / name / "item" / "a" / "text").read_text() == "brought\n"
    for later in (elsewhere, another(machine, str(here))):
        later._machines[0]._send = lambda source, script: pytest.fail("it was brought already")
        assert asyncio.run(session(later, read, spec)) == "brought\nkept\n"
    assert not [path.name for path in brought.iterdir() if path.name.startswith(".part")]


def test_what_could_not_be_brought_leaves_nothing(backend, machine, tmp_path):
    (tmp_path / "file").write_text("x")
    (one,) = backend._machines
    before = {path.name for path in Path(machine.ssh_folder).iterdir()}
    with pytest.raises(SandboxError, match="could not be brought to box"):
        one._send(str(tmp_path / "file"), "cat > /dev/null; echo full >&2; exit 3")
    assert {path.name for path in Path(machine.ssh_folder).iterdir()} == before


def test_a_digest_tells_names_sizes_times_and_links(tmp_path):
    (tmp_path / "a").write_text("x")
    first = guest_look.digest(str(tmp_path))
    assert guest_look.digest(str(tmp_path)) == first
    os.utime(tmp_path / "a", (1, 1))
    second = guest_look.digest(str(tmp_path))
    (tmp_path / "b").symlink_to("a")
    assert len({first, second, guest_look.digest(str(tmp_path))}) == 3


def test_boxes_are_spread_and_counted_until_they_are_closed(machine):
    backend = SshBackend(settings=machine.model_copy(update={"ssh_hosts": ("box", "box")}))

    async def main():
        boxes = [await backend.create(SandboxSpec()) for _ in range(3)]
        live = [one.live for one in backend._machines]
        for box in (*boxes, boxes[0]):
            await box.aclose()
        return live, [one.live for one in backend._machines]

    assert asyncio.run(main()) == ([2, 1], [0, 0])


def test_a_box_ends_with_its_connection(backend):
    async def main():
        sandbox = await backend.create(SandboxSpec())
        await sandbox.aexec("sleep 87654 & sleep 0.1")
        alive = sleeping()
        sandbox._channel.kill("as where the network goes away")
        for _ in range(100):
            if not sleeping():
                return alive, []
            await asyncio.sleep(0.1)
        return alive, sleeping()

    def sleeping():
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += [path.parent.name] if path.read_bytes() == b"sleep\x0087654\0" else []
            except OSError:
                continue
        return found

    alive, left = asyncio.run(main())
    assert len(alive) == 1
    assert left == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ssh_hosts": ()}, "VERIGYM_SANDBOX_SSH_HOSTS"),
        ({"ssh_hosts": ("nobody@127.0.0.1",), "ssh_config": Path("/dev/null")}, "without a password"),
        ({"ssh_folder": "/proc/nowhere"}, "nowhere"),
    ],
)
def test_a_machine_that_cannot_be_had_is_said_with_the_remedy(machine, changes, told):
    with pytest.raises(SandboxError, match=told):
        asyncio.run(session(SshBackend(settings=machine.model_copy(update=changes)), "true"))


def test_an_image_is_refused(machine):
    with pytest.raises(SandboxError, match="has no images"):
        asyncio.run(session(SshBackend(settings=machine), "true", SandboxSpec(image="debian")))
