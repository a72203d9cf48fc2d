"""Log-probability and entropy of each token: fused, and through the whole matrix of logits; time and memory."""

import torch
from torch import Tensor

from verigym.model.head import token_logprobs

from .timing import Row, measured


def loss_head_rows(device: torch.device, *, smoke: bool) -> list[Row]:
    rows: list[Row] = []
    for num_tokens, width, vocab_size in [(8, 16, 40)] if smoke else [(8192, 6144, 128_256), (16384, 6144, 128_256)]:
        hidden, weight = (
            torch.randn(count, width, device=device, dtype=torch.bfloat16).mul_(0.1).requires_grad_()
            for count in (num_tokens, vocab_size)
        )
        targets = torch.randint(0, vocab_size, (num_tokens,), device=device)
        for name, call in (("ours", token_logprobs), ("unfused", _unfused)):

            def step(call=call, inputs=(hidden, weight), targets=targets) -> tuple[Tensor, ...]:
                logprobs, entropy = call(*inputs, targets)
                return torch.autograd.grad((logprobs + 0.01 * entropy).sum(), inputs)

            rows.append(
                measured(
                    device,
                    step,
                    smoke=smoke,
                    task="loss head, both ways",
                    shape=f"{num_tokens} tokens, {width} x {vocab_size}",
                    name=name,
                    flops=6.0 * num_tokens * width * vocab_size,
                    size=4.0 * (num_tokens + vocab_size) * width,
                )
            )
    return rows


def _unfused(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logp = torch.log_softmax((hidden @ weight.T).float(), dim=-1)
    return logp.gather(1, targets[:, None]).squeeze(1), -(logp.exp() * logp).sum(dim=-1)
