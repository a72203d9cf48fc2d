"""Open a checkpoint of any architecture: the engine that fits it, its tokenizer, and its chat format."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import CheckpointError, ConfigError
from ..chat.protocols import ServingEngine
from ..families.find import why_not_ours
from ..format import TextFormat, Tools, open_format

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ..attention import Backend
    from .batch import OnWeightUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel(TextFormat):
    """A model, ready to be asked.

    Attributes:
        engine: samples.
        eos_token_ids: what ends a completion that is no chat.
        load_weights: puts the weights of a checkpoint of the same shape into the engine, as those of a version, with
            what becomes of requests in flight (``Generator.update_weights``). Raises CheckpointError, and PolicyError
            where requests are in flight and nothing says what becomes of them.
    """

    engine: ServingEngine
    eos_token_ids: tuple[int, ...] = ()
    load_weights: Callable[[Path, int, "OnWeightUpdate | None"], None]


def open_checkpoint(
    checkpoint: Path,
    *,
    max_batch: int,
    max_context: int | None = None,
    cache_tokens: int | None = None,
    device: str | None = None,
    attention: "Backend" = "auto",
    tensor_parallel: int = 1,
    tools: Tools | None = None,
    template_options: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    **options: Any,
) -> OpenModel:
    """Open a checkpoint: of the families of our decoder (``model.families``) with the paged engine, any other of
    transformers' with ``HuggingFaceEngine``.

    Args:
        max_batch: sequences in work at once.
        max_context: tokens of a prompt and its completion; None for what the model was made for.
        cache_tokens: of ``Generator``; only our engine keeps tokens.
        device: None for CUDA where there is some.
        attention: what it runs on in our decoder, see ``attention.choose_backend``.
        tensor_parallel: processes of this machine, one a GPU, that have the heads of our decoder together.
        tools, template_options, chat_template: of a chat template's renderer, see ``format.open_format``.
        options: of the engine: seed, num_threads, max_waiting.
    Raises:
        CheckpointError: it is missing or broken. ConfigError: the model cannot take ``max_context`` tokens, or its
            engine has no cache to be sized.
    """
    import torch

    if tensor_parallel < 1:
        raise ConfigError(f"tensor_parallel is {tensor_parallel}; it must be at least 1")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options |= {"max_batch": max_batch, "max_context": max_context}
    reason = why_not_ours(checkpoint)
    text = open_format(checkpoint, tools=tools, options=template_options, chat_template=chat_template)
    if reason is None:
        return _open_ours(
            checkpoint,
            text,
            device,
            options | {"cache_tokens": cache_tokens},
            attention=attention,
            ranks=tensor_parallel,
        )
    for name, given in (("cache_tokens", cache_tokens is not None), ("attention", attention != "auto")):
        if given:
            raise ConfigError(f"{name} is a setting of our own engine; leave it out for this model: {reason}")
    if tensor_parallel > 1:
        raise ConfigError(f"tensor_parallel is a setting of our own engine; leave it out for this model: {reason}")
    logger.warning(
        "%s runs on transformers (%s): it is slower, and prompts are computed anew",
        checkpoint,
        reason,
    )
    return _open_huggingface(checkpoint, text, device, options)


def _open(text: TextFormat, **own: Any) -> OpenModel:
    return OpenModel(**{field.name: getattr(text, field.name) for field in fields(TextFormat)}, **own)


def _open_ours(
    checkpoint: Path, text: TextFormat, device: str, options: dict[str, Any], *, attention: "Backend", ranks: int
) -> OpenModel:
    from ..arithmetic import suited
    from ..checkpoint import load_config, load_decoder
    from .generator import Generator
    from .weights import from_checkpoint

    if options["max_context"] is None:
        options["max_context"] = load_config(checkpoint).max_position_embeddings
    if ranks > 1:
        from .tensor_parallel import start_followers

        sizes = {name: options[name] for name in ("max_batch", "max_context", "cache_tokens")}
        followers = start_followers(checkpoint, device, ranks, sizes, attention, options.get("num_threads"))
        decoder = followers.decoder
        options |= followers.sizes
    else:
        followers, decoder = None, load_decoder(checkpoint, device)
        decoder = decoder.to(suited(decoder.head.weight.dtype, device))
        decoder.use_attention(attention)
    decoder.config = decoder.config.with_known_ids(text.num_ids)
    options |= {"device": device, "decode": text.decode, "followers": followers}
    try:
        engine = Generator(decoder, **options)
    except BaseException:
        if followers is not None:
            followers.close()
        raise
    return _open(
        text,
        engine=engine,
        eos_token_ids=decoder.config.eos_token_ids,
        load_weights=lambda path, version, mode: engine.update_weights(
            version, from_checkpoint(path), on_weight_update=mode
        ),
    )


def _open_huggingface(checkpoint: Path, text: TextFormat, device: str, options: dict[str, Any]) -> OpenModel:
    from ..arithmetic import suited
    from ..huggingface import load_model
    from .huggingface import HuggingFaceEngine

    def load(path: Path) -> Any:
        return load_model(path, dtype="auto", local_files_only=True)

    def load_weights(path: Path, version: int, mode: "OnWeightUpdate | None") -> None:
        engine.update_weights(engine.policy_version)  # raises where requests are in flight
        try:
            model.load_state_dict(load(path).state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoint {path} is of another shape: {error}") from error
        engine.update_weights(version)

    model = load(checkpoint).to(device)
    model = model.to(suited(model.dtype, device))
    eos = model.generation_config.eos_token_id  # before the engine makes the settings neutral
    eos = model.config.eos_token_id if eos is None else eos

    engine = HuggingFaceEngine(model, decode=text.decode, num_ids=text.num_ids, **options)
    return _open(
        text,
        engine=engine,
        eos_token_ids=tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (eos,),
        load_weights=load_weights,
    )
