"""What the guest is told of a box that has an image, where our own code mounts the image's root."""

from typing import Any

from . import launch
from .image_facts import ROOT_CAPABILITIES, Furniture, ImageFacts
from .types import SandboxSpec

HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost\n"
SEALED = (*launch.SYSTEM_FOLDERS, "/boot", "/etc", "/opt", "/root", "/srv")
"""What another user than root may not write to; only where every file is of one user there is need to say so."""


def image_config(spec: SandboxSpec, facts: ImageFacts, *, alone: bool, **image: Any) -> dict[str, Any]:
    """The guest's settings.

    Args:
        alone: every file of the box is of one user.
        image: what ``guest/image.py`` mounts: "layers", "lower", "first_id", "num_ids".
    """
    uid, gid = map(int, facts.user.split(":"))
    config = launch.guest_config(spec, drop=not alone)
    hosts: tuple[Furniture, ...] = (("etc/hosts", 0, 0, 0o644, HOSTS), ("etc/hostname", 0, 0, 0o644, "sandbox\n"))
    sealed = _sealed(spec, facts) if alone and uid != 0 else ()
    return config | {
        "uid": uid,
        "gid": gid,
        "home": facts.home,
        "env": {**config["env"], "HOME": facts.home, **facts.env, **spec.env},
        "bash": list(facts.bash),
        "furnish": False,
        "nested_user": alone,
        "kept": tuple(ROOT_CAPABILITIES.values()) if spec.root else (),
        "image": {**image, "furniture": (*facts.furniture, *hosts), "sealed": sealed},
    }


def _sealed(spec: SandboxSpec, facts: ImageFacts) -> tuple[str, ...]:
    mine = (spec.workdir, facts.home)
    return tuple(path for path in SEALED if not any(f"{one}/".startswith(f"{path}/") for one in mine))
