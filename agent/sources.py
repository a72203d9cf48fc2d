"""Where policies come from: a SPEC of the command line to a policy for each episode."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..envs.core import ToolEnv
from ..envs.task import Task
from ..errors import CheckpointError, ConfigError
from .policy import Policy, ScriptedPolicy, play
from .prediction import CompletionPredictor, FramePredictor

PolicyFor = Callable[[ToolEnv, Task], Policy]
"""The policy of one episode; scripts are made from the task, engines and servers are shared by all episodes."""

SPECS = "engine:CHECKPOINT, openai:BASE_URL#MODEL, gold or empty"


async def _nothing_to_close() -> None:
    """Scripts hold nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """A policy that was asked for.

    Attributes:
        name: the SPEC.
        policy_for: makes the policy of one episode.
        env_kwargs: environment id -> arguments that the policy needs it to be made with.
        identity: what must be the same for two runs to be of one policy (a checkpoint's fingerprint, a model's name).
        aclose: frees connections and engines; called on the loop that ran the episodes.
        predictor: makes what predicts execution traces; None where the policy cannot.
    """

    name: str
    policy_for: PolicyFor
    env_kwargs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    aclose: Callable[[], Awaitable[None]] = _nothing_to_close
    predictor: Callable[[], FramePredictor] | None = None


def text_source(spec: str, *, concurrency: int = 16) -> PolicySource:
    """The source of a SPEC that needs no engine here: ``openai:BASE_URL#MODEL``, ``gold`` or ``empty``.

    Args:
        spec: as above.
        concurrency: most requests to a server at once.
    Raises:
        ConfigError: another SPEC, or one without its parts.
    """
    kind, _, rest = spec.partition(":")
    if spec == "gold":
        return PolicySource(name=spec, policy_for=lambda env, task: ScriptedPolicy(play(env.gold(task))))
    if spec == "empty":
        return PolicySource(name=spec, policy_for=lambda env, task: ScriptedPolicy(play(env.empty(task))))
    if kind == "openai":
        return _openai_source(spec, rest, concurrency)
    raise ConfigError(f"no policy {spec!r}; a policy is {SPECS}")


def _openai_source(spec: str, rest: str, concurrency: int) -> PolicySource:
    from .chat_policy import ChatPolicy

    base_url, _, model = rest.rpartition("#")
    if not base_url.startswith(("http://", "https://")) or not model:
        raise ConfigError(
            f"policy {spec!r} lacks a server or a model; write openai:BASE_URL#MODEL, "
            "such as openai:http://localhost:8000/v1#my-model"
        )
    policy = ChatPolicy(base_url, model, concurrency=concurrency)
    return PolicySource(
        name=spec,
        policy_for=lambda env, task: policy,
        identity={"model": model},
        aclose=policy.aclose,
        predictor=lambda: CompletionPredictor(base_url, model),
    )


class RendererSettings(BaseModel):
    """Of CWM's renderer; see there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    reasoning: bool = False
    """Open each turn with a thought."""
    announce_tools: bool = True
    """List the tools in the system prompt."""


class CheckpointSettings(BaseModel):
    """verigym.json, beside a checkpoint's config.json: how its model was trained to be spoken to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    renderer: RendererSettings = RendererSettings()
    """How messages become tokens."""
    environments: dict[str, dict[str, Any]] = {}
    """Environment id -> arguments that it was trained with, such as {"system_prompt": ""}."""


def checkpoint_settings(checkpoint: Path) -> CheckpointSettings:
    """The checkpoint's verigym.json; the defaults where it has none.

    Raises:
        CheckpointError: the file is broken, or names a setting that does not exist.
    """
    path = checkpoint / "verigym.json"
    try:
        return CheckpointSettings.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return CheckpointSettings()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise CheckpointError(f"{path} cannot be used ({problems}); mend it, or remove it for the defaults") from None


def fingerprint(checkpoint: Path) -> str:
    """Changes with what the checkpoint holds: contents, and of files beyond 64 MiB size and time of change."""
    digest = hashlib.sha256()
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        facts = path.stat()
        large = facts.st_size > 64 << 20
        content = (
            f"{facts.st_size} {facts.st_mtime_ns}".encode() if large else hashlib.sha256(path.read_bytes()).digest()
        )
        digest.update(path.relative_to(checkpoint).as_posix().encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:16]
