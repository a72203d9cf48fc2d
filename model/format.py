"""How a checkpoint's model reads and writes text: its tokenizer and its chat format, without its weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ChatFormatError, CheckpointError, ConfigError
from .chat.incremental import Decode
from .chat.protocols import Parser, Renderer, TextTokenizer
from .chat.settings import Tools, checkpoint_settings
from .families.find import eos_token_ids, model_type

_BLANK = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's
Encode = Callable[[str, bool], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """Text to ids, ids to text, messages to ids.

    Attributes:
        encode: (a prompt's text, whether the tokenizer may put its own begin-of-text before it) -> ids; None: the
            checkpoint has no tokenizer, and only prompts of token ids can be served.
        decode: text of ids; None as above.
        tokenizer: of CWM's checkpoints, by whose reserved tokens traces are written.
        num_ids: one above the largest id that the tokenizer knows; None without one.
        renderer, parser: of the chat format; None where it has none, and ``chat_problem`` says why.
    """

    encode: Encode | None = None
    decode: Decode | None = None
    tokenizer: TextTokenizer | None = None
    num_ids: int | None = None
    renderer: Renderer | None = None
    parser: Parser | None = None
    chat_problem: str = ""


def open_format(
    checkpoint: Path,
    *,
    tools: Tools | None = None,
    options: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
) -> TextFormat:
    """Read a checkpoint's tokenizer and chat format.

    Args:
        tools, options: of a chat template's renderer, before what the checkpoint's verigym.json says of them.
        chat_template: in place of the tokenizer's own, see ``chat.named_templates``.
    Raises:
        CheckpointError: the tokenizer is broken. ConfigError: settings of a template, for CWM's format; there is no
            such template.
    """
    if model_type(checkpoint) != "cwm":
        return _huggingface(checkpoint, tools, options or {}, chat_template)
    if tools == "text" or options or chat_template:
        raise ConfigError(f"{checkpoint} speaks CWM's format, which has no chat template to replace or to give options")
    return _cwm(checkpoint)


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
        num_ids=tokenizer.vocab_size,
        renderer=renderer,
        parser=CwmParser(reasoning=settings.reasoning) if renderer else None,
        chat_problem=problem,
    )


def load_tokenizer(checkpoint: Path, chat_template: str | None = None) -> Any:
    """transformers' tokenizer of a folder; code that lies beside it is never run.

    Args:
        chat_template: in place of its own, see ``chat.named_templates``.
    Raises:
        CheckpointError: it cannot be read. ConfigError: there is no such template.
    """
    from transformers import AutoTokenizer

    from .chat.named_templates import set_template

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception on what it cannot read
        raise CheckpointError(
            f"transformers cannot read the tokenizer of {checkpoint} ({error}); copy the files that came with the model"
        ) from error
    if chat_template is not None:
        set_template(tokenizer, chat_template)
    return tokenizer


def decode_as_continuation(tokenizer: Any) -> Decode:
    """Text of ids that follow others. Tokenizers of SentencePiece's kind drop the blank before the first word of what
    they decode: there "▁the" and "the" would be one, and a completion would lose its first blank."""

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    words = (number for token, number in tokenizer.get_vocab().items() if token[:1] == _BLANK and token.strip(_BLANK))
    word = next(words, None)
    before = tokenizer.encode("a", add_special_tokens=False)[-1:]
    if word is None or not before or decode([word]).startswith(" "):
        return decode
    text = decode(before)
    return lambda ids: decode([*before, *ids]).removeprefix(text)


def known_ids(tokenizer: Any) -> int:
    """One above the largest id of a tokenizer of transformers, whose own length leaves holes out."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _huggingface(
    checkpoint: Path, tools: Tools | None, options: Mapping[str, Any], chat_template: str | None
) -> TextFormat:
    from .chat.encoding import valid_text
    from .chat.huggingface import HuggingFaceRenderer

    if not any(checkpoint.glob("tokenizer*")):
        return TextFormat(chat_problem="the checkpoint has no tokenizer")
    tokenizer = load_tokenizer(checkpoint, chat_template)
    renderer, problem = None, ""
    settings = checkpoint_settings(checkpoint).template
    try:
        renderer = HuggingFaceRenderer(
            tokenizer,
            eos_token_ids=eos_token_ids(checkpoint),
            tools=tools or settings.tools,
            options=settings.options | dict(options),
        )
    except ChatFormatError as error:
        problem = str(error)
    return TextFormat(
        encode=lambda text, special: list(tokenizer.encode(valid_text(text), add_special_tokens=special)),
        decode=decode_as_continuation(tokenizer),
        num_ids=known_ids(tokenizer),
        renderer=renderer,
        parser=renderer.parser if renderer else None,
        chat_problem=problem,
    )
