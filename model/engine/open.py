"""Open a checkpoint of any architecture: the engine that fits it, its tokenizer, and its chat format."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ChatFormatError, CheckpointError, ConfigError
from ..chat.incremental import Decode
from ..chat.protocols import Parser, Renderer, ServingEngine, TextTokenizer
from ..chat.settings import checkpoint_settings

Encode = Callable[[str, bool], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model, ready to be asked.

    Attributes:
        engine: samples.
        encode: (a prompt's text, whether the tokenizer may put its own begin-of-text before it) -> ids; None: the
            checkpoint has no tokenizer, and only prompts of token ids can be served.
        decode: text of ids; None as above.
        tokenizer: of CWM's checkpoints, by whose reserved tokens traces are written.
        renderer, parser: of the chat format; None where it has none, and ``chat_problem`` says why.
        eos_token_ids: what ends a completion that is no chat.
        load_weights: puts the weights of a checkpoint of the same shape into the engine, as those of a version.
            Raises CheckpointError, and PolicyError where requests are in flight.
    """

    engine: ServingEngine
    encode: Encode | None = None
    decode: Decode | None = None
    tokenizer: TextTokenizer | None = None
    renderer: Renderer | None = None
    parser: Parser | None = None
    chat_problem: str = ""
    eos_token_ids: tuple[int, ...] = ()
    load_weights: Callable[[Path, int], None]


def open_checkpoint(
    checkpoint: Path,
    *,
    max_batch: int,
    max_context: int | None = None,
    cache_tokens: int | None = None,
    device: str | None = None,
    **options: Any,
) -> OpenModel:
    """Open a checkpoint: CWM's with the paged engine, any other of transformers' with ``HuggingFaceEngine``.

    Args:
        max_batch: sequences in work at once.
        max_context: tokens of a prompt and its completion; None for what the model was made for.
        cache_tokens: of ``Generator``; only CWM's engine keeps tokens.
        device: None for CUDA where there is some.
        options: of the engine: seed, num_threads, max_waiting.
    Raises:
        CheckpointError: it is missing or broken. ConfigError: the model cannot take ``max_context`` tokens, or its
            engine has no cache to be sized.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options |= {"max_batch": max_batch, "max_context": max_context}
    if model_type(checkpoint) == "cwm":
        return _open_cwm(checkpoint, device, options | {"cache_tokens": cache_tokens})
    if cache_tokens is not None:
        raise ConfigError("cache_tokens is for CWM's engine; transformers' models size their caches themselves")
    return _open_huggingface(checkpoint, device, options)


def model_type(checkpoint: Path) -> str:
    """transformers' name of the architecture; what has no config.json is CWM's, or nothing."""
    try:
        config = json.loads((checkpoint / "config.json").read_bytes())
    except (OSError, ValueError):
        return "cwm"
    return str(config.get("model_type", "cwm")) if isinstance(config, dict) else "cwm"


def _open_cwm(checkpoint: Path, device: str, options: dict[str, Any]) -> OpenModel:
    from ..chat.cwm import CwmParser, CwmRenderer
    from ..checkpoint import load_decoder
    from ..tokenizer import TIKTOKEN_FILE, Tokenizer
    from .generator import Generator
    from .weights import from_checkpoint

    settings = checkpoint_settings(checkpoint).renderer
    has_tokenizer = any((checkpoint / name).is_file() for name in ("tokenizer.json", TIKTOKEN_FILE))
    tokenizer = Tokenizer.load(checkpoint) if has_tokenizer else None
    decoder = load_decoder(checkpoint, device)
    if options["max_context"] is None:
        options["max_context"] = decoder.config.max_position_embeddings
    engine = Generator(decoder, device=device, decode=tokenizer.decode if tokenizer else None, **options)
    renderer, problem = None, "the checkpoint has no tokenizer"
    if tokenizer is not None:
        try:
            renderer, problem = CwmRenderer(tokenizer, **settings.model_dump()), ""
        except ChatFormatError as error:
            problem = str(error)
    return OpenModel(
        engine=engine,
        encode=(lambda text, special: tokenizer.encode_prompt(text, add_special_tokens=special)) if tokenizer else None,
        decode=tokenizer.decode if tokenizer else None,
        tokenizer=tokenizer,
        renderer=renderer,
        parser=CwmParser(reasoning=settings.reasoning) if renderer else None,
        chat_problem=problem,
        eos_token_ids=decoder.config.eos_token_ids,
        load_weights=lambda path, version: engine.update_weights(version, from_checkpoint(path)),
    )


def _open_huggingface(checkpoint: Path, device: str, options: dict[str, Any]) -> OpenModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..chat.huggingface import HuggingFaceRenderer
    from ..chat.openai import JsonParser
    from ..tokenizer import valid_text
    from .huggingface import HuggingFaceEngine

    def load(path: Path) -> Any:
        try:
            return AutoModelForCausalLM.from_pretrained(path, dtype="auto", local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"transformers cannot load {path} ({error}); check the path") from error

    def load_weights(path: Path, version: int) -> None:
        engine.update_weights(engine.policy_version)  # raises where requests are in flight
        try:
            model.load_state_dict(load(path).state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoint {path} is of another shape: {error}") from error
        engine.update_weights(version)

    tokenizer: Any = None
    problem = "the checkpoint has no tokenizer"
    if any(checkpoint.glob("tokenizer*")):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = load(checkpoint).to(device)
    eos = model.generation_config.eos_token_id  # before the engine makes the settings neutral
    eos = model.config.eos_token_id if eos is None else eos

    def encode(text: str, special: bool) -> list[int]:
        return list(tokenizer.encode(valid_text(text), add_special_tokens=special))

    def decode(token_ids: Any) -> str:
        return tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    renderer = None
    if tokenizer is not None:
        try:
            renderer, problem = HuggingFaceRenderer(tokenizer), ""
        except ChatFormatError as error:
            problem = str(error)
    engine = HuggingFaceEngine(model, decode=decode if tokenizer else None, **options)
    return OpenModel(
        engine=engine,
        encode=encode if tokenizer else None,
        decode=decode if tokenizer else None,
        renderer=renderer,
        parser=JsonParser() if renderer else None,
        chat_problem=problem,
        eos_token_ids=tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (eos,),
        load_weights=load_weights,
    )
