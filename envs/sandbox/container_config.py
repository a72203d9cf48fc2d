"""What the guest is told in a container, whoever runs it, and what it costs there."""

from typing import Any

from . import launch
from .image_facts import ROOT_CAPABILITIES, ImageFacts
from .seccomp import filter_of
from .types import SandboxSpec

SCRATCH = "/run/verigym"
MEMORY_FOR_GUEST = 64 << 20
MIN_NOTICE_BYTES = 1 << 20
OOM_FILES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def guest_config(spec: SandboxSpec, facts: ImageFacts, *, has_quota: bool) -> dict[str, Any]:
    """The guest's settings.

    Args:
        has_quota: the disk limit holds by itself; else the guest tells when the disk has filled.
    """
    config = launch.guest_config(spec, drop=False)
    env = {**config["env"], "HOME": facts.home, **facts.env, **spec.env}
    notice = 0 if has_quota else max(MIN_NOTICE_BYTES, (spec.limits.disk_mib << 20) // 16)
    return config | {
        "furnish": False,
        "notice_bytes": notice,
        "oom_files": OOM_FILES,
        "home": facts.home,
        "scratch": f"{SCRATCH}/guest",
        "env": env,
        "bash": list(facts.bash),
        "rlimits": launch.process_rlimits(spec.limits),
        "kept": tuple(ROOT_CAPABILITIES.values()) if spec.root else (),
        "calls": filter_of(counted=True),  # the container's memory limit counts what such files hold
    }
