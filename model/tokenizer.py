"""Byte-level BPE with CWM's reserved tokens, in Hugging Face's files. Free of torch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from ..errors import CheckpointError, ConfigError
from .chat.encoding import valid_text
from .tiktoken import read_tiktoken

TIKTOKEN_FILE = "tokenizer.model"

# The order gives the ids of a trained tokenizer: 0, 1, 2, ... (DecoderConfig's "cwm-tiny" relies on the first seven).
RESERVED_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|pad|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|frame_sep|>",
    "<|action_sep|>",
    "<|return_sep|>",
    "<|call_sep|>",
    "<|line_sep|>",
    "<|exception_sep|>",
    "<|arg_sep|>",
    "<|trace_context_start|>",
    "<|reasoning_thinking_start|>",
    "<|reasoning_thinking_end|>",
)

# Llama 3's words, except that digits stand alone: a small vocabulary cannot hold all numbers of three digits.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Text to ids and back; see ``model.chat.protocols.TextTokenizer``."""

    def __init__(self, core: tokenizers.Tokenizer, config: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            core: of the tokenizers library.
            config: the tokenizer_config.json to save with it; None for that of CWM's reserved tokens.
        """
        # A copy in which every added token is special, so that text which spells one out can be kept text.
        description = json.loads(core.to_str())
        for token in description["added_tokens"]:
            token["special"] = True
        self._description = json.dumps(description)
        self._core = self._encoder(reserved_as_text=True)
        self._reserving: tokenizers.Tokenizer | None = None
        self._file = core.to_str(pretty=True)
        self._config = dict(config) if config is not None else _hf_config()
        self._reserved = {token["content"]: int(token["id"]) for token in description["added_tokens"]}

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self.get_vocab().values()) + 1

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, reserved ones included."""
        return self._core.get_vocab(with_added_tokens=True)

    @property
    def reserved_tokens(self) -> Mapping[str, int]:
        """Ids of all reserved tokens by spelling."""
        return self._reserved

    def encode(self, text: str, *, allow_reserved: bool = False) -> list[int]:
        """Ids of text; lone surrogates, which UTF-8 cannot hold, become "?".

        Args:
            allow_reserved: whether a reserved token spelled out in the text becomes that token; otherwise, and for
                every text that a user or a tool wrote, it is encoded as the text it is.
        """
        if not allow_reserved:
            return self._core.encode(valid_text(text), add_special_tokens=False).ids
        return self._reserve().encode(valid_text(text), add_special_tokens=False).ids

    def encode_prompt(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a whole prompt, as transformers would encode it: reserved tokens spelled out are those tokens, and
        what the tokenizer's own file says is put around it (such as begin-of-text), unless it is not wanted."""
        return self._reserve().encode(valid_text(text), add_special_tokens=add_special_tokens).ids

    def _reserve(self) -> tokenizers.Tokenizer:
        if self._reserving is None:
            self._reserving = self._encoder(reserved_as_text=False)
        return self._reserving

    def _encoder(self, *, reserved_as_text: bool) -> tokenizers.Tokenizer:
        core = tokenizers.Tokenizer.from_str(self._description)
        core.encode_special_tokens = reserved_as_text
        core.no_padding()
        core.no_truncation()
        return core

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, reserved tokens spelled out; invalid UTF-8 becomes U+FFFD."""
        return self._core.decode(list(token_ids), skip_special_tokens=False)

    def reserved(self, name: str) -> int:
        """Id of a reserved token by its spelling, such as "<|eot_id|>". Raises KeyError naming it."""
        if name not in self._reserved:
            raise KeyError(f"{name} is no reserved token of this tokenizer; it has {', '.join(self._reserved)}")
        return self._reserved[name]

    def files(self) -> dict[str, str]:
        """Names and contents of the Hugging Face files."""
        return {
            "tokenizer.json": self._file,
            "tokenizer_config.json": json.dumps(self._config, indent=2, ensure_ascii=False),
        }

    def save(self, path: Path | str) -> None:
        """Write Hugging Face's files into the folder ``path``."""
        Path(path).mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (Path(path) / name).write_text(content, encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read the tokenizer in the folder ``path``: Hugging Face's tokenizer.json, or else Meta's tokenizer.model.

        Raises:
            CheckpointError: neither is there, or it cannot be read.
        """
        file = Path(path) / "tokenizer.json"
        if not file.is_file() and (Path(path) / TIKTOKEN_FILE).is_file():
            return cls(read_tiktoken(Path(path) / TIKTOKEN_FILE))
        if not file.is_file():
            raise CheckpointError(f"there is no tokenizer at {file}; take the one that came with the checkpoint")
        try:
            # The library raises plain Exception on what it cannot read, so the JSON is read here first.
            description = json.loads(file.read_text(encoding="utf-8"))
            settings = Path(path) / "tokenizer_config.json"
            config = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else None
        except ValueError as error:
            raise CheckpointError(f"the tokenizer at {path} is not JSON ({error}); copy it anew") from error
        if not isinstance(description, dict) or not {"model", "added_tokens"} <= description.keys():
            raise CheckpointError(f"{file} is not a tokenizer of the tokenizers library; copy it anew")
        try:
            # What it reads it may still refuse when it has written it out: a merge of tokens that are not there.
            return cls(tokenizers.Tokenizer.from_str(json.dumps(description)), config)
        except Exception as error:
            raise CheckpointError(f"{file} is no tokenizer ({error}); copy it anew") from error


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train byte-level BPE on texts.

    Args:
        texts: what the vocabulary is fitted to; any UTF-8 can be encoded afterwards.
        vocab_size: ids in all, reserved ones and the 256 bytes included; fewer result where the texts hold fewer
            pairs to merge, so size the model by ``Tokenizer.vocab_size``.
    Raises:
        ConfigError: no room for the bytes and the reserved tokens.
    """
    least = 256 + len(RESERVED_TOKENS)
    if vocab_size < least:
        raise ConfigError(f"vocab_size is {vocab_size}; bytes and reserved tokens alone take {least}")
    core = tokenizers.Tokenizer(models.BPE())
    words = pre_tokenizers.Split(tokenizers.Regex(_WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(RESERVED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(map(valid_text, texts), trainer)
    return Tokenizer(core)


def _hf_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
