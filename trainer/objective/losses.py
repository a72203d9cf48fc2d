"""Losses as per-token components. The step weights and sums them over the global token count.

Every function takes only the trained tokens, [N]: the step gathers them before the vocabulary projection, so no
component of an observation exists, and no NaN log-probability of one can reach a gradient. What is of a whole sequence
(its ratio) stands at each of its tokens.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from .surrogates import MAX_LOG_RATIO, TokenLoss, clipped_surrogate, masked_surrogate, weighted_log_likelihood
from .taught import Taught


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTokens:
    """What is known of the trained tokens before the forward pass.

    Attributes:
        old_logprobs: [N] float32, nats, as sampled; NaN where nothing was sampled (demonstrations).
        advantages: [N] float32, unitless.
        lengths: trained tokens of each document, in order; they sum to N. None: all are one document's.
        anchor_logprobs: [N] nats, under the trainer's weights before the step; None: the sampler's stand for them.
        reference_logprobs: [N] nats, under the reference; None without one.
        old_values, returns: [N], the critic's before the step, and what it should have said; None without a critic.
        clip_low, clip_high: [N], of each token's family, in place of the loss's own; None: the loss's for all.
        teacher_weight: [N], of the divergence from a teacher; None: 1.
        contrast: [N], whose product with a quantity, weighted as the loss is, sums to what tokens of episodes that
            passed have more of it than those that did not; None without such groups.
    """

    old_logprobs: Tensor
    advantages: Tensor
    lengths: Tensor | None = None
    anchor_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    old_values: Tensor | None = None
    returns: Tensor | None = None
    clip_low: Tensor | None = None
    clip_high: Tensor | None = None
    teacher_weight: Tensor | None = None
    contrast: Tensor | None = None

    def over_document(self, values: Tensor, reduce: Literal["sum", "mean"]) -> Tensor:
        """[N] sum or mean of the values of each token's document, at each of its tokens."""
        lengths = self.lengths if self.lengths is not None else torch.tensor([values.numel()], device=values.device)
        # The sum is in order, so it is the same in every run; scattered additions on a GPU are not.
        totals = torch.segment_reduce(values, reduce, lengths=lengths)
        return totals.repeat_interleave(lengths, output_size=values.numel())


class Loss(Protocol):
    """What a training step minimizes."""

    def __call__(
        self,
        logprobs: Tensor,
        entropy: Tensor,
        tokens: TrainedTokens,
        values: Tensor | None = None,
        taught: Taught | None = None,
    ) -> TokenLoss:
        """
        Args:
            logprobs: [N] of the trained tokens under the model, nats, at the temperature of their sampling.
            entropy: [N] of the distributions they were drawn from, nats.
            values: [N] of a critic; None without one.
            taught: what teachers say; None where they are not asked in the step.
        """
        ...


