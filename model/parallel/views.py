"""A decoder's parameters, or what belongs to them, under Hugging Face's names; shards stay shards."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from ..decoder import Decoder
from ..lora import AnyDecoder, is_adapter, name_below
from ..weights.converted import named_weights
from ..weights.names import Part, stacks


def views(decoder: AnyDecoder, of: Callable[[Tensor], Tensor | None] = lambda p: p) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, weight) of every weight, sharing memory with the decoder's parameters. Of a model with
    adapters they are the weights below these; of one of transformers the names are those it has in memory.

    Args:
        decoder: whole, or split by ``shard_decoder``; then the views are DTensors of the whole weights.
        of: what to show of each parameter: itself, its gradient, a state of the optimizer. None leaves it out.
    """
    if not isinstance(decoder, Decoder):
        for name, weight in named_weights(decoder.model).items():
            value = None if is_adapter(name) else of(weight)
            if value is not None:
                yield name_below(name), value
        return
    parameters = {name_below(name): weight for name, weight in decoder.named_parameters()}
    for ours, parts in stacks(decoder.config):
        value = of(parameters[ours])
        if value is None:
            continue
        yield from zip((part.hf for part in parts), unstack(value, parts), strict=True)


def local(value: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    return value.to_local() if isinstance(value, DTensor) else value


def unstack(value: Tensor, parts: list[Part]) -> list[Tensor]:
    """The parts of a stacked weight, or of a tensor laid out like it, sharing its memory."""
    if len(parts) == 1:
        return [value]
    rows = [part.shape[0] for part in parts]
    if not isinstance(value, DTensor):
        return list(value.split(rows))
    # The rows are split by the axis "tensor" alone, each part by itself: see ``tensor.split_tensors``.
    ways = [size for size, at in zip(value.device_mesh.shape, value.placements, strict=True) if at == Shard(0)]
    split = ways[0] if ways else 1
    with torch.no_grad():
        locals_ = value.to_local().split([count // split for count in rows])
    return [
        DTensor.from_local(
            local,
            value.device_mesh,
            value.placements,
            run_check=False,
            shape=torch.Size(part.shape),
            stride=(part.shape[1], 1),
        )
        for local, part in zip(locals_, parts, strict=True)
    ]
