"""``task.toml`` and the folder it lies in. Keys that are not known are ignored, as in every benchmark's rows.

Source of the format: the package harbor (0.26), ``harbor.models.task``.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...errors import TaskError

STEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0)]
_SIZES = {"G": 1024.0, "M": 1.0, "K": 1 / 1024}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Healthcheck(_Part):
    """A command that says when the environment is ready."""

    command: str
    interval_sec: Seconds = 5.0
    timeout_sec: Seconds = 30.0
    retries: int = 3


class Environment(_Part):
    """The container."""

    build_timeout_sec: Seconds = 600.0
    docker_image: str | None = None
    os: str = "linux"
    cpus: Amount | None = None
    memory_mb: Whole | None = None
    storage_mb: Whole | None = None
    gpus: Whole | None = None
    env: dict[str, str] = Field(default_factory=dict)
    workdir: str | None = None
    network_mode: Literal["no-network", "public", "allowlist"] = "public"
    allowed_hosts: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, value: Any) -> Any:
        """ "memory" and "storage" with a unit, "allow_internet"."""
        if not isinstance(value, Mapping):
            return value
        found = dict(value)
        for old, new in (("memory", "memory_mb"), ("storage", "storage_mb")):
            if isinstance(found.get(old), str) and new not in found:
                found[new] = _megabytes(found[old])
        if "network_mode" not in found and isinstance(found.get("allow_internet"), bool):
            found["network_mode"] = "public" if found["allow_internet"] else "no-network"
        return found

    @field_validator("os", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value


class Verifier(_Part):
    """Who says the reward."""

    timeout_sec: Seconds = 600.0
    env: dict[str, str] = Field(default_factory=dict)
    environment_mode: Literal["shared", "separate"] | None = None
    environment: Environment | None = None

    @property
    def is_separate(self) -> bool:
        """Whether tests run in a sandbox of their own, with what the agent declared as artifacts."""
        return self.environment_mode == "separate" or (self.environment_mode is None and self.environment is not None)


class Agent(_Part):
    """Who does the work."""

    timeout_sec: Seconds | None = None


class Solution(_Part):
    """The reference solution."""

    env: dict[str, str] = Field(default_factory=dict)


class Artifact(_Part):
    """What a separate verifier gets of the agent's sandbox."""

    source: str


class Step(_Part):
    """One of several instructions, each with tests of its own."""

    name: str
    agent: Agent = Field(default_factory=Agent)
    verifier: Verifier = Field(default_factory=Verifier)
    min_reward: float | dict[str, float] | None = None
    artifacts: tuple[Artifact, ...] = ()

    _artifacts = field_validator("artifacts", mode="before")(lambda value: _sources(value))

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        if not STEP_NAME.fullmatch(value):
            raise ValueError(f"step {value!r} is no name of a folder")
        return value


class HarborConfig(_Part):
    """``task.toml``."""

    task: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    environment: Environment = Field(default_factory=Environment)
    verifier: Verifier = Field(default_factory=Verifier)
    agent: Agent = Field(default_factory=Agent)
    solution: Solution = Field(default_factory=Solution)
    steps: tuple[Step, ...] = ()
    multi_step_reward_strategy: Literal["mean", "final"] | None = None
    artifacts: tuple[Artifact, ...] = ()

    _artifacts = field_validator("artifacts", mode="before")(lambda value: _sources(value))


def _sources(value: Any) -> Any:
    return [{"source": one} if isinstance(one, str) else one for one in value] if isinstance(value, list) else value


def _megabytes(text: str) -> int:
    unit = text.strip().upper().removesuffix("B")[-1:]
    if unit not in _SIZES:
        raise ValueError(f"{text!r} is no size; give one like '2G' or '512M'")
    return int(float(text.strip().upper().removesuffix("B")[:-1]) * _SIZES[unit])


def read_config(folder: Path) -> HarborConfig:
    """The settings of a task's folder.

    Raises:
        TaskError: there are none, they are broken, or ask for what is not here.
    """
    path = folder / "task.toml"
    try:
        config = HarborConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise TaskError(f"{folder}: no task.toml; a Harbor task is a folder that has one") from None
    except (OSError, ValueError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        where = ".".join(map(str, error.errors()[0]["loc"])) + ": " if isinstance(error, ValidationError) else ""
        raise TaskError(f"{path}: {where}{told}") from None
    refused = _refused(folder, config)
    if refused:
        raise TaskError(f"{folder}: {refused}")
    return config


def _refused(folder: Path, config: HarborConfig) -> str | None:
    """Why a task cannot be had here, or None."""
    parts = [folder] if not config.steps else [folder / "steps" / step.name for step in config.steps]
    for part in parts:
        if not (part / "instruction.md").is_file():
            return f"no {(part / 'instruction.md').relative_to(folder)}; nobody would know what to do"
        if not (part / "tests" / "test.sh").is_file() and not (folder / "tests" / "test.sh").is_file():
            return f"no {(part / 'tests/test.sh').relative_to(folder)}; without tests there is no reward"
    environment = config.environment
    if environment.os != "linux":
        return f"it is for {environment.os}; sandboxes run Linux"
    if environment.gpus:
        return f"it needs {environment.gpus} GPUs; sandboxes have none"
    composed = [
        name for name in ("docker-compose.yaml", "docker-compose.yml") if (folder / "environment" / name).exists()
    ]
    if composed and not environment.docker_image and not (folder / "environment" / "Dockerfile").is_file():
        return f"environment/{composed[0]} has services beside each other; a sandbox is one container"
    if not environment.docker_image and not (folder / "environment" / "Dockerfile").is_file():
        return "neither environment/Dockerfile nor environment.docker_image; there is no image to run in"
    return None
