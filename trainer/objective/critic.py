"""The critic: what reward is still to come, predicted before each sampled token."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...model.attention import Documents, KeyValueCache
from ...model.lora import AnyDecoder, copy_trained


class Critic(nn.Module):
    """One linear map of hidden states, of the policy's or of a decoder of its own. It begins by predicting 0."""

    def __init__(
        self,
        policy: AnyDecoder,
        kind: Literal["head", "shared", "model"],
        *,
        duplicate: Callable[[Any], Any] = copy_trained,
    ) -> None:
        """
        Args:
            kind: "head" reads the policy's hidden states; "shared" too, and its loss trains them; "model" reads those
                of a copy of the policy.
            duplicate: makes that copy.
        """
        super().__init__()
        self._kind, weight = kind, policy.head.weight
        self.trunk = duplicate(policy) if kind == "model" else None
        if self.trunk is not None:
            self.trunk.head.requires_grad_(False)  # nothing reads its logits
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32  # bfloat16 loses small updates
        self.value = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=dtype)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        documents: Documents,
        index: Tensor,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """
        Args:
            hidden: [N, D], the policy's at the scored positions.
            token_ids, documents, cache: [T], of the pack, as ``Decoder.forward``.
            index: [N] int64, the scored positions.
        Returns:
            [N] values, at least float32.
        """
        if self.trunk is not None:
            given = (token_ids, documents) if cache is None else (token_ids, documents, cache)
            hidden = self.trunk(*given).index_select(0, index)
        elif self._kind == "head":
            hidden = hidden.detach()
        return self.value(hidden.to(self.value.weight.dtype)).squeeze(-1)
