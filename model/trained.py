"""Saving and loading whatever is trained: our decoder or a model of transformers, whole or as adapters."""

import shutil
from pathlib import Path
from typing import Any

import torch

from .checkpoint import load_weights, save_checkpoint, save_settings
from .huggingface import HuggingFaceDecoder, empty_model
from .lora import AnyDecoder, adapter_weights, has_adapters, load_adapters, plain_state, save_adapters
from .weights.checksums import check_sums
from .weights.convert import copy_companions, name_dtype, stream
from .weights.converted import read_weights, write_weights
from .weights.folders import written_whole
from .weights.sources import DCP_METADATA

ADAPTER_FOLDER = "adapter"
PIECES = "model."
"""Prefix of what is trained in what ranks have written."""


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
        _load_adapters(Path(path), decoder)
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


def save_beside(folder: Path, decoder: AnyDecoder, tokenizer: Any, dtype: torch.dtype) -> None:
    """Write what a checkpoint has beside its weights, which are of ``dtype``: the configuration, and the tokenizer's
    files. The decoder may be on the meta device. Raises CheckpointError: the tokenizer is not of it."""
    if isinstance(decoder, HuggingFaceDecoder):
        decoder.save_settings(folder, dtype)
        tokenizer.save_pretrained(folder)
    else:
        save_settings(folder, decoder.config, tokenizer, dtype)


def stream_pieces(source: Path, target: Path, decoder: AnyDecoder, *, dtype: torch.dtype | None, sums: bool) -> None:
    """Write a checkpoint anew as transformers has it, a weight (or a layer) at a time, with all that lies beside.

    Args:
        source: of any format, with the weights of a decoder like ``decoder``, which may be on the meta device.
        dtype: of the weights; None: as they are.
    Raises:
        CheckpointError: something is missing or broken, or the disk too small.
    """
    if not isinstance(decoder, HuggingFaceDecoder):
        stream(source, target, dtype=dtype, sums=sums)
        return
    with written_whole(target, sums=sums) as partial:
        copy_companions(source, partial)
        shutil.copyfile(source / "config.json", partial / "config.json")
        if dtype is not None:
            name_dtype(partial / "config.json", dtype)
        plain = empty_model(decoder.config, torch.float32)  # without adapters
        read = read_weights(source, plain)
        write_weights(partial, plain, ((name, one if dtype is None else one.to(dtype)) for name, one in read))
        check_sums(source)


def _load_adapters(path: Path, decoder: AnyDecoder) -> None:
    """Of a folder of peft's, or of what ranks have written, of whom each has them whole."""
    if not (path / DCP_METADATA).is_file():
        load_adapters(path, decoder)
        return
    from .parallel.checkpoint import read_pieces  # it imports sympy, a second of every process

    read_pieces(path, {f"{PIECES}{name}": weight.detach() for name, weight in adapter_weights(decoder).items()})


def _save_whole(
    path: Path, decoder: AnyDecoder, tokenizer: Any, dtype: torch.dtype | None = None, *, sums: bool = True
) -> None:
    if isinstance(decoder, HuggingFaceDecoder):
        with written_whole(path, sums=sums) as partial:
            decoder.save(partial, plain_state(decoder) if has_adapters(decoder) else None)
            tokenizer.save_pretrained(partial)
        return
    save_checkpoint(path, decoder, tokenizer, dtype=dtype, sums=sums)
