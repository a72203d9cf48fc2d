"""How a checkpoint's model reads and writes text: its tokenizer and its chat format, without its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ChatFormatError, CheckpointError
from .chat.incremental import Decode
from .chat.protocols import Parser, Renderer, TextTokenizer
from .chat.settings import checkpoint_settings
from .families.find import model_type

Encode = Callable[[str, bool], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """Text to ids, ids to text, messages to ids.

    Attributes:
        encode: (a prompt's text, whether the tokenizer may put its own begin-of-text before it) -> ids; None: the
            checkpoint has no tokenizer, and only prompts of token ids can be served.
        decode: text of ids; None as above.
        tokenizer: of CWM's checkpoints, by whose reserved tokens traces are written.
        renderer, parser: of the chat format; None where it has none, and ``chat_problem`` says why.
    """

    encode: Encode | None = None
    decode: Decode | None = None
    tokenizer: TextTokenizer | None = None
    renderer: Renderer | None = None
    parser: Parser | None = None
    chat_problem: str = ""


def open_format(checkpoint: Path) -> TextFormat:
    """Read a checkpoint's tokenizer and chat format. Raises CheckpointError where the tokenizer is broken."""
    return _cwm(checkpoint) if model_type(checkpoint) == "cwm" else _huggingface(checkpoint)


def _cwm(checkpoint: Path) -> TextFormat:
    from .chat.cwm import CwmParser, CwmRenderer
    from .tokenizer import TIKTOKEN_FILE, Tokenizer

    settings = checkpoint_settings(checkpoint).renderer
    if not any((checkpoint / name).is_file() for name in ("tokenizer.json", TIKTOKEN_FILE)):
        return TextFormat(chat_problem="the checkpoint has no tokenizer")
    tokenizer = Tokenizer.load(checkpoint)
    renderer, problem = None, ""
    try:
        renderer = CwmRenderer(tokenizer, **settings.model_dump())
    except ChatFormatError as error:
        problem = str(error)
    return TextFormat(
        encode=lambda text, special: tokenizer.encode_prompt(text, add_special_tokens=special),
        decode=tokenizer.decode,
        tokenizer=tokenizer,
        renderer=renderer,
        parser=CwmParser(reasoning=settings.reasoning) if renderer else None,
        chat_problem=problem,
    )


def load_tokenizer(checkpoint: Path) -> Any:
    """transformers' tokenizer of a folder; code that lies beside it is never run. Raises CheckpointError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception on what it cannot read
        raise CheckpointError(
            f"transformers cannot read the tokenizer of {checkpoint} ({error}); copy the files that came with the model"
        ) from error


def _huggingface(checkpoint: Path) -> TextFormat:
    from .chat.encoding import valid_text
    from .chat.huggingface import HuggingFaceRenderer
    from .chat.openai import JsonParser

    if not any(checkpoint.glob("tokenizer*")):
        return TextFormat(chat_problem="the checkpoint has no tokenizer")
    tokenizer = load_tokenizer(checkpoint)
    renderer, problem = None, ""
    try:
        renderer = HuggingFaceRenderer(tokenizer)
    except ChatFormatError as error:
        problem = str(error)
    return TextFormat(
        encode=lambda text, special: list(tokenizer.encode(valid_text(text), add_special_tokens=special)),
        decode=lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False),
        renderer=renderer,
        parser=JsonParser() if renderer else None,
        chat_problem=problem,
    )
