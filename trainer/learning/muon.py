"""Muon in the arithmetic that the processor is fast at."""

import math
from typing import Any

import torch
from torch import Tensor

from ...model.arithmetic import suited


class Muon(torch.optim.Muon):
    """torch's Muon, whose Newton-Schulz iteration is in bfloat16; where that is slow, the same in float32.

    Settings and state are torch's.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None, "the gradients are there already"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter.grad)
        momentum = state["momentum_buffer"]
        momentum.lerp_(parameter.grad, 1 - group["momentum"])
        update = parameter.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        dtype = suited(torch.bfloat16, parameter.device)
        update = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"], dtype)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * _scale(parameter.shape, group["adjust_lr_fn"]))


def orthogonalized(
    matrix: Tensor, coefficients: tuple[float, float, float], num_steps: int, eps: float, dtype: torch.dtype
) -> Tensor:
    """Nearly U V^T of a matrix U S V^T, by Newton-Schulz iterations.

    Args:
        matrix: [A, B].
        coefficients: a, b, c of x -> a x + b x^3 + c x^5 on the singular values.
        eps: the least norm to divide by.
        dtype: of all products.
    Returns:
        [A, B] of ``dtype``.
    Source: kellerjordan.github.io/posts/muon.
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=eps)
    for _ in range(num_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _scale(shape: torch.Size, kind: str | None) -> float:
    rows, columns = shape
    if kind == "match_rms_adamw":  # arXiv:2502.16982
        return 0.2 * math.sqrt(max(rows, columns))
    assert kind in (None, "original"), kind
    return math.sqrt(max(1.0, rows / columns))