def kl_estimate(logprobs: Tensor, reference: Tensor, estimator: Literal["k1", "k2", "k3"]) -> Tensor:
    """[N] single-sample estimates, nats, of KL(policy || reference) for tokens that the policy drew.

    Source: joschu.net/blog/kl-approx.
    """
    gap = (logprobs - reference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if estimator == "k1":
        return gap
    return 0.5 * gap.square() if estimator == "k2" else torch.expm1(-gap) + gap


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """[N] half squared errors; with a clip the larger of that of the value and of the value kept within ``clip`` of
    the old one, as in the code of PPO (arXiv:2005.12729, section 3)."""
    error = (values - returns).square()
    if clip is not None:
        near = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (near - returns).square())
    return 0.5 * error


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Importance weights of the trainer's distribution before the step over the sampler's; see CorrectionConfig."""

    kind: Literal["truncate", "mask"]
    level: Literal["token", "sequence"]
    cap: float
    floor: float = 0.0

    @torch.no_grad()
    def weights(self, tokens: TrainedTokens) -> Tensor:
        """[N]."""
        assert tokens.anchor_logprobs is not None, "a correction compares with the trainer's log-probabilities"
        gap = tokens.anchor_logprobs - tokens.old_logprobs
        if self.level == "sequence":
            gap = tokens.over_document(gap, "sum")
        weights = gap.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        if self.kind == "truncate":
            return weights.clamp(max=self.cap)
        return torch.where((weights >= self.floor) & (weights <= self.cap), weights, torch.zeros_like(weights))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """A policy gradient's loss: correction x surrogate + KL - entropy bonus + value loss.

    Attributes:
        clip_low, clip_high: see ``clipped_surrogate``.
        ratio: of a "token", or of its sequence: the geometric mean of its tokens' ratios or their product.
        max_weight: CISPO's; the surrogate is then ``weighted_log_likelihood``, and the clips are unused. Of DPPO the
            largest ratio.
        divergence: DPPO's; the surrogate is then ``masked_surrogate`` from what the sampler said, bounded by the clips.
        entropy_coef, kl_coef, value_coef: weights; 0 leaves the part out.
        kl_estimator: see ``kl_estimate``.
        value_clip: see ``value_loss``.
        correction: None corrects nothing.
        max_divergence: largest divergence of a token from its teacher, nats; None bounds none.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    ratio: Literal["token", "sequence_mean", "sequence_product"] = "token"
    max_weight: float | None = None
    divergence: Literal["tv", "kl"] | None = None
    entropy_coef: float = 0.0
    kl_coef: float = 0.0
    kl_estimator: Literal["k2", "k3"] = "k3"
    value_coef: float = 0.0
    value_clip: float | None = None
    correction: Correction | None = None
    max_divergence: float | None = None

    def __call__(
        self,
        logprobs: Tensor,
        entropy: Tensor,
        tokens: TrainedTokens,
        values: Tensor | None = None,
        taught: Taught | None = None,
    ) -> TokenLoss:
        """Metrics, beside the surrogate's: "entropy", "approx_kl" (k3 of KL(old || new) by token), "sampler_weight" (of
        the new over the sampler's, by token) and its square, and "kl", "correction", "value_loss" where there is one;
        maxima "logprob_gap" = |logprobs - old_logprobs|."""
        old = tokens.old_logprobs if tokens.anchor_logprobs is None else tokens.anchor_logprobs
        gap = logprobs - old
        if self.ratio != "token":
            log_ratio = tokens.over_document(gap, "mean" if self.ratio == "sequence_mean" else "sum")
        else:
            log_ratio = gap
        surrogate = self._surrogate(logprobs, log_ratio, tokens)
        components, metrics = surrogate.components, dict(surrogate.metrics)
        if taught is not None:
            components = components + self._divergence(taught, tokens)
            metrics |= taught.metrics(logprobs, tokens.contrast)
        if self.correction is not None:
            metrics["correction"] = self.correction.weights(tokens)
            components = components * metrics["correction"]
        if self.kl_coef:
            assert tokens.reference_logprobs is not None, "a KL term needs the reference's log-probabilities"
            kl = kl_estimate(logprobs, tokens.reference_logprobs, self.kl_estimator)
            components = components + self.kl_coef * kl
            metrics["kl"] = kl.detach()
        if self.entropy_coef:
            components = components - self.entropy_coef * entropy
        if self.value_coef:
            assert values is not None, "a value loss needs a critic"
            assert tokens.old_values is not None
            assert tokens.returns is not None
            errors = value_loss(values, tokens.old_values, tokens.returns, self.value_clip)
            components = components + self.value_coef * errors
            metrics["value_loss"] = errors.detach()
        with torch.no_grad():
            bounded = gap.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
            metrics |= {"approx_kl": torch.expm1(bounded) - bounded, "entropy": entropy.detach()}
            sampler_gap = logprobs - tokens.old_logprobs
            weight = sampler_gap.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
            metrics |= {"sampler_weight": weight, "sampler_weight_squared": weight.square()}
            maxima = {"logprob_gap": sampler_gap.abs()}
        return TokenLoss(components=components, metrics=metrics, maxima=maxima)

    def _surrogate(self, logprobs: Tensor, log_ratio: Tensor, tokens: TrainedTokens) -> TokenLoss:
        low = self.clip_low if tokens.clip_low is None else tokens.clip_low
        high = self.clip_high if tokens.clip_high is None else tokens.clip_high
        if self.divergence is not None:
            assert self.max_weight is not None, "a masked surrogate bounds its ratio"
            return masked_surrogate(
                logprobs, tokens.old_logprobs, tokens.advantages,
                kind=self.divergence, low=low, high=high, max_ratio=self.max_weight,
            )  # fmt: skip
        if self.max_weight is not None:
            return weighted_log_likelihood(logprobs, log_ratio, tokens.advantages, max_weight=self.max_weight)
        return clipped_surrogate(log_ratio, tokens.advantages, clip_low=low, clip_high=high)

    def _divergence(self, taught: Taught, tokens: TrainedTokens) -> Tensor:
        """[N] what the distance to the teachers adds."""
        divergence = taught.divergence
        if self.max_divergence is not None:
            divergence = divergence.clamp(max=self.max_divergence)
        return divergence if tokens.teacher_weight is None else tokens.teacher_weight * divergence


def echo_loss(logprobs: Tensor, weights: Tensor, count: Tensor | float) -> Tensor:
    """Cross-entropy of observations beside a policy's loss: what the model expected the environment to answer.

    It is a sum of its own over a count of its own, so that neither the number of observations nor their weights change
    what the sampled tokens' loss is divided by.

    Args:
        logprobs: [M] nats, of observed tokens, at temperature 1.
        weights: [M] > 0, of each one's role.
        count: observed tokens with a weight, of the whole step, over all microbatches and ranks.
    Returns:
        scalar, the sum of -weight x logprob / count.
    """
    return -torch.dot(weights.to(logprobs.dtype), logprobs) / count


def sft_loss(
    logprobs: Tensor,
    entropy: Tensor,
    tokens: TrainedTokens,
    values: Tensor | None = None,
    taught: Taught | None = None,
) -> TokenLoss:
    """Cross-entropy: minus the log-probability of each demonstrated token, nats."""
    return TokenLoss(components=-logprobs, metrics={"entropy": entropy.detach()})
