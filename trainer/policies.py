"""From a SPEC to a policy, engines of this process among them. Heavy imports wait until one is asked for."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..agent.sources import PolicySource


def checkpoint_of(spec: str) -> Path | None:
    """The checkpoint of an engine's SPEC; None of any other."""
    kind, _, rest = spec.partition(":")
    return Path(rest) if kind == "engine" and rest else None


def build_policy(
    spec: str,
    *,
    max_batch: int = 8,
    attention: str = "auto",
    chat_template: str | None = None,
    elsewhere: bool = False,
) -> "PolicySource":
    """The policy that SPEC names, see ``agent.sources.SPECS``.

    Args:
        spec: as there.
        max_batch: most sequences an engine decodes, or a server is asked for, at once.
        attention: what it runs on in an engine of this process: "auto", "triton", "sdpa" or "reference".
        chat_template: of a checkpoint's tokenizer, in place of its own, see ``model.chat.named_templates``.
        elsewhere: an engine is not opened: its episodes run in other processes. What is known of it is.
    Raises:
        ConfigError: no such kind of policy, one without a tokenizer to give a template, or attention that cannot run
            here. CheckpointError: the checkpoint is missing or broken.
    """
    from ..agent.sources import text_source
    from ..errors import ConfigError

    checkpoint = checkpoint_of(spec)
    if checkpoint is not None:
        if elsewhere:
            return _unopened(spec, checkpoint)
        return _engine_source(spec, checkpoint, max_batch, attention, chat_template)
    if spec.partition(":")[0] == "tokens":
        return _tokens_source(spec, max_batch, chat_template)
    if chat_template is not None:
        raise ConfigError(f"--chat-template is of a checkpoint's tokenizer, and --policy {spec} has none; leave it out")
    return text_source(spec, concurrency=max_batch)


def _engine_source(
    spec: str, checkpoint: Path, max_batch: int, attention: Any, chat_template: str | None
) -> "PolicySource":
    from ..agent.policy import TokenPolicy
    from ..agent.prediction import EnginePredictor
    from ..agent.sources import PolicySource, fingerprint
    from ..errors import ConfigError
    from ..model.chat.named_templates import template_identity
    from ..model.chat.settings import checkpoint_settings
    from ..model.chat.trace_tokens import TraceFormat
    from ..model.engine.open import open_checkpoint
    from ..model.families.find import sampling_of

    model = open_checkpoint(checkpoint, max_batch=max_batch, attention=attention, chat_template=chat_template)
    if model.renderer is None or model.parser is None:
        raise ConfigError(f"the checkpoint {checkpoint} cannot be a policy: {model.chat_problem}")
    policy = TokenPolicy(model.engine, model.renderer, model.parser)
    tokenizer = model.tokenizer
    return PolicySource(
        name=spec,
        policy_for=lambda env, task: policy,
        env_kwargs=checkpoint_settings(checkpoint).environments,
        identity={"fingerprint": fingerprint(checkpoint), **template_identity(chat_template)},
        aclose=model.engine.aclose,
        max_context=model.engine.max_context,
        generation=sampling_of(checkpoint),
        shared=lambda: policy,
        predictor=None if tokenizer is None else lambda: EnginePredictor(model.engine, TraceFormat(tokenizer)),
    )


def _unopened(spec: str, checkpoint: Path) -> "PolicySource":
    """``_engine_source`` without the engine."""
    from ..agent.sources import PolicySource, fingerprint
    from ..errors import ConfigError
    from ..model.chat.settings import checkpoint_settings
    from ..model.checkpoint import load_config
    from ..model.families.find import sampling_of, why_not_ours
    from ..model.format import open_format

    reason = why_not_ours(checkpoint)
    if reason is not None:
        raise ConfigError(
            f"on a cluster engine:CHECKPOINT is of our own decoder, which {checkpoint} does not run on ({reason}); "
            "serve it (verigym serve), and give --policy tokens:CHECKPOINT@BASE_URL#MODEL"
        )
    text = open_format(checkpoint)
    if text.renderer is None or text.parser is None:
        raise ConfigError(f"the checkpoint {checkpoint} cannot be a policy: {text.chat_problem}")

    def nobody(env: object, task: object) -> Any:
        return None

    return PolicySource(
        name=spec,
        policy_for=nobody,
        env_kwargs=checkpoint_settings(checkpoint).environments,
        identity={"fingerprint": fingerprint(checkpoint)},
        max_context=load_config(checkpoint).max_position_embeddings,
        generation=sampling_of(checkpoint),
    )


def _tokens_source(spec: str, max_batch: int, chat_template: str | None) -> "PolicySource":
    from ..agent.sources import tokens_checkpoint, tokens_source
    from ..errors import CheckpointError, ConfigError
    from ..model.chat.named_templates import template_identity
    from ..model.chat.settings import checkpoint_settings
    from ..model.format import open_format

    checkpoint = tokens_checkpoint(spec)
    if not checkpoint.is_dir():
        raise CheckpointError(f"there is no checkpoint at {checkpoint}; its tokenizer and chat format are needed here")
    text = open_format(checkpoint, chat_template=chat_template)
    if text.renderer is None or text.parser is None:
        raise ConfigError(f"the checkpoint {checkpoint} cannot be a policy: {text.chat_problem}")
    source = tokens_source(spec, text.renderer, text.parser, concurrency=max_batch)
    return replace(
        source,
        env_kwargs=checkpoint_settings(checkpoint).environments,
        identity={**source.identity, **template_identity(chat_template)},
    )
