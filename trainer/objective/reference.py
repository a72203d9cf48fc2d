"""What a KL term measures the distance to: the weights a stage began with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...model.attention import Documents, KeyValueCache
from ...model.lora import AnyDecoder, adapter_weights, copy_trained, has_adapters, without_adapters
from ...model.parallel.whole import spread


def reference_of(
    decoder: AnyDecoder, duplicate: Callable[[Any], Any] = copy_trained
) -> "AnyDecoder | AdapterReference":
    """The weights of now, for later. A model with adapters needs no copy of itself for that.

    Args:
        duplicate: makes a copy.
    """
    if has_adapters(decoder):
        return AdapterReference(decoder)
    return duplicate(decoder).requires_grad_(False)


class AdapterReference:
    """The base model under the adapters of then: where they had learned nothing yet, the base model alone."""

    def __init__(self, decoder: AnyDecoder) -> None:
        self._decoder = decoder
        self._adapters = {name: weight.detach().clone() for name, weight in adapter_weights(decoder).items()}

    @property
    def decoder(self) -> AnyDecoder:
        """The decoder that the adapters are of."""
        return self._decoder

    @torch.no_grad()
    def score(
        self,
        token_ids: Tensor,
        documents: Documents,
        targets: Tensor,
        temperature: float | Tensor = 1.0,
        *,
        index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``Decoder.score``, without gradients."""
        return self.score_and_states(token_ids, documents, targets, temperature, index=index)[:2]

    @torch.no_grad()
    def score_and_states(
        self,
        token_ids: Tensor,
        documents: Documents,
        targets: Tensor,
        temperature: float | Tensor = 1.0,
        *,
        index: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``Decoder.score_and_states``, without gradients."""
        with self._as_then():
            return self._decoder.score_and_states(token_ids, documents, targets, temperature, index=index, cache=cache)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._adapters)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, weight in self._adapters.items():
            spread(state[name], weight)

    @contextmanager
    def _as_then(self) -> Iterator[None]:
        if not any(weight.any() for name, weight in self._adapters.items() if ".lora_B." in name):
            with without_adapters(self._decoder):
                yield
            return
        weights = adapter_weights(self._decoder)
        now = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            for name, weight in weights.items():
                weight.copy_(self._adapters[name])
            yield
        finally:
            for name, weight in weights.items():
                weight.copy_(now[name])
