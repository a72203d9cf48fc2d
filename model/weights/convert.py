"""From Hugging Face's format to torch's distributed one as Meta released it, and back; one weight at a time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..config import DecoderConfig
from ..families.find import write_config
from ..tokenizer import TIKTOKEN_FILE, Tokenizer
from .checksums import check_sums
from .dcp import write_dcp
from .folders import existing, written_whole
from .meta_config import config_to_meta
from .names import Naming, Part, interleave, parts
from .sources import Source, open_source, read_part
from .writers import SHARD_BYTES, Weight, write_safetensors

Format = Literal["hf", "dcp"]
# What lies beside the weights and says nothing about them.
_COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    TIKTOKEN_FILE,
    "verigym.json",
)


def convert(
    source: Path | str,
    target: Path | str,
    *,
    to: Format,
    shard_bytes: int = SHARD_BYTES,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the checkpoint ``source`` anew in another format, bit for bit the same numbers, in their dtype.

    Args:
        to: "hf": safetensors under Hugging Face's names; "dcp": torch's distributed format under Meta's names, with
            their interleaved rows of queries and keys, config.json and, where it can say the layers, params.json.
        shard_bytes: most bytes of one file of safetensors, and so the memory it takes; one weight at least.
        tell: called with (bytes done, bytes in all) after each weight.
    Raises:
        ConfigError: the target exists. CheckpointError: the source is broken, or the disk too small.
    """
    if Path(target).exists():
        raise ConfigError(f"{target} exists; give a new folder")
    stream(source, target, to=to, shard_bytes=shard_bytes, tell=tell)


def stream(
    source: Path | str,
    target: Path | str,
    *,
    to: Format = "hf",
    dtype: torch.dtype | None = None,
    sums: bool = True,
    shard_bytes: int = SHARD_BYTES,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """``convert``, into the place of what is at ``target``.

    Args:
        dtype: of the weights; None: as they are.
        sums: record checksums of the files.
    Raises:
        ConfigError: the format cannot be had. CheckpointError: as ``convert``.
    """
    folder, target = existing(Path(source)), Path(target)
    config, opened = open_source(folder)
    if to == "dcp" and config.family != "cwm":
        raise ConfigError(f"{folder} is a {config.family}: only CWM has a form of Meta's; convert it to 'hf'")
    naming: Naming = "hf" if to == "hf" else "meta"
    weights = [_weight(opened, part, config, naming, dtype) for part in parts(config)]
    total = sum(one.num_bytes for one in weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < total:
        raise CheckpointError(f"{target} needs {total:,} bytes and its disk has {free:,}; free some space")
    counted = _counted(weights, tell, total)
    with written_whole(target, sums=sums) as partial:
        _write_settings(folder, partial, config, opened, to)
        if dtype is not None:
            name_dtype(partial / "config.json", dtype)
        if to == "hf":
            write_safetensors(partial, counted, shard_bytes=shard_bytes)
        else:
            write_dcp(partial, counted)
        check_sums(folder)


def _weight(opened: Source, part: Part, config: DecoderConfig, naming: Naming, dtype: torch.dtype | None) -> Weight:
    wanted = dtype or opened.dtypes[part.name(opened.naming)]

    def make() -> Tensor:
        weight = read_part(opened, part, config.head_dim).to(wanted)
        return interleave(weight, config.head_dim) if naming == "meta" and part.interleaved else weight

    return Weight(name=part.name(naming), shape=part.shape, dtype=wanted, make=make)


def copy_companions(source: Path, target: Path) -> list[str]:
    """Copy what lies beside the weights of a checkpoint, but for its configuration. Returns the names."""
    found = [name for name in _COMPANIONS if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, target / name)
    return found


def name_dtype(path: Path, dtype: torch.dtype) -> None:
    """Say in a config.json of which dtype the weights are."""
    config = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, config | {"dtype": str(dtype).removeprefix("torch.")})


def _counted(weights: list[Weight], tell: Callable[[int, int], None], total: int) -> list[Weight]:
    done = 0

    def counting(one: Weight) -> Weight:
        def make() -> Tensor:
            nonlocal done
            made = one.make()
            done += one.num_bytes
            tell(done, total)
            return made

        return Weight(name=one.name, shape=one.shape, dtype=one.dtype, make=make)

    return [counting(one) for one in weights]


def _write_settings(source: Path, target: Path, config: DecoderConfig, opened: Source, to: Format) -> None:
    found = copy_companions(source, target)
    if to == "hf" and TIKTOKEN_FILE in found and "tokenizer.json" not in found:
        Tokenizer.load(source).save(target)
    if (source / "config.json").is_file():
        shutil.copyfile(source / "config.json", target / "config.json")
    else:
        dtype = str(next(iter(opened.dtypes.values()))).removeprefix("torch.")
        _write_json(target / "config.json", write_config(config) | {"dtype": dtype})
    if to == "dcp":
        params = config_to_meta(config)
        if (source / "params.json").is_file():
            shutil.copyfile(source / "params.json", target / "params.json")
        elif params is not None:
            _write_json(target / "params.json", params)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
