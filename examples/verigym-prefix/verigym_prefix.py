"""Local sandboxes started by a command of yours: ``nice``, ``systemd-run --scope``, ``srun`` of a cluster."""

import os
import shlex

from verigym.envs.sandbox import launch
from verigym.envs.sandbox.channel import Channel
from verigym.envs.sandbox.session import GuestSandbox
from verigym.envs.sandbox.types import SandboxSpec
from verigym.errors import SandboxError


class PrefixBackend:
    """Boxes of ``unshare``, each begun by the words of SANDBOX_PREFIX."""

    name = "prefix"

    def __init__(self) -> None:
        self.prefix = shlex.split(os.environ.get("SANDBOX_PREFIX", "nice -n 5"))

    async def create(self, spec: SandboxSpec) -> GuestSandbox:
        """Raises SandboxError: the task names an image, or the command does not start a box."""
        if spec.image is not None:
            raise SandboxError(f"{self.name} has no images, and the task asks for {spec.image!r}; use --sandbox oci")
        alone = os.geteuid() != 0
        config = launch.guest_config(spec, drop=not alone)
        command = launch.unshare_command(spec, config, user_namespace=alone)
        channel = await Channel.open([*self.prefix, *command], launch.first_input(config), timeout_s=30)
        return GuestSandbox(channel, spec)
