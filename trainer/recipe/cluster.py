"""What a run takes of a cluster. Reading it imports no Ray."""

from pydantic import Field

from .config import Settings


class ClusterConfig(Settings):
    """Of `verigym train --ray`: how many of what Ray places, and what each takes of its machine.

    The engines' number and split are those of ``[engines]``, the ranks' split is ``[layout]``.
    """

    ranks: int = Field(default=1, ge=1)
    """Ranks that train. The ranks of a tensor group lie on one machine."""
    rank_gpus: int = Field(default=1, ge=0, le=1)
    """GPUs of a rank, and of each process of an engine; 0 runs all on CPUs."""
    rank_cpus: float = Field(default=1.0, gt=0)
    """CPUs of a rank."""
    gpu_gib: float = Field(default=80.0, gt=0)
    """Memory of a GPU in GiB; a dry run compares with it what a rank needs."""
    rank_host_gib: float = Field(default=128.0, gt=0)
    """Memory of its machine that a rank may take, in GiB; a dry run compares with it what a rank needs."""
    engine_cpus: float = Field(default=1.0, gt=0)
    """CPUs of an engine."""
    workers: int = Field(default=1, ge=1)
    """Episode workers: each runs the agents' loops beside their sandboxes. Ray spreads them over the machines."""
    worker_cpus: float = Field(default=1.0, gt=0)
    """CPUs of an episode worker."""
    sandbox: float = Field(default=1.0, gt=0)
    """Of the resource "sandbox" that an episode worker takes: a machine that may run sandboxes offers some (`ray start
    --resources '{"sandbox": 4}'`)."""
    controller_cpus: float = Field(default=1.0, gt=0)
    """CPUs of the controller, which runs the recipe."""
    episodes: int = Field(default=64, ge=1)
    """Most episodes of one worker at once."""
    full_every: int = Field(default=50, ge=1)
    """Publishes of what has changed, where `engines.dtype = "bfloat16"`, after which the weights are published whole
    again; 1: they always are. An engine that was away reads the last whole ones and all changes since."""
    restarts: int = Field(default=3, ge=0)
    """How often ranks and controller are started anew from the last checkpoint after one of them died; engines and
    episode workers are replaced as often as they die."""
    wait_seconds: float = Field(default=60.0, gt=0)
    """How long a run waits for room that Ray has promised, and after a death for a machine in its place."""
    answer_seconds: float = Field(default=1800.0, gt=0)
    """Deadline of every call between the parts of a run, but for an episode, which has its own clock."""
