"""From an image's name to an image of the store: there already, in an archive, or at a registry."""

import asyncio
import logging
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ....errors import SandboxError
from ..background import on_thread, on_thread_to_its_end
from ..per_loop import PerLoop
from ..settings import SandboxSettings
from .images import Image, normal_name
from .sources import stamp_of
from .store import ImageStore

logger = logging.getLogger(__name__)

PULL_S = 3600.0
FIRST_WAIT_S = 1.0
SOURCES = ("docker-archive:", "oci-archive:", "oci:")
FINAL = ("not found", "unknown", "denied", "unauthorized", "invalid reference", "no such host", "unsupported")
BRING = "or bring it: docker save NAME -o FILE where there is an engine, then verigym images add FILE here"


class Puller:
    """Brings images into one store."""

    def __init__(self, store: ImageStore, settings: SandboxSettings) -> None:
        self._store, self._settings = store, settings
        self._pulls = PerLoop(lambda: asyncio.Semaphore(settings.max_pulls))
        self._archives: dict[tuple[str, int, int], str] = {}

    async def image(self, name: str) -> Image:
        """The image that a row names. Raises SandboxError: it cannot be had, and how it could."""
        if is_source(name):
            return await self._of_source(name)
        image = await on_thread(self._store.find, name)
        return image or await self._pull(name)

    async def _of_source(self, source: str) -> Image:
        """Of an archive or a layout, which is read again only where it has changed."""
        key = (source, *stamp_of(source))
        known = self._archives.get(key)
        image = await on_thread(self._store.find, known) if known else None
        if image is None:
            images = await on_thread_to_its_end(self._store.add, source)
            if len(images) != 1:
                raise SandboxError(f"{source} has {len(images)} images; name one: {source}:NAME")
            image = images[0]
            self._archives[key] = image.id
        return image

    async def _pull(self, name: str) -> Image:
        skopeo = shutil.which("skopeo")
        if skopeo is None:
            raise SandboxError(
                f"the image {name} is not here (verigym images list), and skopeo, which could pull it, is not "
                f"installed; install it (apt install skopeo), {BRING}"
            )
        attempts = self._settings.pull_attempts
        async with self._pulls.get():
            for attempt in range(1, attempts + 1):
                try:
                    logger.info("pulling %s (attempt %d)", name, attempt)
                    return await on_thread_to_its_end(self._pull_once, skopeo, name)
                except _PullFailed as error:
                    if attempt == attempts or any(sign in str(error).lower() for sign in FINAL):
                        raise SandboxError(
                            f"the image {name} is not here and cannot be pulled ({error}); see that its name is right "
                            f"and its registry can be reached, {BRING}"
                        ) from None
                    await asyncio.sleep(FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
        raise AssertionError("unreachable")

    def _pull_once(self, skopeo: str, name: str) -> Image:
        """Raises _PullFailed, SandboxError."""
        self._store.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pulling-", dir=self._store.folder) as folder:
            layout = Path(folder) / "layout"
            argv = [skopeo, f"--command-timeout={PULL_S:g}s", "copy", "--quiet", "--override-os=linux"]
            argv += [f"docker://{normal_name(name)}", f"oci:{layout}:image"]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
            if done.returncode != 0:
                told = re.search(r'msg="(.*)"', done.stderr)  # of its log's line
                raise _PullFailed(" ".join((told[1] if told else done.stderr).replace('\\"', '"').split())[-400:])
            return self._store.add(f"oci:{layout}:image", name=normal_name(name))[0]


class _PullFailed(Exception):
    """What skopeo said."""


def is_source(name: str) -> bool:
    """Whether a name says where an image lies, rather than what it is called."""
    return name.startswith((*SOURCES, "/", "./", "../"))
