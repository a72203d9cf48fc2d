"""Saving and loading whatever is trained: CWM's decoder or a model of transformers, whole or as adapters."""

from pathlib import Path
from typing import Any

import torch

from .checkpoint import load_weights, save_checkpoint
from .huggingface import HuggingFaceDecoder
from .lora import AnyDecoder, has_adapters, load_adapters, plain_state, save_adapters
from .weights.checksums import check_sums
from .weights.folders import written_whole

ADAPTER_FOLDER = "adapter"


def save_trained(path: Path | str, decoder: AnyDecoder, tokenizer: Any) -> None:
    """Write the least that ``load_trained`` needs: of a model with adapters only these.

    Args:
        tokenizer: ours of CWM, else transformers'.
    Raises:
        CheckpointError: it could not be written.
    """
    if has_adapters(decoder):
        save_adapters(path, decoder)
    else:
        _save_whole(Path(path), decoder, tokenizer)


def load_trained(path: Path | str, decoder: AnyDecoder, *, check: bool = True) -> None:
    """Put what ``save_trained`` wrote into a decoder of the same kind and shape.

    Args:
        check: compare checksums; False where that was done.
    Raises:
        CheckpointError: it is missing, changed since it was written, or of another shape.
    """
    if check:
        check_sums(path)
    if has_adapters(decoder):
        load_adapters(path, decoder)
    elif isinstance(decoder, HuggingFaceDecoder):
        decoder.load_weights(path)
    else:
        load_weights(path, decoder, check=False)


def export(
    path: Path,
    decoder: AnyDecoder,
    tokenizer: Any,
    *,
    base: Path | None = None,
    dtype: torch.dtype | None = None,
    sums: bool = True,
) -> None:
    """Write a whole model that transformers reads; what adapters learned is added to its weights, and they are also
    written by themselves, in peft's format, into its folder "adapter".

    Args:
        base: of the adapters, to be named in their file.
        dtype: of the whole model's weights, for CWM's decoder; None: as they are.
        sums: record checksums of the files, which every later reading compares.
    Raises:
        CheckpointError: it could not be written.
    """
    _save_whole(path, decoder, tokenizer, dtype, sums=sums)
    if has_adapters(decoder):
        with written_whole(path / ADAPTER_FOLDER, sums=sums) as partial:
            save_adapters(partial, decoder, base=base)


def load_exported(path: Path, decoder: AnyDecoder) -> None:
    """Put what ``export`` wrote into a decoder of the same kind and shape. Raises CheckpointError."""
    load_trained(path / ADAPTER_FOLDER if has_adapters(decoder) else path, decoder)


def _save_whole(
    path: Path, decoder: AnyDecoder, tokenizer: Any, dtype: torch.dtype | None = None, *, sums: bool = True
) -> None:
    if isinstance(decoder, HuggingFaceDecoder):
        with written_whole(path, sums=sums) as partial:
            decoder.save(partial, plain_state(decoder) if has_adapters(decoder) else None)
            tokenizer.save_pretrained(partial)
        return
    save_checkpoint(path, decoder, tokenizer, dtype=dtype, sums=sums)
