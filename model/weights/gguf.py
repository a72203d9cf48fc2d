"""Checkpoints of llama.cpp's format: one file with weights, often quantized, tokenizer and chat template.

transformers reads them through the ``gguf`` package; what it read is written as a folder of safetensors, in which the
families of our decoder and everything else find a checkpoint like any other.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ...errors import CheckpointError, ConfigError
from .folders import written_whole

SUFFIX = ".gguf"


def is_gguf(path: Path) -> bool:
    """Whether a file says by its name that it is one."""
    return path.suffix == SUFFIX and path.is_file()


def convert_gguf(
    source: Path, target: Path, *, dtype: torch.dtype = torch.float32, settings: Mapping[str, Any] | None = None
) -> None:
    """Write a GGUF file as a folder of safetensors with its tokenizer and chat template.

    Quantized weights are computed in float32 and rounded once, to ``dtype``. Memory: twice the model in float32.

    Args:
        target: a folder that does not exist yet.
        settings: of its verigym.json, see ``chat.settings.CheckpointSettings``.
    Raises:
        ConfigError: the target exists, or the package ``gguf`` is not installed.
        CheckpointError: the file is cut, broken, or of an architecture or a quantization that cannot be read.
    """
    if target.exists():
        raise ConfigError(f"{target} exists; give a new folder")
    _check(source)
    model, tokenizer = _read(source, dtype)
    with written_whole(target) as partial:
        # What is saved is no longer quantized: transformers would refuse to write it, and later to read it so.
        model.hf_quantizer, model.is_quantized = None, False
        config = copy.deepcopy(model.config)
        vars(config).pop("quantization_config", None)
        vars(config).pop("_name_or_path", None)
        model.config = config
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _end_with(partial, tokenizer)
        if settings:
            (partial / "verigym.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def reader_of_gguf(what: str) -> Any:
    """The package ``gguf``. Raises ConfigError where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise ConfigError(f"{what} is read with the package gguf: pip install 'verigym[gguf]'") from None
    return gguf


def _check(source: Path) -> None:
    """Raises ConfigError: no ``gguf``. CheckpointError: the file's own tables cannot be read."""
    gguf = reader_of_gguf(str(source))
    try:
        reader = gguf.GGUFReader(source)
        one_of_each = {tensor.tensor_type: tensor for tensor in reader.tensors}
        field = reader.get_field("general.architecture")
        architecture = None if field is None else field.contents()
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{source} is no whole GGUF file ({error}); copy it anew") from error
    if not one_of_each or architecture is None:
        raise CheckpointError(f"{source} holds no language model's weights; it may be a vocabulary or a projector")
    for kind, tensor in one_of_each.items():
        try:
            gguf.dequantize(tensor.data[:1], kind)
        except NotImplementedError:
            raise CheckpointError(
                f"{source} holds weights of the kind {kind.name}, which cannot be read; take another of its files"
            ) from None


def _read(source: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model and tokenizer of transformers, from a file alone: nothing is fetched."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        model, told = cast("Any", AutoModelForCausalLM).from_pretrained(
            source.parent, **where, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # it raises what its parsers meet: KeyError, plain Exception of the tokenizers library
        raise CheckpointError(f"transformers cannot read {source} ({error}); convert it with llama.cpp") from error
    if lacking := sorted(told["missing_keys"]):  # it gives those random numbers, with a warning
        raise CheckpointError(f"{source} lacks the tensor {lacking[0]} ({len(lacking)} in all); copy it anew")
    return model, tokenizer


def _end_with(folder: Path, tokenizer: Any) -> None:
    """A GGUF file has one end token and no settings of generation; both files say it."""
    path = folder / "generation_config.json"
    row = json.loads(path.read_text()) if path.is_file() else {}
    row.setdefault("eos_token_id", tokenizer.eos_token_id)
    path.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
