"""A moving average of the policy's weights: a teacher that follows it."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...model.lora import AnyDecoder, adapter_weights, has_adapters
from ...model.parallel.views import local
from ...model.parallel.whole import gather_module, spread, spread_module


class Average:
    """A decoder whose trained weights are the average of those that the policy had after each update, of which an
    update forgets the share 1 - decay. It is sharded as the policy is, and shares what the policy does not train."""

    def __init__(self, policy: AnyDecoder, decay: float, duplicate: Callable[[Any], Any]) -> None:
        """
        Args:
            duplicate: makes a copy with trained weights of its own.
        """
        self._trained = [name for name, weight in policy.named_parameters() if weight.requires_grad]
        self._decay = decay
        self.decoder: AnyDecoder = duplicate(policy)
        own = dict(self.decoder.named_parameters())
        for name in self._trained:
            own[name].requires_grad_(False)

    @torch.no_grad()
    def update(self, policy: AnyDecoder) -> None:
        """Move towards the weights of now."""
        mine, theirs = dict(self.decoder.named_parameters()), dict(policy.named_parameters())
        for name in self._trained:
            local(mine[name]).lerp_(local(theirs[name]).to(mine[name].dtype), 1.0 - self._decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Whole tensors on the CPU, of what is averaged. Every rank must call this."""
        if has_adapters(self.decoder):
            return {name: one.detach().to("cpu", copy=True) for name, one in adapter_weights(self.decoder).items()}
        assert isinstance(self.decoder, nn.Module)
        return gather_module(self.decoder)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over rank 0's. Every rank must call this."""
        if not has_adapters(self.decoder):
            spread_module(state, self.decoder)
            return
        for name, weight in adapter_weights(self.decoder).items():
            spread(state[name], weight)
