"""Sandboxes of container images, without a container engine."""

import asyncio
import logging
import marshal
import os
import resource
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import Any

from ....errors import SandboxError
from .. import control_group, launch
from ..background import on_thread, on_thread_to_its_end
from ..boot import sized
from ..image_config import image_config
from ..image_facts import ImageFacts, facts_of
from ..local import LocalBackend, open_bounded
from ..nursery import Nestling, is_possible
from ..per_loop import PerLoop
from ..runtime import INSIDE, runtime_folder
from ..session import GuestSandbox
from ..settings import SandboxSettings
from ..types import Bind, SandboxSpec
from .flavor import AS_ROOT, AS_USER, NUM_IDS
from .fork import ForkedLayer, OciSandbox
from .images import Image
from .look import LayerFiles
from .pull import Puller, is_source
from .store import ImageStore, key_of

logger = logging.getLogger(__name__)

START_S = 30.0
MAX_LAYERS = 120


class OciBackend:
    """Images run in namespaces of this machine: their layers, each unpacked once, under an overlay whose upper part is
    a tmpfs of the disk limit. What is bounded and what cannot be seen is as in the local sandbox.

    Started by root, a box has a user namespace of 65,536 users of which none is one of this machine; the image's files
    are theirs, and commands run as the image's user, without capabilities. Started by anyone else, every file is of
    one user, who is the image's user inside: what it could write to as its owner is the same, and system folders are
    read-only where the user is not root.

    A task without an image gets the local sandbox.
    """

    name = "oci"

    def __init__(
        self,
        *,
        store: ImageStore | None = None,
        user_namespace: bool | None = None,
        settings: SandboxSettings | None = None,
    ) -> None:
        """
        Args:
            store: None is the cache's.
            user_namespace: work as one who is not root; None: where we are not.
            settings: None reads the environment.
        Raises:
            SandboxError: this system cannot hold a process by a descriptor.
        """
        if not is_possible():
            raise SandboxError("images need Linux 5.8 and Python with os.pidfd_open; use --sandbox docker")
        alone = os.geteuid() != 0 if user_namespace is None else user_namespace
        self.store = store or ImageStore(flavor=AS_USER if alone else AS_ROOT)
        self._local = LocalBackend(user_namespace=alone)
        self._alone = self.store.flavor.first_id is None
        self._puller = Puller(self.store, settings or SandboxSettings())
        self._held: dict[str, ExitStack] = {}
        self._facts: dict[tuple[str, str, bool], ImageFacts] = {}
        self._looking: PerLoop[dict[str, asyncio.Lock]] = PerLoop(lambda: defaultdict(asyncio.Lock))

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        if spec.image is None:
            return await self._local.create(spec)
        return await self.open(spec, await self.image(spec.image), ())

    async def open(self, spec: SandboxSpec, image: Image, layers: tuple[ForkedLayer, ...]) -> OciSandbox:
        """A sandbox of an image that is here, with further layers, the uppermost first. Raises SandboxError."""
        config = await self._config(spec, image)
        above = [f"{os.path.relpath(layer.folder, self.store.layers)}/fs" for layer in layers]
        config["image"]["lower"] = ":".join([*above, config["image"]["lower"]])
        make = partial(OciSandbox, backend=self, image=image, layers=layers)
        made = await open_bounded(spec, config, self._open, make)
        assert isinstance(made, OciSandbox)
        return made

    async def image(self, name: str) -> Image:
        """The image of a name, brought here where it is not, and kept from being removed. Raises SandboxError."""
        async with self._looking.get()[name]:
            image = await self._puller.image(name)
            if image.id not in self._held:
                held = ExitStack()
                await on_thread_to_its_end(held.enter_context, self.store.used(image))
                self._held[image.id] = held
            return image

    def has(self, name: str) -> bool:
        """Whether an image is here, or says itself where it is. Blocking."""
        return is_source(name) or self.store.find(name) is not None

    def close(self) -> None:
        """Let others remove the images that were used."""
        while self._held:
            self._held.popitem()[1].close()

    async def _config(self, spec: SandboxSpec, image: Image) -> dict[str, Any]:
        if len(image.layers) > MAX_LAYERS:
            raise SandboxError(
                f"the image {spec.image} has {len(image.layers)} layers, at most {MAX_LAYERS} can be mounted"
            )
        key = (image.id, spec.workdir, spec.root)
        if key not in self._facts:
            files = await on_thread(LayerFiles, self.store, image.layers)
            self._facts[key] = await on_thread(facts_of, files, image.id, image.settings, spec.workdir, root=spec.root)
        facts = self._facts[key]
        if max(map(int, facts.user.split(":"))) >= NUM_IDS:
            raise SandboxError(f"the image {spec.image} runs as user {facts.user}; at most {NUM_IDS - 1} is possible")
        return image_config(
            spec,
            facts,
            alone=self._alone,
            layers=str(self.store.layers),
            lower=":".join(f"{key_of(layer)}/fs" for layer in _topmost_first(image)),
            first_id=self.store.flavor.first_id,
            num_ids=NUM_IDS,
        )

    async def _open(
        self, spec: SandboxSpec, config: dict[str, Any], group: control_group.ControlGroup | None
    ) -> Nestling:
        runtime = Bind(source=await on_thread(runtime_folder), target=INSIDE)
        config["binds"] = launch.in_order(launch.checked_binds((*spec.binds, runtime)))
        if group is not None:  # which bounds memory better than each process's address space would
            processes = [pair for pair in config["rlimits"] if pair[0] == resource.RLIMIT_NPROC]
            config["rlimits"] = [*launch.process_rlimits(spec.limits), *processes]
        order = {"group": group.members() if group is not None else "", "new_user": self._alone}
        return await Nestling.open(order, sized(marshal.dumps(config)), timeout_s=START_S)


def _topmost_first(image: Image) -> list[str]:
    """Its layers, each once: of one that comes again, an empty one mostly, only the uppermost can be seen."""
    return list(dict.fromkeys(reversed(image.layers)))
