"""An image as its configuration says it, and names of images."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....errors import SandboxError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MACHINES = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What is known of an image.

    Attributes:
        id: "sha256:" and the digest of its configuration.
        config: its configuration, as the OCI image specification has it ("architecture", "config", "rootfs").
    """

    id: str
    config: Mapping[str, Any]

    @property
    def layers(self) -> tuple[str, ...]:
        """The digests of its layers' tar archives, not compressed, the lowest first."""
        return tuple(self.config["rootfs"]["diff_ids"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a container of it starts with: "Env", "User", "WorkingDir", ...; may be empty."""
        return self.config.get("config") or {}


def parse_image(data: bytes, *, where: str, digest: str | None = None) -> Image:
    """The image of a configuration.

    Args:
        where: for messages.
        digest: what it must be; None: not known.
    Raises:
        SandboxError: it is another, is none, or is for another machine or system.
    """
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest not in (None, found):
        raise SandboxError(f"{where}: the image's configuration is {found}, {digest} was expected; get the image again")
    try:
        config = json.loads(data)
        layers = config["rootfs"]["diff_ids"]
        if not isinstance(layers, list) or not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in layers):
            raise ValueError("its layers are not named by sha256")
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxError(f"{where}: no image's configuration ({error}); get the image again") from None
    system, machine = config.get("os") or "linux", config.get("architecture") or ""
    here = os.uname().machine
    if system != "linux" or machine not in ("", *MACHINES.get(here, (here,))):
        raise SandboxError(
            f"{where}: the image is for {system}/{machine}, this machine is linux/{here}; nothing of it was kept; get "
            f"one for this machine (docker save --platform linux/{MACHINES.get(here, (here,))[0]} ...)"
        )
    return Image(id=found, config=config)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def normal_name(name: str) -> str:
    """A name as Docker's own tools tell it apart: without "docker.io/library/", with its tag."""
    name = name.removeprefix("docker://").removeprefix("docker.io/").removeprefix("library/")
    if "@" in name or ":" in name.rpartition("/")[2]:
        return name
    return name + ":latest"
