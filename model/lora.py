"""Low-rank adapters, by peft: the model's own weights stay as they are, and small matrices beside them learn.

They sit in a model of transformers, or in CWM's decoder, whose stacked matrices (``qkv``, ``gate_up``) have one pair of
matrices each. On disk they are in peft's format under Hugging Face's names, where the parts of a stack share their
first matrix and split the rows of the second: the same function, which ``PeftModel.from_pretrained`` reads.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from .decoder import Decoder
from .huggingface import HuggingFaceDecoder
from .weights.checksums import check_sums
from .weights.names import stacks

AnyDecoder = Decoder | HuggingFaceDecoder
D = TypeVar("D", bound=nn.Module)

WEIGHTS_FILE = "adapter_model.safetensors"
_NAME = "default"  # peft's, of the only adapter
_PREFIX = "base_model.model."  # peft's, of every name in its files
_SETTINGS = "adapter_settings"
_OURS = ("qkv", "out", "gate_up", "down")


def add_adapters(
    decoder: AnyDecoder,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Put adapters into a decoder and freeze its own weights. The model's outputs are at first what they were. Beside
    weights on the meta device adapters have memory all the same, and no numbers.

    Args:
        rank: rows of the first matrix of each pair.
        alpha: what a pair adds is scaled by alpha / rank.
        dropout: of the adapters' inputs, inside ``dropping`` alone.
        targets: last names of the matrices to adapt; none for all but embeddings and head.
        seed: of the first matrices; the second are 0.
    Raises:
        ConfigError: there is no such matrix, or it is the head or the embeddings.
    """
    from peft import LoraConfig, inject_adapter_in_model

    root = _root(decoder)
    every: list[str] | str = [*_OURS] if isinstance(decoder, Decoder) else "all-linear"
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        target_modules=list(targets) or every,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, root, adapter_name=_NAME)
        except ValueError as error:
            known = sorted({name.rpartition(".")[2] for name, m in root.named_modules() if isinstance(m, nn.Linear)})
            raise ConfigError(
                f"lora.targets {list(targets)} cannot be adapted; there are {', '.join(known)}"
            ) from error
    embeddings = decoder.embed if isinstance(decoder, Decoder) else root.get_input_embeddings()  # type: ignore
    if any(layer is one for layer in _layers(root).values() for one in (decoder.head, embeddings)):
        raise ConfigError(f"lora.targets are {list(targets)}: head and embeddings stay as they are; leave them out")
    stacked = [name for name, layer in _layers(root).items() if type(layer).__name__ == "ParamWrapper"]
    if stacked:
        raise ConfigError(
            f"{stacked[0]} holds the matrices of many experts in one weight, and adapters of such cannot be exported; "
            "name matrices that stand alone in lora.targets, such as q_proj, v_proj, o_proj"
        )
    if decoder.head.weight.is_meta:  # small beside what is not here, and others tell their numbers
        for layer in _layers(root).values():
            for one in (layer.lora_A, layer.lora_B):
                one.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in adapter_weights(decoder).values():
            parameter.data = parameter.data.float()  # small updates are lost in the base's bfloat16
    root.eval()
    setattr(decoder, _SETTINGS, {"rank": rank, "alpha": alpha, "dropout": dropout, "targets": targets, "seed": seed})


def adapter_settings(decoder: nn.Module) -> dict[str, Any] | None:
    """What ``add_adapters`` was told; None where it was not called."""
    return getattr(decoder, _SETTINGS, None)


def has_adapters(decoder: nn.Module) -> bool:
    """Whether ``add_adapters`` was called on it."""
    return hasattr(_root(decoder), "peft_config")


def adapter_weights(decoder: AnyDecoder) -> dict[str, nn.Parameter]:
    """Name in the model -> matrix, of all adapters."""
    return {name: parameter for name, parameter in _root(decoder).named_parameters() if is_adapter(name)}


def is_adapter(name: str) -> bool:
    """Whether that is the name of an adapter's matrix."""
    return ".lora_" in name


def name_below(name: str) -> str:
    """Of a weight, as the model without adapters has it."""
    return name.replace(".base_layer.", ".")


@contextmanager
def without_adapters(decoder: AnyDecoder) -> Iterator[None]:
    """Inside, the model is the one the adapters were put into."""
    layers = _layers(_root(decoder)).values()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def dropping(decoder: nn.Module) -> Iterator[None]:
    """Inside, the adapters' dropout is on. Nothing happens without adapters."""
    layers = list(_layers(_root(decoder)).values()) if has_adapters(decoder) else []
    for layer in layers:
        layer.lora_dropout.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.lora_dropout.eval()


def copy_trained(decoder: D) -> D:
    """A copy with trained weights of its own. Frozen ones are shared: with adapters they are nearly all."""
    frozen = {id(one): one for one in (*decoder.parameters(), *decoder.buffers()) if not one.requires_grad}
    return copy.deepcopy(decoder, frozen)


@torch.no_grad()
def copy_weights(source: AnyDecoder, into: nn.Module) -> None:
    """Give a copy that ``copy_trained`` made, or the model of transformers in one, the trained weights of now."""
    theirs = dict(_root(into).named_parameters())
    for name, weight in _root(source).named_parameters():
        if weight.requires_grad:
            theirs[name].copy_(weight)


def plain_state(decoder: AnyDecoder) -> dict[str, Tensor]:
    """The state dict of the model without adapters, with what they learned added to the weights."""
    root = _root(decoder)
    if not has_adapters(decoder):
        return dict(root.state_dict())
    layers = _layers(root)
    state: dict[str, Tensor] = {}
    for name, tensor in root.state_dict().items():
        if is_adapter(name):
            continue
        owner, _, last = name.rpartition(".")
        owner = owner.removesuffix(".base_layer")
        if owner in layers and last == "weight":
            delta = layers[owner].get_delta_weight(_NAME)
            tensor = (tensor.float() + delta.float()).to(tensor.dtype)
        state[f"{owner}.{last}" if owner else last] = tensor.detach()
    return state


