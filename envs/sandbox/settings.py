"""What a machine says about its container engines, by environment variables ``VERIGYM_SANDBOX_…``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SandboxSettings(BaseSettings):
    """Settings of sandboxes. Each is read from ``VERIGYM_SANDBOX_`` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="VERIGYM_SANDBOX_", frozen=True)

    docker_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses of engines ("unix:///run/docker.sock", "tcp://host:2375"), separated by commas; containers are spread
    over them. Empty: the one of DOCKER_HOST, else the local one."""
    podman_host: str | None = None
    """Address of podman's socket; None: that of CONTAINER_HOST, else where podman puts it for this user."""
    build_network: str | None = None
    """Network of the commands of a Dockerfile that is built ("host", "none"); None is the engine's default."""
    max_containers: int = Field(default=64, ge=1)
    """Most containers alive at once on each engine; more have to wait."""
    max_idle: int = Field(default=16, ge=0)
    """Most containers that wait, reset, to be used again; 0 keeps none."""
    max_pulls: int = Field(default=2, ge=1)
    """Most images pulled at once by each engine."""
    pull_attempts: int = Field(default=4, ge=1)
    """How often a pull is tried before it counts as failed; with 1, 2, 4, ... seconds between."""
    keep_free_gib: float = Field(default=10.0, ge=0)
    """Before a pull, images that verigym pulled and nothing uses go, the one unused for longest first, until the disk
    of an engine on this machine has so much room. 0 keeps them all."""
    runtime: str | None = None
    """Container runtime ("runsc" for gVisor); None is the engine's default."""
    ssh_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Machines of the sandbox ssh ("user@host", or a name of ssh's own configuration), separated by commas."""
    ssh_config: Path | None = None
    """A configuration file of ssh; None: the user's."""
    ssh_folder: str = ""
    """Folder on those machines for what is brought there; empty: verigym-ssh in the user's cache."""
    apptainer_program: str | None = None
    """Apptainer's program; None: the one in PATH."""
    apptainer_options: str = ""
    """Further options of ``apptainer exec``, as a shell reads them ("--memory 4G --pids-limit 400", where the site
    allows control groups)."""
    apptainer_images: Path | None = None
    """A folder of SIF files as ``apptainer pull`` names them, which are looked for before a registry is asked."""
    kubernetes_config: Path | None = None
    """A kubeconfig; None: KUBECONFIG or ~/.kube/config, and inside of a pod its service account."""
    kubernetes_context: str | None = None
    """The context of that file; None: its current one."""
    kubernetes_namespace: str | None = None
    """Where pods are made; None: the context's namespace."""
    kubernetes_image: str | None = None
    """The image of tasks that name none; it needs what they run. None refuses them."""
    kubernetes_pod: Path | None = None
    """A file of YAML with what your cluster wants of a pod: metadata (labels, annotations) and spec (nodeSelector,
    tolerations, imagePullSecrets, runtimeClassName, priorityClassName, ...)."""
    kubernetes_starting: int = Field(default=16, ge=1)
    """Most pods that are being started at once."""
    kubernetes_start_s: float = Field(default=600.0, gt=0)
    """So long a pod may wait for room, its node and its image before it counts as failed."""
    kubernetes_life_s: int = Field(default=43200, ge=60)
    """So long a pod lives at most, whatever becomes of its owner."""
    kubernetes_open_network: bool = False
    """Accept a cluster that enforces no network policy: what runs in the pods can reach what any pod can."""
    network_log: Path | None = None
    """A file that gets a line of JSON for each request of a sandbox to its proxy; None writes none."""

    @field_validator("docker_hosts", "ssh_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
