"""Divergences of distributions that are there whole, and their gradients by the logits. Shapes as in ``divergence``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Which divergence of student p from teacher q, and over what.

    Attributes:
        beta: 0: forward, KL(q || p). 1: reverse, KL(p || q). Between: the generalized Jensen-Shannon divergence
            beta KL(q || m) + (1 - beta) KL(p || m) with m = (1 - beta) p + beta q (arXiv:2306.13649, equation 1).
        support: None: the whole vocabulary. K: the K likeliest tokens.
        support_of: whose likeliest.
        tail: whether all other tokens are one more outcome, so that nothing is lost of either's probability; without
            it the K are taken as if there were no others.
    """

    beta: float
    support: int | None = None
    support_of: Literal["student", "teacher"] = "student"
    tail: bool = True


def bucket_terms(logp: Tensor, logq: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(divergence [T], pull [T, B]) of log-probabilities of B outcomes, [T, B] each.

    The pull of an outcome is p times the derivative by p of the divergence, up to a multiple of p, which a softmax
    does not feel: by the logit of an outcome the derivative is pull - p x (sum of the pulls).
    """
    if beta == 0.0:
        q = logq.exp()
        return _times_gap(q, logq, logp).sum(-1), q.neg_()
    p = logp.exp()
    if beta == 1.0:
        pull = _times_gap(p, logp, logq)
        return pull.sum(-1), pull
    q = logq.exp()
    # Where both are nearly 0 their mean is rounded to 0: its logarithm is then that of the smallest number, times 0.
    logm = torch.lerp(p, q, beta).clamp_(min=torch.finfo(p.dtype).tiny).log_()
    pull = _times_gap(p, logp, logm).mul_(1.0 - beta)
    return pull.sum(-1).add_(_times_gap(q, logq, logm).sum(-1), alpha=beta), pull


def _times_gap(weight: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """weight x (one - other), and 0 where the weight is: 0 times infinity, or infinity less infinity, is NaN."""
    return (one - other).mul_(weight).nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def _within(top: Tensor, ids: Tensor, whole: Tensor | None, tail: bool) -> Tensor:
    """Log-probabilities of a support's tokens, [T, K], as those of a whole distribution: [T, K + 1] with the tail.

    Args:
        whole: [T, V], from which the tail is summed: one less a sum near 1 would be rounding. None: it is not known.
    """
    if not tail:
        return top - top.logsumexp(dim=-1, keepdim=True)
    if whole is not None:
        rest = whole.scatter(1, ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
    else:
        rest = torch.log(-torch.expm1(top.logsumexp(dim=-1, keepdim=True).clamp(max=-1e-7)))
    return torch.cat((top, rest), dim=-1)


@dataclass(slots=True)
class Block:
    """What the gradient of a block of tokens is made of."""

    logp: Tensor  # [n, V] of the student
    pull: Tensor  # [n, V], or [n, B] of a support
    ids: Tensor | None = None  # [n, K], of a support
    among: Tensor | None = None  # [n, B] log-probabilities of the student within a support

    @property
    def tensors(self) -> list[Tensor]:
        return [one for one in (self.logp, self.pull, self.ids, self.among) if one is not None]


def block_of(logp, logq, ids, top, targets, settings: Divergence) -> tuple[Block, Tensor, Tensor]:
    """(the block, the divergence, the teacher's log-probabilities of the targets).

    Args:
        logp: [n, V] of the student; logq: of the teacher, or None where ``ids``, ``top`` [n, K] are all that is known.
    """
    if logq is not None:
        teacher_logprobs = logq.gather(1, targets[:, None]).squeeze(1)
        if settings.support is None:
            divergence, pull = bucket_terms(logp, logq, settings.beta)
            return Block(logp, pull), divergence, teacher_logprobs
        chooser = logp if settings.support_of == "student" else logq
        ids = chooser.topk(min(settings.support, chooser.shape[1]), dim=-1).indices
        top = logq.gather(1, ids)
    else:
        here = ids == targets[:, None]
        teacher_logprobs = torch.where(here, top, -torch.inf).amax(dim=-1)
        teacher_logprobs = teacher_logprobs.masked_fill(~here.any(dim=-1), torch.nan)
    tail = settings.tail and ids.shape[1] < logp.shape[1]
    among = _within(logp.gather(1, ids), ids, logp, tail)
    divergence, pull = bucket_terms(among, _within(top, ids, logq, tail), settings.beta)
    return Block(logp, pull, ids, among), divergence, teacher_logprobs


def by_logits(block: Block, targets: Tensor, entropy: Tensor, by: Sequence[Tensor | None], tail: bool) -> Tensor:
    """[n, V], from the gradients by log-probabilities, entropy and divergence, [n, 1] each, as ``entropy``, or None."""
    by_logprobs, by_entropy, by_divergence = by
    p = block.logp.exp()
    out, shared = None, torch.zeros_like(entropy)
    if by_divergence is not None and block.ids is None:
        out, shared = block.pull * by_divergence, block.pull.sum(dim=-1, keepdim=True) * -by_divergence
    if by_logprobs is not None:
        shared = shared - by_logprobs
    out = p * shared if out is None else out.addcmul_(p, shared)
    if by_entropy is not None:
        out.addcmul_((block.logp + entropy).mul_(by_entropy), p, value=-1.0)
    if by_logprobs is not None:
        out.scatter_add_(1, targets[:, None], by_logprobs)
    if by_divergence is not None and block.ids is not None:
        _add_pull(out, p, block, by_divergence, tail)
    return out


def _add_pull(out: Tensor, p: Tensor, block: Block, grad: Tensor, tail: bool) -> None:
    """Add the gradient by the logits, [n, V], of a support's divergence to ``out``. ``p`` is used up."""
    assert block.ids is not None
    assert block.among is not None
    total, count = block.pull.sum(dim=-1, keepdim=True), block.ids.shape[1]
    if tail and block.among.shape[1] > count:
        # Every other token shares the tail's derivative, pull / p of the tail.
        rest = block.pull[:, count:] / block.among[:, count:].exp().clamp(min=torch.finfo(p.dtype).tiny)
        own = block.pull[:, :count] - p.gather(1, block.ids) * total
        out.scatter_add_(1, block.ids, grad * own)
        out.addcmul_(p.scatter_(1, block.ids, 0.0), grad * (rest - total))
        return
    out.scatter_add_(1, block.ids, grad * (block.pull - block.among.exp() * total))
