"""Checkpoints of a whole decoder: config, weights, tokenizer. ``model.weights`` has the formats."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .config import DecoderConfig
from .decoder import Decoder
from .families.find import why_not_ours, write_config
from .format import load_tokenizer
from .lora import plain_state
from .tokenizer import Tokenizer
from .weights.checksums import check_sums
from .weights.folders import existing, written_whole
from .weights.names import stacks
from .weights.sources import Source, load_config, open_source, read_part, source_of
from .weights.writers import SHARD_BYTES, Weight, write_safetensors

__all__ = [
    "check_checkpoint",
    "from_hf_state",
    "load_checkpoint",
    "load_config",
    "load_decoder",
    "load_weights",
    "save_checkpoint",
    "to_hf_state",
]


def save_checkpoint(
    path: Path | str,
    decoder: Decoder,
    tokenizer: Any,
    *,
    shard_bytes: int = SHARD_BYTES,
    dtype: torch.dtype | None = None,
    sums: bool = True,
) -> None:
    """Write a checkpoint that ``load_checkpoint`` and transformers' AutoModelForCausalLM read.

    It is written beside ``path``, flushed to the disk, and then takes the place of what was there.

    Args:
        tokenizer: ours for CWM; transformers' for the other families.
        shard_bytes: of the largest file of weights.
        dtype: of the weights in it; None: the decoder's.
        sums: record checksums of its files, which every later reading compares.
    Raises:
        CheckpointError: it could not be written; what was at ``path`` before is whole.
    """
    _check_tokenizer(decoder.config, tokenizer)
    dtype = dtype or decoder.embed.weight.dtype
    with written_whole(Path(path), sums=sums) as partial:
        weights = [
            # a copy: a file of safetensors takes no two weights from one storage
            Weight(
                name=name,
                shape=tuple(view.shape),
                dtype=dtype,
                make=lambda view=view: view.detach().to(dtype, copy=True),
            )
            for name, view in hf_views(decoder).items()
        ]
        write_safetensors(partial, weights, shard_bytes=shard_bytes)
        save_settings(partial, decoder.config, tokenizer, dtype)


def save_settings(folder: Path, decoder_config: DecoderConfig, tokenizer: Any, dtype: torch.dtype) -> None:
    """Write what a checkpoint has beside its weights: the configuration, and the tokenizer's files.

    Raises:
        CheckpointError: the tokenizer is not of this decoder.
    """
    _check_tokenizer(decoder_config, tokenizer)
    config = write_config(decoder_config) | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if isinstance(tokenizer, Tokenizer):
        tokenizer.save(folder)
        return
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps(ends, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)


def _check_tokenizer(config: DecoderConfig, tokenizer: Any) -> None:
    ours = isinstance(tokenizer, Tokenizer)
    if ours != (config.family == "cwm"):
        raise CheckpointError(
            f"a decoder of the family {config.family} is not saved with a {type(tokenizer).__name__}; "
            "take the tokenizer that came with it"
        )
    if ours and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} ids but the decoder {config.vocab_size}; "
            "build the decoder with vocab_size of the tokenizer"
        )


def check_checkpoint(path: Path | str) -> None:
    """See that a checkpoint's files of safetensors are whole, and of a model of ours that they hold every weight in its
    shape; no weight is read.

    Raises:
        CheckpointError: as ``load_checkpoint``, but for what only the weights themselves tell.
    """
    folder = existing(Path(path))
    if why_not_ours(folder) is None:
        open_source(folder)
    elif any(folder.glob("*.safetensors")):
        source_of(folder)


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> tuple[Decoder, Any]:
    """Read a checkpoint of this package, of transformers, or of Meta's release, and its tokenizer: ours of CWM, else
    transformers'.

    Raises:
        CheckpointError: something is missing, changed since it was written, of another shape, or not finite; it names
            the first.
    """
    folder = existing(Path(path))
    config = load_config(folder)  # a folder that is no checkpoint is told before its tokenizer is missed
    # before the weights: they take longest
    tokenizer = Tokenizer.load(folder) if config.family == "cwm" else load_tokenizer(folder)
    return load_decoder(path, device), tokenizer


def load_decoder(path: Path | str, device: torch.device | str = "cpu") -> Decoder:
    """The decoder of a checkpoint, which needs no tokenizer. Raises CheckpointError, as ``load_checkpoint``."""
    folder = existing(Path(path))
    config, source = open_source(folder)
    state = _state(config, source)
    check_sums(folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    decoder.load_state_dict(state, assign=True)
    return decoder.to(device)


def load_weights(path: Path | str, decoder: Decoder, *, check: bool = True) -> None:
    """Copy a checkpoint's weights into a decoder of the same shape; nothing is copied where anything is wrong.

    Args:
        check: compare checksums; False where that was done.
    Raises:
        CheckpointError: as ``load_checkpoint``; also a checkpoint of another shape.
    """
    folder = existing(Path(path))
    check_shape(folder, decoder.config)
    state = _state(*open_source(folder))
    if check:
        check_sums(folder)
    decoder.load_state_dict(state)


def check_shape(folder: Path, config: DecoderConfig) -> None:
    """Raises CheckpointError that names the first field in which the checkpoint's shape is not ``config``'s."""
    mismatch = config.first_mismatch(load_config(folder))
    if mismatch is not None:
        raise CheckpointError(f"the checkpoint {folder} is of another shape: {mismatch}; build the decoder from it")


def to_hf_state(decoder: Decoder) -> dict[str, Tensor]:
    """Weights by Hugging Face's names, as contiguous copies."""
    return {name: view.detach().clone().contiguous() for name, view in hf_views(decoder).items()}


def from_hf_state(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The decoder's state dict from weights by Hugging Face's names."""
    return {ours: torch.cat([tensors[part.hf] for part in stacked]) for ours, stacked in stacks(config)}


def hf_views(decoder: Decoder) -> dict[str, Tensor]:
    """Weights of a whole decoder by Hugging Face's names, sharing its memory."""
    state = plain_state(decoder)
    return {
        part.hf: view
        for ours, stacked in stacks(decoder.config)
        for part, view in zip(stacked, state[ours].split([part.shape[0] for part in stacked]), strict=True)
    }


def _state(config: DecoderConfig, source: Source) -> dict[str, Tensor]:
    """All weights in our stacks, checked; each stack's parts are freed before the next is read."""
    state = {}
    for ours, stacked in stacks(config):
        found = [read_part(source, part, config.head_dim) for part in stacked]
        state[ours] = torch.cat(found) if len(found) > 1 else found[0]
    return state
