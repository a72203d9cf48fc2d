"""Where policies come from: a SPEC of the command line to a policy for each episode."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..envs.core import ToolEnv
from ..envs.scripts import script_of
from ..envs.task import Task
from ..errors import ConfigError
from ..model.chat.protocols import Parser, Renderer
from .policy import Policy, ScriptedPolicy, play
from .prediction import CompletionPredictor, FramePredictor

PolicyFor = Callable[[ToolEnv, Task], Policy]
"""The policy of one episode; scripts are made from the task, engines and servers are shared by all episodes."""

SPECS = "engine:CHECKPOINT, tokens:CHECKPOINT@BASE_URL#MODEL, openai:BASE_URL#MODEL, gold or empty"


async def _nothing_to_close() -> None:
    """Scripts hold nothing."""


def _is_a_script() -> Policy:
    raise ConfigError("a script plays the agent of one task, and cannot speak for another; name a model")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """A policy that was asked for.

    Attributes:
        name: the SPEC.
        policy_for: makes the policy of one episode.
        env_kwargs: environment id -> arguments that the policy needs it to be made with.
        identity: what must be the same for two runs to be of one policy (a checkpoint's fingerprint, a model's name).
        aclose: frees connections and engines; called on the loop that ran the episodes.
        max_context: tokens of a prompt and its completion; None where it is not known here.
        generation: the model's own settings of sampling ("temperature", "top_p"), of its generation_config.json.
        predictor: makes what predicts execution traces; None where the policy cannot.
        shared: the policy that answers for any episode and task. Raises ConfigError of a script.
    """

    name: str
    policy_for: PolicyFor
    env_kwargs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    aclose: Callable[[], Awaitable[None]] = _nothing_to_close
    max_context: int | None = None
    generation: Mapping[str, float] = field(default_factory=dict)
    predictor: Callable[[], FramePredictor] | None = None
    shared: Callable[[], Policy] = _is_a_script


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
        return PolicySource(name=spec, policy_for=lambda env, task: ScriptedPolicy(play(script_of(env, "gold", task))))
    if spec == "empty":
        return PolicySource(
            name=spec, policy_for=lambda env, task: ScriptedPolicy(play(script_of(env, "empty", task), on=True))
        )
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
        shared=lambda: policy,
    )


def tokens_source(spec: str, renderer: Renderer, parser: Parser, *, concurrency: int = 16) -> PolicySource:
    """The source of ``tokens:CHECKPOINT@BASE_URL#MODEL``: a server's token endpoints, in the format of a checkpoint.

    Args:
        renderer, parser: of CHECKPOINT, see ``tokens_checkpoint``.
        concurrency: most requests to the server at once.
    """
    from .remote_engine import RemoteEngine, RemoteTokenPolicy

    _, base_url, model = tokens_parts(spec)
    policy = RemoteTokenPolicy(
        lambda: RemoteEngine.connect(base_url, model, concurrency=concurrency), renderer, parser, url=base_url
    )
    return PolicySource(
        name=spec,
        policy_for=lambda env, task: policy,
        identity={"model": model},
        aclose=policy.aclose,
        shared=lambda: policy,
    )


def tokens_checkpoint(spec: str) -> Path:
    """The folder whose tokenizer and chat format a tokens SPEC names. Raises ConfigError where a part is missing."""
    return tokens_parts(spec)[0]


def tokens_parts(spec: str) -> tuple[Path, str, str]:
    """(CHECKPOINT, BASE_URL, MODEL) of a tokens SPEC. Raises ConfigError where a part is missing."""
    found = re.fullmatch(r"tokens:(.+)@(https?://.+)#(.+)", spec)
    if found is None:
        raise ConfigError(
            f"policy {spec!r} lacks a checkpoint, a server or a model; write tokens:CHECKPOINT@BASE_URL#MODEL, such as "
            "tokens:runs/my-model@http://localhost:8000#my-model (the server's root, without /v1)"
        )
    return Path(found[1]), found[2], found[3]


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
