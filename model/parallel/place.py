"""Where a rank stands, and the shards it makes of a decoder."""

from dataclasses import dataclass

import torch

from ..lora import AnyDecoder
from ..shape import Shape
from .layout import Layout, Meshes
from .sharded import give_memory, shard_decoder
from .views import local
from .whole import reshard


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A rank's place.

    Attributes:
        layout: how the ranks split the work.
        meshes: the ranks, and where this one stands.
        device: what this rank computes on.
    """

    layout: Layout
    meshes: Meshes
    device: torch.device

    def empty_decoder(self, shape: Shape) -> AnyDecoder:
        """This rank's shards of a decoder, their numbers yet to be written, without adapters. Every rank must call
        this.

        Raises:
            ConfigError: the layout does not fit the decoder.
        """
        decoder = shape.empty()
        shard_decoder(decoder, self.layout, self.meshes)
        give_memory(decoder, self.device)
        return decoder

    @torch.no_grad()
    def copy(self, decoder: AnyDecoder) -> AnyDecoder:
        """Another decoder with the shards, and the adapters, of one that is sharded."""
        reshard(decoder)
        shape = Shape.of(decoder)
        other = self.empty_decoder(shape)
        shape.adapt(other)
        theirs = decoder.state_dict()
        for name, mine in other.state_dict().items():
            local(mine).copy_(local(theirs[name]))
        return other
