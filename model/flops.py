"""How much work a model's matrix products and attention are: exact, by kind of layer, whatever computes them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .decoder import Decoder
from .huggingface import HuggingFaceDecoder
from .lora import AnyDecoder
from .plan.attention import num_pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Of a model, in floating-point operations; a multiply-add is two.

    Attributes:
        matrices: elements of the layers' matrices, which every token meets.
        trained: those of them that learn: with adapters only theirs.
        head: elements of the head, which only scored tokens meet.
        head_trained: whether it learns.
        channels: query heads times channels a head.
        windows: of each layer; None where a token sees all before it.
    """

    matrices: int
    trained: int
    head: int
    head_trained: bool
    channels: int
    windows: tuple[int | None, ...]

    def forward(self, lengths: Sequence[int], num_scored: int) -> int:
        """Of one pass over documents, ``num_scored`` of whose tokens meet the vocabulary: 2 for each element and token,
        and 4 for each channel and query-key pair that causality and the window leave."""
        return 2 * self.matrices * sum(lengths) + 2 * self.head * num_scored + 4 * self.channels * self._pairs(lengths)

    def update(self, lengths: Sequence[int], num_scored: int) -> int:
        """Of a forward and a backward pass. Backward is as much again for the gradients of the inputs (twice as much in
        attention), and again for those of the matrices that learn. Nothing that is computed twice counts twice."""
        inputs = 2 * self.forward(lengths, num_scored) + 4 * self.channels * self._pairs(lengths)
        return inputs + 2 * self.trained * sum(lengths) + 2 * self.head * num_scored * self.head_trained

    def _pairs(self, lengths: Sequence[int]) -> int:
        """Over all layers."""
        by_window = {window: num_pairs(lengths, lengths, window) for window in set(self.windows)}
        return sum(by_window[window] for window in self.windows)


def work_of(decoder: AnyDecoder) -> Work | None:
    """None for models whose matrices not every token meets (mixtures of experts), which nothing is said of."""
    tables = {id(m.weight) for m in decoder.modules() if isinstance(m, nn.Embedding)} | {id(decoder.head.weight)}
    inner = [p for p in decoder.parameters() if p.dim() >= 2 and id(p) not in tables]
    if any(parameter.dim() > 2 for parameter in inner):
        return None
    if isinstance(decoder, Decoder):
        config = decoder.config
        channels = config.num_heads * config.head_dim
        windows = tuple(config.window_of(layer) for layer in range(config.num_layers))
    else:
        channels, windows = _attention_of(decoder)
    return Work(
        matrices=sum(parameter.numel() for parameter in inner),
        trained=sum(parameter.numel() for parameter in inner if parameter.requires_grad),
        head=decoder.head.weight.numel(),
        head_trained=decoder.head.weight.requires_grad,
        channels=channels,
        windows=windows,
    )


def _attention_of(decoder: HuggingFaceDecoder) -> tuple[int, tuple[int | None, ...]]:
    config = decoder.config.get_text_config()
    heads = config.num_attention_heads
    channels = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # one kind for all
        kinds = ["full_attention" if window is None else "sliding_attention"] * config.num_hidden_layers
    return channels, tuple(window if kind == "sliding_attention" else None for kind in kinds)
