"""Saving and loading whatever is trained: CWM's decoder or a model of transformers, whole or as adapters."""

from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from .checkpoint import load_weights, save_checkpoint
from .huggingface import HuggingFaceDecoder
from .lora import AnyDecoder, has_adapters, load_adapters, plain_state, save_adapters
from .tokenizer import Tokenizer
from .weights.folders import written_whole

ADAPTER_FOLDER = "adapter"


def save_trained(path: Path | str, decoder: AnyDecoder, tokenizer: Any) -> None:
    """Write the least that ``load_trained`` needs: of a model with adapters only these.

    Args:
        tokenizer: ours for CWM's decoder, else transformers'.
    Raises:
        CheckpointError: it could not be written.
    """
    if has_adapters(decoder):
        save_adapters(path, decoder)
    else:
        _save_whole(Path(path), decoder, tokenizer)


def load_trained(path: Path | str, decoder: AnyDecoder) -> None:
    """Put what ``save_trained`` wrote into a decoder of the same kind and shape. Raises CheckpointError."""
    if has_adapters(decoder):
        load_adapters(path, decoder)
    elif isinstance(decoder, HuggingFaceDecoder):
        decoder.load_weights(path)
    else:
        load_weights(path, decoder)


def export(
    path: Path, decoder: AnyDecoder, tokenizer: Any, *, base: Path | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a whole model that transformers reads; what adapters learned is added to its weights, and they are also
    written by themselves, in peft's format, into its folder "adapter".

    Args:
        base: of the adapters, to be named in their file.
        dtype: of the whole model's weights, for CWM's decoder; None: as they are.
    Raises:
        CheckpointError: it could not be written.
    """
    _save_whole(path, decoder, tokenizer, dtype)
    if has_adapters(decoder):
        save_adapters(path / ADAPTER_FOLDER, decoder, base=base)


def load_exported(path: Path, decoder: AnyDecoder) -> None:
    """Put what ``export`` wrote into a decoder of the same kind and shape. Raises CheckpointError."""
    load_trained(path / ADAPTER_FOLDER if has_adapters(decoder) else path, decoder)


def _save_whole(path: Path, decoder: AnyDecoder, tokenizer: Any, dtype: torch.dtype | None = None) -> None:
    if isinstance(decoder, HuggingFaceDecoder):
        with written_whole(path) as partial:
            decoder.save(partial, plain_state(decoder) if has_adapters(decoder) else None)
            tokenizer.save_pretrained(partial)
        return
    if not isinstance(tokenizer, Tokenizer):
        raise CheckpointError(f"a CWM decoder is saved with CWM's tokenizer, not with a {type(tokenizer).__name__}")
    save_checkpoint(path, decoder, tokenizer, dtype=dtype)
