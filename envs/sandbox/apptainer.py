"""Sandboxes in containers of Apptainer, for machines where nothing else is allowed."""

import ast
import asyncio
import marshal
import os
import shlex
import shutil
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import SandboxError
from . import launch
from .apptainer_images import ApptainerImages, host_folder, last_line
from .background import on_thread
from .boot import sized
from .channel import Channel
from .image_config import image_config
from .image_facts import ImageFacts, facts_of
from .per_loop import PerLoop
from .runtime import INSIDE, runtime_folder, runtime_python
from .session import GuestSandbox
from .settings import SandboxSettings
from .types import SandboxSpec

START_S, END_S = 120.0, 10.0
KEPT_VARIABLES = ("APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "DBUS_SESSION_BUS_ADDRESS", "HOME", "LOGNAME", "PATH")
KEPT_VARIABLES += ("TMPDIR", "USER", "XDG_RUNTIME_DIR")
"""What apptainer gets of our environment: nothing by which it would show more, such as APPTAINER_BIND."""

OPTIONS = ("--containall", "--no-home", "--no-init", "--no-eval", "--no-umask")
OPTIONS += ("--net", "--network", "none", "--hostname", "sandbox")
OWN_VARIABLES = (
    "APPTAINER",
    "SINGULARITY",
    "LD_LIBRARY_PATH",
    "PROMPT_COMMAND",
    "PS1",
    "PWD",
    "SHLVL",
    "USER_PATH",
    "HOME",
)
REMEDY = (
    "--fakeroot needs user namespaces (sysctl user.max_user_namespaces=10000) or lines for you in /etc/subuid and "
    "/etc/subgid; see that `apptainer exec --fakeroot IMAGE id` works"
)


class ApptainerBackend:
    """Containers of ``apptainer exec``, in which the guest is the first process and builds the box.

    Of Apptainer come the namespaces (user, mount, process, IPC, network, host name) and the image, read-only. Over that
    the guest mounts a disk of the spec's limit, leaves everything else that the site's configuration shows, and gives
    commands one user without capabilities, as the ``oci`` sandbox of a user does. Nothing is written but memory, so
    that nothing can be left; a box ends with its input, which is a pipe of this process.

    A task without an image sees this machine's system folders, read-only, as in the local sandbox.
    """

    name = "apptainer"

    def __init__(self, *, settings: SandboxSettings | None = None) -> None:
        """
        Args:
            settings: None reads the environment.
        Raises:
            SandboxError: apptainer is not installed.
        """
        settings = settings or SandboxSettings()
        program = settings.apptainer_program or shutil.which("apptainer")
        if program is None:
            raise SandboxError(
                "apptainer is not installed here (or not loaded: module load apptainer); install it, or name the "
                "program in VERIGYM_SANDBOX_APPTAINER_PROGRAM"
            )
        self._environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        # Root has no line in /etc/subuid mostly, and needs none.
        rights = "--userns" if os.geteuid() == 0 else "--fakeroot"
        self._command = [program, "exec", rights, *OPTIONS, *shlex.split(settings.apptainer_options)]
        self._images = ApptainerImages(program, self._environment, settings)
        self._facts: dict[tuple[str, str, bool], ImageFacts] = {}
        self._looking: PerLoop[dict[str, asyncio.Lock]] = PerLoop(lambda: defaultdict(asyncio.Lock))

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        if spec.image is None:
            place = await on_thread(host_folder)
            binds = {target: source for source, target in launch.all_binds(spec)}
        else:
            place = await self._images.place(spec.image)
            binds = launch.checked_binds(spec.binds)
        facts = await self._facts_of(place, spec)
        config = image_config(spec, facts, alone=True, layers="/", lower="/", first_id=None, num_ids=1)
        config["binds"] = launch.in_order({target: target for target in (*binds, INSIDE)})
        first = await on_thread(_guest)
        words = [*await self._words(place, binds), *_python(), launch.BOOT]
        try:
            channel = await Channel.open(words, first + sized(marshal.dumps(config)), timeout_s=START_S)
        except SandboxError as error:
            raise SandboxError(
                f"apptainer could not start a box of {place} ({last_line(str(error))}); {REMEDY}"
            ) from None

        async def end() -> None:
            channel.end_input()  # so that apptainer unmounts what it has mounted
            await channel.wait_gone(END_S)
            await channel.aclose()

        return GuestSandbox(channel, spec, end=end)

    async def _words(self, place: Path, binds: dict[str, str]) -> list[str]:
        """The command up to the one that runs inside."""
        shown = {INSIDE: str(await on_thread(runtime_folder)), **binds}
        mounts = [
            word for source, target in launch.in_order(shown) for word in ("--mount", mount_option(source, target))
        ]
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        return [shutil.which("env") or "/usr/bin/env", *variables, *self._command, *mounts, str(place)]

    async def _facts_of(self, place: Path, spec: SandboxSpec) -> ImageFacts:
        """What the spec's image is; looked at once. Raises SandboxError."""
        status = place.stat()
        key = (f"{place} {status.st_mtime_ns} {status.st_size}", spec.workdir, spec.root)
        async with self._looking.get()[key[0]]:
            if key not in self._facts:
                self._facts[key] = await self._look(place, spec)
        return self._facts[key]

    async def _look(self, place: Path, spec: SandboxSpec) -> ImageFacts:
        source = (Path(__file__).parent / "guest_facts.py").read_text(encoding="utf-8")
        words = [*await self._words(place, {}), *_python(), source, spec.workdir, launch.HOME]
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(START_S):
                said, errors = await process.communicate()
        except TimeoutError:
            raise SandboxError(f"apptainer did not look into {place} within {START_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            told = last_line(errors.decode(errors="replace"))
            raise SandboxError(f"apptainer cannot run the image {place} ({told}); {REMEDY}")
        told = ast.literal_eval(said.decode())
        if told["uid"] != 0:
            raise SandboxError(f"apptainer exec --fakeroot gave user {told['uid']}, not root; {REMEDY}")
        variables = {name: value for name, value in told["env"].items() if not name.startswith((*OWN_VARIABLES, "_"))}
        settings = {"Env": [f"{name}={value}" for name, value in variables.items()]}
        return facts_of(_Files(told, spec.workdir), str(place), settings, spec.workdir, root=spec.root)


class _Files:
    """An image as ``guest_facts.py`` told it. What is in it is root's: there is but one user."""

    def __init__(self, told: dict[str, Any], workdir: str) -> None:
        self._there, self._texts = set(told["there"]), told["texts"]

    def owner(self, path: str) -> tuple[int, int] | None:
        return (0, 0) if path in self._there else None

    def exists(self, path: str) -> bool:
        return path in self._there

    def text(self, path: str) -> str:
        return self._texts.get(path, "")


@lru_cache(maxsize=1)
def _guest() -> bytes:
    """The guest's compiled code, and what makes it at home in another's container."""
    return launch.guest_image_with("arrive", Path(__file__).parent / "guest_arrive.py")


def _python() -> list[str]:
    return [*runtime_python(), "-I", "-S", "-E", "-c"]


def mount_option(source: str, target: str) -> str:
    """The value of ``--mount``: a record of CSV."""
    fields = (f"src={source}", f"dst={target}")
    quoted = ['"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in fields]
    return ",".join(["type=bind", *quoted, "ro"])
