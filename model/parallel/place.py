"""Where a rank stands, and the shards it makes of a decoder."""

from dataclasses import dataclass

import torch

from ..config import DecoderConfig
from ..decoder import Decoder
from .layout import Layout, Meshes
from .sharded import shard_decoder
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

    def empty_decoder(self, config: DecoderConfig, dtype: torch.dtype) -> Decoder:
        """This rank's shards of a decoder, their numbers yet to be written. Every rank must call this.

        Raises:
            ConfigError: the layout does not fit the decoder.
        """
        with torch.device("meta"):
            decoder = Decoder(config).to(dtype)
        shard_decoder(decoder, self.layout, self.meshes)
        return decoder.to_empty(device=self.device)

    @torch.no_grad()
    def copy(self, decoder: Decoder) -> Decoder:
        """Another decoder with the shards of one that is sharded."""
        reshard(decoder)
        other = self.empty_decoder(decoder.config, decoder.head.weight.dtype)
        for mine, theirs in zip(other.parameters(), decoder.parameters(), strict=True):
            mine.to_local().copy_(theirs.to_local())  # pyright: ignore[reportAttributeAccessIssue]
        return other
