"""Meta's tokenizer.model: byte-level BPE as ranks of byte strings, one a line in base64. Free of torch.

Source: cwm/text/tokenizers.py of facebookresearch/cwm, for the words, the names of the reserved tokens and their ids.
"""

import base64
import binascii
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ..errors import CheckpointError

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUM_RESERVED = 256
# Ids, counted from the last byte string (128000 in CWM). The others are <|reserved_special_token_ID|>.
RESERVED_IDS = {
    "<|begin_of_text|>": 0,
    "<|end_of_text|>": 1,
    "<|pad|>": 4,
    "<|start_header_id|>": 6,
    "<|end_header_id|>": 7,
    "<|eom_id|>": 8,
    "<|eot_id|>": 9,
    "<|frame_sep|>": 100,
    "<|action_sep|>": 101,
    "<|return_sep|>": 102,
    "<|call_sep|>": 103,
    "<|line_sep|>": 104,
    "<|exception_sep|>": 105,
    "<|arg_sep|>": 106,
    "<|trace_context_start|>": 107,
    "<|reasoning_thinking_start|>": 120,
    "<|reasoning_thinking_end|>": 121,
}


def read_tiktoken(file: Path) -> tokenizers.Tokenizer:
    """Build the tokenizer that a tiktoken file and CWM's reserved tokens describe.

    Raises:
        CheckpointError: the file is broken; it names the line.
    """
    ranks = _read_ranks(file)
    letters = _letters()
    vocab = {"".join(letters[byte] for byte in piece): rank for piece, rank in ranks.items()}
    core = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=_merges(ranks, letters), ignore_merges=True))
    words = pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
    core.decoder = decoders.ByteLevel()
    names = {offset: name for name, offset in RESERVED_IDS.items()}
    core.add_special_tokens([names.get(i, f"<|reserved_special_token_{i}|>") for i in range(NUM_RESERVED)])
    return core


def _read_ranks(file: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            piece, rank = line.split()
            ranks[base64.b64decode(piece, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(
                f"{file}: line {number} is no byte string and rank ({error}); copy it anew"
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise CheckpointError(f"{file}: {len(ranks)} ranks with gaps, or bytes missing; copy it anew")
    return ranks


def _merges(ranks: dict[bytes, int], letters: dict[int, str]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, by the rank of what results: tiktoken's order of merging."""

    def spelled(piece: bytes) -> str:
        return "".join(letters[byte] for byte in piece)

    merges = []
    for piece in sorted(ranks, key=ranks.__getitem__):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        known = [pair for pair in splits if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return [(spelled(left), spelled(right)) for left, right in merges]


def _letters() -> dict[int, str]:
    """The visible letter that byte-level BPE writes for each byte, as GPT-2 has it."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
