"""Which of how many processes this one is, whoever started them, and how they find each other.

torchrun and ``accelerate launch`` say it by the same environment variables: RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, and MASTER_ADDR and MASTER_PORT, where rank 0 waits for the others. Without them there is one process.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from ...errors import ConfigError
from ...model.parallel.layout import Layout, Meshes
from ...model.parallel.objects import stay_on_this_machine
from ...model.parallel.place import Place

COLLECTIVE_SECONDS = 600.0
"""How long a rank waits for the others in the middle of its work, and for a word from rank 0 between two pieces."""
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A process among those that were started together.

    Attributes:
        rank, world: which, and of how many.
        local_rank, local_world: which, and of how many, on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Launch":
        """Raises ConfigError where the variables are there in part, or make no sense."""
        values = os.environ if environment is None else environment
        if "RANK" not in values and "WORLD_SIZE" not in values:
            return cls()
        missing = [name for name in _NEEDED if name not in values]
        if missing:
            raise ConfigError(
                f"{', '.join(missing)} missing in the environment of one of several processes; start them with "
                "torchrun or accelerate launch, which set all of them"
            )
        try:
            world, local = int(values["WORLD_SIZE"]), int(values["LOCAL_RANK"])
            local_world = int(values.get("LOCAL_WORLD_SIZE", world))
            launch = cls(rank=int(values["RANK"]), world=world, local_rank=local, local_world=local_world)
        except ValueError as error:
            raise ConfigError(f"RANK, WORLD_SIZE or LOCAL_RANK is no number ({error}); use torchrun") from None
        if not 0 <= launch.rank < launch.world:
            raise ConfigError(f"RANK is {launch.rank} and WORLD_SIZE {launch.world}; ranks go from 0 to WORLD_SIZE - 1")
        return launch

    @property
    def num_threads(self) -> int:
        """Cores a process of this machine has for itself."""
        return max(1, (os.cpu_count() or 1) // self.local_world)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """A rank among all.

    Attributes:
        place: where it stands in the layout.
        control: all ranks, on the CPU whatever they compute on: for what rank 0 says, apart from tensors at work.
        one_machine: whether all are on the same one.
        saving, publishing: all ranks again, for what is written beside other work: checkpoints and new weights.
    """

    place: Place
    control: dist.ProcessGroup
    one_machine: bool = True
    saving: dist.ProcessGroup | None = None
    publishing: dist.ProcessGroup | None = None


def speak_through(address: str) -> None:
    """Have gloo use the network device with an address, unless the environment names one: by itself it takes the one
    that the host's name leads to, which on many clusters is none that others reach."""
    import psutil

    devices = psutil.net_if_addrs().items()
    name = next((name for name, found in devices if any(one.address == address for one in found)), None)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


@contextmanager
def joined(launch: Launch, layout: Layout, *, timeout_s: float = COLLECTIVE_SECONDS) -> Iterator[Membership]:
    """Be one of the ranks: accelerate finds the device and the backend (gloo on CPUs, NCCL on GPUs) and connects them.

    Raises:
        RuntimeError (torch's): another rank did not come within ``timeout_s``.
    """
    one_machine = launch.local_world == launch.world
    if one_machine:
        stay_on_this_machine()
    timeout = timedelta(seconds=timeout_s)
    cuda = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if launch.world > 1:
        from accelerate import PartialState

        device = torch.device(PartialState(cpu=not cuda, backend=backend, timeout=timeout).device or "cpu")
    else:
        device = torch.device("cuda" if cuda else "cpu")
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
    try:
        control, saving, publishing = (_all_ranks(timeout) for _ in range(3))
        place = Place(layout=layout, meshes=Meshes.of(layout, device.type), device=device)
        yield Membership(place=place, control=control, one_machine=one_machine, saving=saving, publishing=publishing)
    finally:
        dist.destroy_process_group()


def _all_ranks(timeout: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(group, dist.ProcessGroup), "every rank is in it"
    return group
