"""A running sandbox of an image, once more: its files as a further layer, its shell's state told to a new shell.

What a box has written lies in the upper part of its overlay, and nowhere else. That part is copied to a folder, which
the new box has as its uppermost layer. A digest of both says that the copy is whole; where it is not, because something
wrote meanwhile, there is no fork.
"""

import hashlib
import os
import posixpath
import re
import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import SandboxError
from .. import labels
from ..background import on_thread, on_thread_to_its_end
from ..frames import Frames
from ..nursery import Nestling
from ..session import GuestSandbox
from ..types import SandboxSpec
from .images import Image
from .unpack import remove_tree

if TYPE_CHECKING:
    from .backend import OciBackend

COPY_S = 60.0
DUMP = "{ declare -p; echo; declare -f; alias -p; trap -p; shopt -p; set +o; printf 'umask %s\\n' \"$(umask)\"; } > "
BASHS_OWN = re.compile(
    r"declare -\S+ (BASH\w*|DIRSTACK|EPOCH\w*|EUID|FUNCNAME|GROUPS|HISTCMD|LINENO|PIPESTATUS|PPID|RANDOM|SECONDS|"
    r"SHELLOPTS|SHLVL|SRANDOM|UID|_)(=|$)"
)
_numbers = count()


class ForkedLayer:
    """The copy of what a box had written; removed when nobody has it mounted any more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._num_users = folder, 1

    def use(self) -> None:
        self._num_users += 1

    def release(self) -> None:
        """Blocking."""
        self._num_users -= 1
        if self._num_users == 0:
            remove_tree(self.folder)


class OciSandbox(GuestSandbox):
    """A sandbox of an image, which can be forked."""

    def __init__(
        self,
        channel: Frames,
        spec: SandboxSpec,
        *,
        end: Callable[[], Any] | None,
        backend: "OciBackend",
        image: Image,
        layers: tuple[ForkedLayer, ...],
    ) -> None:
        """
        Args:
            layers: of the boxes that this one was forked from, the uppermost first.
        """
        super().__init__(channel, spec, end=end)
        self._backend, self._image, self._layers, self._released = backend, image, layers, False

    async def fork(self) -> "OciSandbox":
        """A new sandbox with the files of this one, and a shell with its directory, variables, functions, aliases,
        traps and options. This one goes on. What is left out: the last status, and processes, of which there may be
        none but the shell.

        Raises:
            SandboxError: something runs, the copy is not the original, or there are no rights for it (rootless).
        """
        if not isinstance(self._channel, Nestling) or self._backend.store.flavor.first_id is None:
            raise SandboxError("a sandbox can be forked where root started it; as a user its files cannot be reached")
        state = await self._state()
        async with self._shell:
            await self._refuse_what_runs()
            folder = await on_thread_to_its_end(copied, self._channel.keeper_pid, self._backend.store.folder / "forks")
        layer = ForkedLayer(folder)
        for one in self._layers:
            one.use()
        try:
            fork = await self._backend.open(self._spec, self._image, (layer, *self._layers))
        except BaseException:
            await on_thread(_release, (layer, *self._layers))
            raise
        try:
            await fork._restore(state)
        except BaseException:
            await fork.aclose()
            raise
        return fork

    async def aclose(self) -> None:
        await super().aclose()
        released, self._released = self._released, True
        if not released:
            await on_thread(_release, self._layers)

    async def _state(self) -> tuple[bytes, str]:
        """(what a shell reads to be as this one is, its directory)."""
        place = f"/dev/shm/.verigym-{secrets.token_hex(8)}"
        result = await self.aexec(f"{DUMP}{place}; pwd")
        if result.exit_code != 0:
            raise SandboxError(f"the shell does not tell its state ({result.output[-200:]!r})")
        state = await self.read_file(place)
        await self.aexec(f"command rm -f {place}")
        lines = state.decode(errors="surrogateescape").splitlines()
        kept = "\n".join(line for line in lines if not BASHS_OWN.match(line))
        return kept.encode(errors="surrogateescape") + b"\n", result.output.rstrip("\n")

    async def _restore(self, state: tuple[bytes, str]) -> None:
        place = f"/dev/shm/.verigym-{secrets.token_hex(8)}"
        await self.write_file(place, state[0], mode=0o600)
        directory = posixpath.join("/", state[1])
        told = await self.aexec(f"cd -- {_quoted(directory)} && . {place} 2> /dev/null; command rm -f {place}; pwd")
        if told.output.rstrip("\n") != directory:
            raise SandboxError(f"the new shell is not in {directory} but says {told.output[-200:]!r}")

    async def _refuse_what_runs(self) -> None:
        header, _ = await self._ask({"do": "alive"}, b"", timeout_s=30.0)
        if header["alive"]:
            raise SandboxError(f"{header['alive']} processes run beside the shell; end them before a fork")


def copied(keeper: int, forks: Path) -> Path:
    """A copy of what a box has written, in a folder of its own with the name ``fs``. Blocking.

    Raises:
        SandboxError: it cannot be copied, or the copy differs.
    """
    sweep(forks)
    folder = forks / f"{os.getpid()}-{labels.start_of(os.getpid()) or 0}-{next(_numbers)}"
    try:
        upper = _upper(keeper)
        folder.mkdir(parents=True)
        argv = ["cp", "--archive", "--reflink=auto", "--no-target-directory", upper, str(folder / "fs")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COPY_S)
        if done.returncode != 0:
            raise SandboxError(f"a sandbox could not be copied: {' '.join(done.stderr.split())[-300:]}")
        if tree_digest(upper) != tree_digest(str(folder / "fs")):
            raise SandboxError("a sandbox changed while it was copied; nothing may run in it, also beside the shell")
    except (OSError, subprocess.TimeoutExpired) as error:
        remove_tree(folder)
        raise SandboxError(f"a sandbox could not be copied: {error}; see that the disk of {forks} has room") from None
    except SandboxError:
        remove_tree(folder)
        raise
    return folder


def tree_digest(folder: str) -> str:
    """SHA-256 of everything in a folder: names, kinds, rights, owners, times, links, attributes, contents."""
    whole = hashlib.sha256()
    for at, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = os.path.join(at, name)
            status = os.lstat(path)
            facts = [status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns]
            told: list[object] = [os.path.relpath(path, folder), *facts]
            if stat.S_ISLNK(status.st_mode):
                told.append(os.readlink(path))
            else:
                told += [(key, os.getxattr(path, key)) for key in sorted(os.listxattr(path))]
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    told.append(hashlib.file_digest(file, "sha256").hexdigest())
            whole.update(repr(told).encode(errors="surrogateescape"))
    return whole.hexdigest()


def sweep(forks: Path) -> None:
    """Remove what processes have left that are dead."""
    for folder in forks.glob("*-*-*"):
        pid, start, _ = folder.name.split("-")
        if pid.isdecimal() and (labels.start_of(int(pid)) or "0") != start:
            shutil.rmtree(folder, ignore_errors=True)


def _upper(keeper: int) -> str:
    """The upper part of the overlay of a box, through the descriptor that its guest holds. Raises OSError."""
    (guest,) = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    for name in sorted(os.listdir(f"/proc/{guest}/fd"), key=int):
        path = f"/proc/{guest}/fd/{name}"
        if os.readlink(path).split(" ")[0].endswith("/upper") and os.path.isdir(path):
            return f"{path}/."
    raise OSError("its files are not where they were put")


def _release(layers: tuple[ForkedLayer, ...]) -> None:
    for layer in layers:
        layer.release()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
