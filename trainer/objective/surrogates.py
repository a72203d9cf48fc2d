"""Surrogates of policy gradients, per trained token: what bounds how far a step moves the policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

# Beyond e^20 a ratio says only that something is wrong; infinity times an advantage of 0 would be NaN.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """A loss before aggregation.

    Attributes:
        components: [N]; the step's loss is their weighted mean over all tokens of the step.
        metrics: name -> [N] detached; reported as the same weighted mean.
        maxima: name -> [N] detached; the largest of the step is reported.
    """

    components: Tensor
    metrics: Mapping[str, Tensor]
    maxima: Mapping[str, Tensor] = field(default_factory=dict)


def clipped_surrogate(
    log_ratio: Tensor, advantages: Tensor, *, clip_low: float | Tensor, clip_high: float | Tensor
) -> TokenLoss:
    """The clipped surrogate of PPO, negated, per token.

    Args:
        log_ratio, advantages: [N] float; all finite.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high]; numbers, or [N] each.
    Returns:
        components [N] = -min(r A, clip(r) A) with r = exp(log_ratio); metrics "clipfrac" (clipped on the side the
        advantage pushes to) and "ratio".
    Source: PPO, arXiv:1707.06347; two clips as in DAPO, arXiv:2503.14476.
    """
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)  # type: ignore[arg-type]  # both numbers, or both tensors
    components = -torch.minimum(ratio * advantages, clipped * advantages)
    with torch.no_grad():
        too_low = (ratio < 1.0 - clip_low) & (advantages < 0)
        too_high = (ratio > 1.0 + clip_high) & (advantages > 0)
        metrics = {"clipfrac": (too_low | too_high).to(log_ratio.dtype), "ratio": ratio.detach()}
    return TokenLoss(components=components, metrics=metrics)


def weighted_log_likelihood(logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, *, max_weight: float) -> TokenLoss:
    """CISPO: -min(r, max_weight) A log p, with no gradient through the weight (arXiv:2506.13585).

    Returns:
        components [N]; metrics "clipfrac" (weights cut where the advantage is positive) and "ratio".
    """
    with torch.no_grad():
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        cut = ((ratio > max_weight) & (advantages > 0)).to(logprobs.dtype)
    components = -ratio.clamp(max=max_weight) * advantages * logprobs
    return TokenLoss(components=components, metrics={"clipfrac": cut, "ratio": ratio})


def binary_divergence(logprobs: Tensor, old_logprobs: Tensor, kind: Literal["tv", "kl"]) -> Tensor:
    """[N] how far apart two policies are that only tell the drawn token from all others; a lower bound of the
    divergence over the vocabulary.

    Args:
        logprobs, old_logprobs: [N] of the drawn token under the policy and under what drew it, nats.
        kind: "tv" the total variation, |p - q|, at most 1; "kl" KL(old || new), nats.
    """
    if kind == "tv":
        return (logprobs.exp() - old_logprobs.exp()).abs()
    tiny = torch.finfo(logprobs.dtype).tiny
    other, old_other = (-torch.expm1(one.clamp(max=0.0)) for one in (logprobs, old_logprobs))
    rest = torch.special.xlogy(old_other, old_other.clamp(min=tiny) / other.clamp(min=tiny))
    return old_logprobs.exp() * (old_logprobs - logprobs) + rest


def masked_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    kind: Literal["tv", "kl"],
    low: float | Tensor,
    high: float | Tensor,
    max_ratio: float,
) -> TokenLoss:
    """DPPO: -r A where the policy is near what drew the token, or comes back to it; no gradient elsewhere.

    A ratio moves far where a token is rare and hardly where it is likely, so its clip holds the first kind back and
    lets the second go; the difference of probabilities says how far the distribution has moved.

    Args:
        logprobs, old_logprobs: [N] under the policy and under what drew the tokens, nats.
        kind: see ``binary_divergence``.
        low: largest divergence of a token with a negative advantage whose ratio is below 1; a number, or [N].
        high: of one with a positive advantage whose ratio is above 1.
        max_ratio: a larger ratio stands for this one, without gradient.
    Returns:
        components [N]; metrics "clipfrac" (the share that is masked), "ratio" and "sampler_divergence".
    Source: arXiv:2602.04879, equations 11 to 14.
    """
    ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    with torch.no_grad():
        divergence = binary_divergence(logprobs, old_logprobs, kind)
        too_low = (divergence > low) & (ratio < 1.0) & (advantages < 0)
        too_high = (divergence > high) & (ratio > 1.0) & (advantages > 0)
        masked = (too_low | too_high).to(logprobs.dtype)
    components = -(1.0 - masked) * ratio.clamp(max=max_ratio) * advantages
    metrics = {"clipfrac": masked, "ratio": ratio.detach(), "sampler_divergence": divergence}
    return TokenLoss(components=components, metrics=metrics)