def additions(decoder: AnyDecoder) -> dict[str, Callable[[tuple[slice, ...] | None], Tensor]]:
    """Hugging Face's name of a weight -> what gives, in float32, what adapters add to a block of it (None: to all)."""
    found = _exported(decoder)
    layers = _layers(_root(decoder))
    scale = next(iter(layers.values())).scaling[_NAME]
    added = {}
    for name, first in found.items():
        owner, is_first, _ = name.removeprefix(_PREFIX).partition(".lora_A.weight")
        if is_first:
            flipped = bool(getattr(layers.get(owner), "fan_in_fan_out", False))  # as GPT-2 has its matrices
            second = found[f"{_PREFIX}{owner}.lora_B.weight"]
            added[f"{owner}.weight"] = partial(_added, first, second, scale, flipped)
    return added


@torch.no_grad()
def _added(first: Tensor, second: Tensor, scale: float, flipped: bool, block: tuple[slice, ...] | None) -> Tensor:
    rows, columns = (slice(None), slice(None)) if block is None else block
    if flipped:
        return (second[columns].float() @ first[:, rows].float()).T * scale
    return second[rows].float() @ first[:, columns].float() * scale


def save_adapters(path: Path | str, decoder: AnyDecoder, *, base: Path | str | None = None) -> None:
    """Write the adapters into the folder ``path`` in peft's format.

    Args:
        base: of the model they are for, to be named in ``adapter_config.json``.
    """
    Path(path).mkdir(parents=True, exist_ok=True)
    known: Any = _root(decoder).peft_config
    config = copy.copy(known[_NAME])
    config.base_model_name_or_path = None if base is None else str(base)
    config.inference_mode = True
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in _exported(decoder).items()}
    config.target_modules = sorted({name.split(".lora_")[0].rpartition(".")[2] for name in tensors})
    (Path(path) / "adapter_config.json").write_text(_json(config.to_dict()), encoding="utf-8")
    save_file(tensors, Path(path) / WEIGHTS_FILE, metadata={"format": "pt"})


def load_adapters(path: Path | str, decoder: AnyDecoder) -> None:
    """Read adapters of the same rank and targets into a decoder that has some.

    Raises:
        CheckpointError: the file is missing, broken, or of other adapters; nothing is changed.
    """
    file = Path(path) / WEIGHTS_FILE
    check_sums(path)
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the adapters at {file} cannot be read ({error}); take another checkpoint") from error
    expected = _exported(decoder)
    for name in sorted(found.keys() | expected.keys()):
        shapes = [tuple(side[name].shape) if name in side else None for side in (found, expected)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{file} has {name} as {shapes[0]}, the model as {shapes[1]}; use the rank and targets of then"
            )
    with torch.no_grad():
        for name, rows in _gathered(decoder, found).items():
            _root(decoder).get_parameter(name).copy_(rows)


def _exported(decoder: AnyDecoder) -> dict[str, Tensor]:
    """By the names of peft's files for the Hugging Face model."""
    if isinstance(decoder, HuggingFaceDecoder):
        weights = adapter_weights(decoder)
        return {_PREFIX + name.replace(f".{_NAME}.", "."): weight for name, weight in weights.items()}
    found = {}
    for parts, first, second in _stacked(decoder):
        pieces = decoder.get_parameter(second).split([part.shape[0] for part in parts])
        for part, piece in zip(parts, pieces, strict=True):
            owner = _PREFIX + part.hf.removesuffix(".weight")
            found |= {f"{owner}.lora_A.weight": decoder.get_parameter(first), f"{owner}.lora_B.weight": piece}
    return found


def _gathered(decoder: AnyDecoder, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names in the model: the inverse of ``_exported``."""
    if isinstance(decoder, HuggingFaceDecoder):
        return {name: tensors[_PREFIX + name.replace(f".{_NAME}.", ".")] for name in adapter_weights(decoder)}
    found = {}
    for parts, first, second in _stacked(decoder):
        owners = [_PREFIX + part.hf.removesuffix(".weight") for part in parts]
        shared = [tensors[f"{owner}.lora_A.weight"] for owner in owners]
        if not all(torch.equal(shared[0], one) for one in shared):
            raise CheckpointError(
                f"the adapters of {owners[0]} and {owners[1]} have first matrices of their own, and CWM's decoder has "
                "one for both; load them into the Hugging Face model"
            )
        found |= {first: shared[0], second: torch.cat([tensors[f"{owner}.lora_B.weight"] for owner in owners])}
    return found


def _stacked(decoder: Decoder) -> Iterator[tuple[list[Any], str, str]]:
    """(parts of the stack, names of the two matrices) of each adapted matrix of CWM's decoder."""
    layers = _layers(decoder)
    for name, parts in stacks(decoder.config):
        owner = name.removesuffix(".weight")
        if owner in layers:
            yield parts, f"{owner}.lora_A.{_NAME}.weight", f"{owner}.lora_B.{_NAME}.weight"


def _root(decoder: nn.Module) -> nn.Module:
    """The module that peft knows."""
    return decoder.model if isinstance(decoder, HuggingFaceDecoder) else decoder


def _layers(root: nn.Module) -> dict[str, Any]:
    """Name -> peft's layer around an adapted matrix."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in root.named_modules() if isinstance(module, LoraLayer)}


def _json(values: Mapping[str, Any]) -> str:
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    return json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n"
