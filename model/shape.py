"""A decoder without its numbers: what goes to a process that makes one like it."""

from dataclasses import dataclass, field
from typing import Any

import torch

from .attention import Backend
from .config import DecoderConfig
from .decoder import Decoder
from .huggingface import HuggingFaceDecoder, empty_model
from .lora import AnyDecoder, adapter_settings, add_adapters


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    Attributes:
        config: of this package's decoder, or of a model of transformers.
        dtype: of the weights, but for adapters, which have float32.
        attention: what that of this package's decoder runs on.
        num_ids: that the tokenizer of a model of transformers knows; None: all.
        adapters: arguments of ``add_adapters``; None: there are none.
    """

    config: Any
    dtype: torch.dtype
    attention: Backend = "auto"
    num_ids: int | None = None
    adapters: dict[str, Any] | None = field(default=None)

    @classmethod
    def of(cls, decoder: AnyDecoder, dtype: torch.dtype | None = None) -> "Shape":
        """
        Args:
            dtype: in the place of the decoder's own.
        """
        dtype = dtype or decoder.head.weight.dtype
        adapters = adapter_settings(decoder)
        if isinstance(decoder, Decoder):
            return cls(config=decoder.config, dtype=dtype, attention=decoder.attention, adapters=adapters)
        return cls(config=decoder.config, dtype=dtype, num_ids=decoder.num_ids, adapters=adapters)

    def empty(self) -> AnyDecoder:
        """A decoder of this shape on the meta device, without adapters. Raises ConfigError: it cannot be trained."""
        if isinstance(self.config, DecoderConfig):
            with torch.device("meta"):
                decoder = Decoder(self.config).to(self.dtype)
            decoder.use_attention(self.attention)
            return decoder
        other = HuggingFaceDecoder(empty_model(self.config, self.dtype))
        other.num_ids = self.num_ids
        return other

    def adapt(self, decoder: AnyDecoder) -> None:
        """Put the adapters of this shape into a decoder that has its weights, whole or sharded."""
        if self.adapters is not None:
            add_adapters(decoder, **self.adapters)
