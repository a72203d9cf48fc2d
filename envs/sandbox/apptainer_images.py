"""From an image's name to what ``apptainer exec`` starts: a SIF file or a folder."""

import asyncio
import fcntl
import hashlib
import io
import os
import re
import secrets
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from ...errors import SandboxError
from . import host_image
from .background import on_thread_to_its_end
from .oci.flavor import AS_USER
from .oci.images import normal_name
from .oci.sources import opened, split_source, stamp_of
from .oci.unpack import remove_tree, unpack_layer
from .per_loop import PerLoop
from .python import cache_folder
from .settings import SandboxSettings

ARCHIVES = ("docker-archive:", "oci-archive:", "oci:")
ADDRESSES = ("docker://", "library://", "oras://", "https://", "http://")
BUILD_S = 3600.0
BRING = (
    "or bring it: docker save NAME -o FILE where there is an engine, and name it docker-archive:FILE; or apptainer "
    "pull docker://NAME where there is a network, into a folder that VERIGYM_SANDBOX_APPTAINER_IMAGES names"
)


class ApptainerImages:
    """SIF files of the cache, each made once by ``apptainer build``, and those that are named themselves."""

    def __init__(self, program: str, environment: Mapping[str, str], settings: SandboxSettings) -> None:
        self._program, self._environment = program, dict(environment)
        self._brought = settings.apptainer_images
        self._places: dict[str, Path] = {}
        self._looking: PerLoop[dict[str, asyncio.Lock]] = PerLoop(lambda: defaultdict(asyncio.Lock))

    async def place(self, name: str) -> Path:
        """Where the image of a row lies. Raises SandboxError: it cannot be had, and how it could."""
        async with self._looking.get()[name]:
            found = self._places.get(name)
            if found is None or not found.exists():
                found = self._places[name] = await on_thread_to_its_end(self._find, name)
            return found

    def _find(self, name: str) -> Path:
        if name.startswith(ARCHIVES):
            return self._built(name, _key_of_archive(name))
        if name.startswith(("/", "./", "../")):
            return _named(Path(os.path.realpath(name)))
        brought = self._brought / pulled_name(name) if self._brought is not None else None
        if brought is not None and brought.is_file():
            return _named(brought)
        return self._built(name if name.startswith(ADDRESSES) else f"docker://{normal_name(name)}", name)

    def _built(self, source: str, key: str) -> Path:
        folder = _folder()
        done = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.sif"
        if done.exists():
            return done
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with done.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for left in folder.glob(f"{done.stem}.part-*"):  # nobody makes it now
                    remove_tree(left)
                if not done.exists():
                    self._build(source, done)
        except OSError as error:
            raise SandboxError(f"the image {source} cannot be made in {folder}: {error}") from None
        return done

    def _build(self, source: str, done: Path) -> None:
        part = done.with_name(f"{done.stem}.part-{secrets.token_hex(6)}.sif")
        argv = [self._program, "build", str(part), source]
        try:
            ended = subprocess.run(
                argv,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=BUILD_S,
            )
            if ended.returncode != 0:
                raise SandboxError(
                    f"the image {source} cannot be made ({last_line(ended.stderr)}); {_remedy(ended.stderr)}"
                )
            part.rename(done)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"apptainer build of {source} did not end within {BUILD_S:g} s") from None
        finally:
            remove_tree(part)


def host_folder() -> Path:
    """The image of tasks that name none: a folder of links and folders, over which this machine's are bound."""
    data = host_image.archive()
    done = _folder() / f"host-{hashlib.sha256(data).hexdigest()[:12]}"
    if not done.exists():
        part = done.with_name(f".{done.name}-{secrets.token_hex(6)}")
        try:
            part.mkdir(parents=True)
            unpack_layer(io.BytesIO(data), part, AS_USER)
            part.rename(done)
        except OSError as error:
            if not done.exists():  # another process may have been first
                raise SandboxError(f"no folder can be made at {done} ({error}); set VERIGYM_CACHE") from None
        finally:
            remove_tree(part)
    return done


def _folder() -> Path:
    return Path(os.path.realpath(cache_folder())) / "apptainer"


def pulled_name(name: str) -> str:
    """The file that ``apptainer pull docker://NAME`` writes."""
    last = normal_name(name).rpartition("/")[2]
    return re.sub(r"[:@]", "_", last) + ".sif"


def last_line(said: str) -> str:
    """Why apptainer gave up: its line of FATAL, else its last one, without colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines() if line.strip()]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (fatal or lines or ["it said nothing"])[-1][:400]


def _remedy(said: str) -> str:
    if "no space left" in said.lower():
        return (
            "nothing of it was kept; free some space, or set VERIGYM_CACHE (and APPTAINER_TMPDIR, APPTAINER_CACHEDIR) "
            "to a folder on another disk"
        )
    return f"see that its name is right and its registry can be reached, {BRING}"


def _named(path: Path) -> Path:
    if path.is_dir() or (path.is_file() and path.suffix == ".sif"):
        return path
    raise SandboxError(f"{path} is no image of apptainer's: give a SIF file or a folder, or docker-archive:FILE")


def _key_of_archive(source: str) -> str:
    """Changes when the archive does. Raises SandboxError: it is none, or is for another machine."""
    changed, size = stamp_of(source)
    with opened(source) as found:
        if len(found) != 1:
            raise SandboxError(f"{source} has {len(found)} images; name one: {source}:NAME")
    return f"{source} {os.path.realpath(split_source(source)[0])} {changed} {size}"
