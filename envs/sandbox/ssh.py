"""Sandboxes on other machines, reached by OpenSSH: our guest in namespaces there, its frames over the connection."""

import asyncio
import gzip
import marshal
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from ...errors import SandboxError
from . import guest_look, launch
from .background import on_thread_to_its_end
from .boot import boot_line
from .channel import Channel
from .per_loop import PerLoop
from .runtime import INSIDE, runtime_folder, runtime_python
from .session import GuestSandbox
from .settings import SandboxSettings
from .types import SandboxSpec

START_S, LOOK_S, BRING_S = 60.0, 120.0, 900.0
SSH_FAILED = 255
MOST_STARTING = 4
"""Connections of one machine that are opened at once: sshd turns away more than ten that have not yet said who they
are."""

OPTIONS = ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ControlMaster=no")
OPTIONS += ("RequestTTY=no", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no")


class SshBackend:
    """Boxes as the local sandbox makes them, on the machines of ``VERIGYM_SANDBOX_SSH_HOSTS``.

    A machine needs sshd, util-linux's ``unshare``, tar, bash, and root or user namespaces; no Python and nothing of
    ours: that is brought once, into a folder of its cache, and so are the spec's binds, where the same do not lie there
    at the same path. It must be of this machine's architecture. System folders are the machine's own. A box ends when
    its connection does.
    """

    name = "ssh"

    def __init__(self, *, settings: SandboxSettings | None = None) -> None:
        """
        Raises:
            SandboxError: no machine is named, or there is no ssh here.
        """
        settings = settings or SandboxSettings()
        program = shutil.which("ssh")
        if program is None:
            raise SandboxError("ssh is not installed here; the sandbox ssh needs it (apt install openssh-client)")
        if not settings.ssh_hosts:
            raise SandboxError("the sandbox ssh needs machines; name them in VERIGYM_SANDBOX_SSH_HOSTS (USER@HOST,…)")
        config = ("-F", str(settings.ssh_config)) if settings.ssh_config else ()
        command = [program, *config, *(word for option in OPTIONS for word in ("-o", option))]
        self._machines = [_Machine(host, [*command, "--", host], settings.ssh_folder) for host in settings.ssh_hosts]

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        if spec.image is not None:
            raise SandboxError(
                f"the ssh sandbox has no images, and the task asks for {spec.image!r}; use docker or oci"
            )
        binds = launch.checked_binds((*launch.base_python_binds(), *spec.binds))
        machine = min(self._machines, key=lambda one: one.live)
        machine.live += 1
        try:
            return await machine.open(spec, binds)
        except BaseException:
            machine.live -= 1
            raise


class _Machine:
    """One machine, and what it is known to have.

    Attributes:
        live: boxes that run there, or are being made.
    """

    def __init__(self, host: str, command: list[str], folder: str) -> None:
        self.host, self.live = host, 0
        self._command, self._folder_asked = command, folder
        self._lock, self._room = threading.Lock(), PerLoop(lambda: asyncio.Semaphore(MOST_STARTING))
        self._folder, self._there, self._facts = "", set[str](), dict[str, Any]()
        self._places: dict[str, str] = {}

    async def open(self, spec: SandboxSpec, binds: Mapping[str, str]) -> GuestSandbox:
        """A box. Raises SandboxError: the machine does not answer, or lacks something; the message says what."""
        await on_thread_to_its_end(self._bring, sorted(set(binds.values())))
        facts, runtime = self._facts, self._places[str(runtime_folder())]
        alone = facts["uid"] != 0
        config = launch.guest_config(spec, drop=not alone)
        shown = {path: path for path in (*facts["folders"], *facts["etc"])} | {INSIDE: runtime}
        shown |= {target: self._places[source] for target, source in binds.items()}
        config |= {"build": True, "nested_user": alone, "links": [tuple(pair) for pair in facts["links"]]}
        config |= {"binds": launch.in_order(shown), "bash": [facts["bash"], "bash"]}
        words = [facts["unshare"], "--mount", "--ipc", "--pid", "--net", "--uts", "--fork", "--kill-child=SIGKILL"]
        words += ["--user", "--map-root-user"] if alone else []
        words += ["--", *_python_at(runtime), "-I", "-S", "-E", "-c", _BOOT]
        async with self._room.get():
            channel = await Channel.open(
                [*_with_environment(), *self._command, f"exec {shlex.join(words)}"],
                launch.first_input(config),
                timeout_s=START_S,
            )
        is_open = True

        async def end() -> None:
            nonlocal is_open
            self.live -= is_open
            is_open = False

        return GuestSandbox(channel, spec, end=end)

    def _bring(self, sources: list[str]) -> None:
        """See to it that what is shown lies there. One thread at a time; what was brought is not looked at again."""
        runtime = str(runtime_folder())
        with self._lock:
            wanted = [source for source in (runtime, *sources) if source not in self._places]
            if not wanted:
                return
            if not self._folder:
                self._open_folder()
            if runtime in wanted:
                name = f"runtime-{Path(runtime).parent.name}"
                self._places[runtime] = self._upload(runtime, name)
                wanted.remove(runtime)
            digests = {source: guest_look.digest(source) for source in wanted}
            self._facts = self._look(digests)
            for source, digest in digests.items():
                same = source in self._facts["same"]
                self._places[source] = source if same else self._upload(source, f"bind-{digest}")

    def _open_folder(self) -> None:
        asked = (
            shlex.quote(self._folder_asked) if self._folder_asked else '"${XDG_CACHE_HOME:-$HOME/.cache}/verigym-ssh"'
        )
        old = "find . -maxdepth 1 -name '.part-*' -mtime +0 -exec rm -rf {} +"
        said = self._run(f"umask 077; mkdir -p {asked} && cd {asked} || exit; {old}; uname -m; pwd -P; ls", b"", LOOK_S)
        machine, folder, *there = said.decode(errors="replace").splitlines()
        if machine != os.uname().machine:
            raise SandboxError(f"{self.host} is of the architecture {machine}, this machine of {os.uname().machine}")
        self._folder, self._there = folder, set(there)

    def _look(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """What there is. Raises SandboxError where something is missing."""
        order = {
            "system_folders": launch.SYSTEM_FOLDERS,
            "etc": launch.ETC + launch.ETC_MORE,
            "digests": dict(digests),
        }
        source = Path(guest_look.__file__).read_text(encoding="utf-8")
        words = [*_python_at(self._places[str(runtime_folder())]), "-I", "-S", "-E", "-c", source]
        facts = marshal.loads(self._run(shlex.join(words), marshal.dumps(order), LOOK_S))
        for name in ("bash", "unshare"):
            if facts[name] is None:
                raise SandboxError(f"{self.host} has no {name} in /bin or /usr/bin; install it there")
        return facts

    def _upload(self, source: str, name: str) -> str:
        """Where a copy of a file or folder lies there; sent where it does not yet. Whole or not at all."""
        if name not in self._there:
            part = f".part-{secrets.token_hex(8)}"
            unpack = f"cd {shlex.quote(self._folder)} && mkdir {part} && tar -xzpf - --no-same-owner -C {part}"
            keep = f"{{ mv -T {part} {name} 2>/dev/null || test -e {name}; }}"  # another process may have been first
            script = f"umask 022; {unpack} && {keep}; code=$?; rm -rf {part}; exit $code"
            self._send(source, script)
            self._there.add(name)
        return f"{self._folder}/{name}/item"

    def _send(self, source: str, script: str) -> None:
        process = subprocess.Popen(
            [*self._command, script], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        killer = threading.Timer(BRING_S, process.kill)
        killer.start()
        try:
            with (
                gzip.GzipFile(fileobj=cast("IO[bytes]", process.stdin), mode="wb", compresslevel=1) as packed,
                tarfile.open(fileobj=packed, mode="w|") as archive,
            ):
                archive.add(source, arcname="item")
        except ConnectionError:
            pass  # what it says tells why
        except OSError as error:
            process.kill()
            raise SandboxError(f"{source} cannot be read: {error}") from None
        finally:
            _, said = process.communicate(timeout=LOOK_S)
            killer.cancel()
        if process.returncode != 0:
            raise SandboxError(f"{source} could not be brought to {self.host}: {_last(said) or 'ssh ended'}")

    def _run(self, script: str, stdin: bytes, timeout_s: float) -> bytes:
        try:
            done = subprocess.run([*self._command, script], input=stdin, capture_output=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"{self.host} did not answer within {timeout_s:g} s") from None
        if done.returncode != 0:
            remedy = f"; see that ssh {self.host} works without a password (keys, and its host key known)"
            told = _last(done.stderr) or f"exit code {done.returncode}"
            raise SandboxError(f"{self.host}: {told}{remedy if done.returncode == SSH_FAILED else ''}")
        return done.stdout


_LIBRARY = f"{INSIDE}/lib/python{sys.version_info.major}.{sys.version_info.minor}"
_BOOT = boot_line("verigym_guest", path=(_LIBRARY, f"{_LIBRARY}/lib-dynload"))
"""The guest starts from the folder that was brought, which is elsewhere once the root of the box is its own."""


def _python_at(runtime: str) -> list[str]:
    """The command of ``runtime_python`` where the folder lies elsewhere, and then where a box has it."""
    loader, option, libraries, python = [word.replace(INSIDE, runtime, 1) for word in runtime_python()]
    return [loader, option, f"{libraries}:{INSIDE}/lib", python]


def _with_environment() -> list[str]:
    """What ssh needs of our environment; a channel's process has none."""
    kept = {name: os.environ[name] for name in ("HOME", "SSH_AUTH_SOCK", "PATH") if name in os.environ}
    return [shutil.which("env") or "/usr/bin/env", *(f"{name}={value}" for name, value in kept.items())]


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
