"""Weights under the names that a model of transformers has in memory, from files and back to them.

Files may have other names than the model, or hold in many tensors what it has in one (each expert by itself, where the
model has one matrix of all): transformers' own table of conversions says how. It is applied a tensor at a time here, so
that a process that has a part of the model never has more than one weight of it whole.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...errors import CheckpointError
from .sources import DCP_METADATA, INDEX, WEIGHTS, Block, Source, source_of
from .writers import SHARD_BYTES

_OF_A_LAYER = re.compile(r"^.*?\.\d+\.")
_PARTIAL = ".part-{:05d}.safetensors"


def named_weights(model: Any) -> dict[str, Tensor]:
    """Everything that a checkpoint of a model of transformers holds, once each: what is tied has its first name."""
    found, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def read_weights(
    folder: Path, model: Any, blocks: Mapping[str, Block | None] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """(name in the model, weight) of everything in ``named_weights``, one at a time.

    Args:
        folder: of safetensors, or of torch's distributed format under the model's own names.
        model: of transformers; its shape alone is looked at, it may be on the meta device.
        blocks: by name, what is read of each weight; None: all of all.
    Raises:
        CheckpointError: something is missing, cut, of another shape, or not finite.
    """
    source = source_of(folder)
    known = _first_names(model)
    wanted = dict.fromkeys(named_weights(model)) if blocks is None else dict(blocks)
    plain, converted = _planned(source, model)
    seen = set()
    for name, key in plain.items():
        name = known[name]
        if name in wanted and name not in seen:
            seen.add(name)
            yield name, _finite(source.read(key, wanted[name]), folder, key)
    for first, (converter, keys) in converted.items():
        for key, pattern in keys:
            converter.add_tensor(first, key, pattern, source.read(key))
        for name, value in converter.convert(first, model=model, config=model.config).items():
            name, value = known[name], value[0] if isinstance(value, list) else value
            _check_shape(folder, name, tuple(value.shape), tuple(model.state_dict()[name].shape))
            seen.add(name)
            if name in wanted:
                block = wanted[name]
                yield name, _finite(value if block is None else value[block].clone(), folder, name)
    lacking = [name for name in wanted if name not in seen]
    if lacking:
        raise CheckpointError(f"{folder} lacks the tensor {lacking[0]} ({len(lacking)} in all); copy it anew")


def write_weights(
    folder: Path, model: Any, weights: Iterable[tuple[str, Tensor]], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write safetensors as the model's checkpoints have them, files of at most ``shard_bytes`` or one layer.

    Args:
        model: of transformers, whose shape alone is looked at.
        weights: under ``named_weights``' names; neighbours of one layer are held at a time.
    """
    from transformers.core_model_loading import revert_weight_conversion

    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = 0

    def flush() -> None:
        nonlocal shard
        save_file(shard, folder / _PARTIAL.format(len(shards)), metadata={"format": "pt"})
        shards.append(list(shard))
        shard = {}

    for layer in _by_layer(weights):
        found = revert_weight_conversion(model, layer)
        size = sum(value.nbytes for value in found.values())
        if shard and sum(value.nbytes for value in shard.values()) + size > shard_bytes:
            flush()
        shard |= {name: value.detach().contiguous().clone() for name, value in found.items()}
        total += size
    flush()
    where = {}
    for number, names in enumerate(shards):
        last = len(shards) == 1
        name = WEIGHTS if last else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / _PARTIAL.format(number)).rename(folder / name)
        where |= dict.fromkeys(names, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _first_names(model: Any) -> dict[str, str]:
    """Every name of the model's state -> the first of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(one), name) for name, one in model.state_dict(keep_vars=True).items()}


def _planned(source: Source, model: Any) -> tuple[dict[str, str], dict[str, tuple[Any, list[tuple[str, str]]]]]:
    """({name in the model: name in the files}, {first name that a conversion gives: (it, [(name in the files, the
    pattern it meets)])}). Raises CheckpointError for a weight of another shape."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    state = model.state_dict()
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    ours = (source.folder / DCP_METADATA).is_file()
    mapping = [] if ours else get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    plain: dict[str, str] = {}
    converted: dict[str, tuple[Any, list[tuple[str, str]]]] = {}
    for key in sorted(source.shapes, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
        if name not in shapes:  # it has the model's own name, or one without the model's prefix
            name, pattern = rename_source_key(key, [], [], model.base_model_prefix, state)
        if name not in shapes:
            continue  # as transformers, which leaves it
        if pattern is None:
            _check_shape(source.folder, name, source.shapes[key], shapes[name])
            plain[name] = key
        else:
            converted.setdefault(name, (copy.deepcopy(by_pattern[pattern]), []))[1].append((key, pattern))
    return plain, converted


def _check_shape(folder: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise CheckpointError(
            f"{folder}: {name} has shape {list(found)}, but config.json asks for {list(expected)}; copy it anew"
        )


def _finite(value: Tensor, folder: Path, name: str) -> Tensor:
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise CheckpointError(f"{folder}: {name} holds NaN or infinity; take an earlier checkpoint")
    return value


def _by_layer(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Neighbours of one layer together, all others alone: no conversion joins weights of two layers."""
    layer: str | None = None
    group: dict[str, Tensor] = {}
    for name, value in weights:
        match = _OF_A_LAYER.match(name)
        own = None if match is None else match.group()
        if group and (own is None or own != layer):
            yield group
            group = {}
        layer = own
        group[name] = value
    if group:
        yield group


@torch.no_grad()
def copy_into(folder: Path, model: Any) -> None:
    """Copy a checkpoint's weights into a whole model. Raises CheckpointError as ``read_weights``."""
    state = named_weights(model)
    for name, value in read_weights(folder, model):
        state[name].copy_(value)
