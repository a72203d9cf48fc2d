"""Divergences of a student's distributions from a teacher's, straight from hidden states, without [T, V] tensors.

Shapes: T tokens, D width of the student, E of the teacher, V vocabulary, K tokens of a support, B outcomes (K + 1
with the tail).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .attention import Documents, KeyValueCache
from .head import MAX_ELEMENTS, TokenScorer, check_temperature, token_logprobs


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherStates:
    """A teacher's [T, E] hidden states, and its head [V, E]."""

    hidden: Tensor
    weight: Tensor

    def at(self, rows: Tensor) -> "TeacherStates":
        """Of some of the tokens."""
        return TeacherStates(hidden=self.hidden[rows], weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherTop:
    """What a server tells: [T, K] ids of its likeliest tokens and their log-probabilities, nats, at the temperature of
    the student's, over its whole vocabulary."""

    ids: Tensor
    logprobs: Tensor

    def at(self, rows: Tensor) -> "TeacherTop":
        """Of some of the tokens."""
        return TeacherTop(ids=self.ids[rows], logprobs=self.logprobs[rows])


@dataclass(frozen=True, slots=True)
class Compared:
    """[T] each, nats: of the targets under student and teacher, entropy of the student, and the divergence. The
    teacher's has no gradient; it is NaN where a ``TeacherTop`` does not have the target."""

    logprobs: Tensor
    entropy: Tensor
    divergence: Tensor
    teacher_logprobs: Tensor


def compare(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    teacher: TeacherStates | TeacherTop,
    divergence: Divergence,
    temperature: float | Tensor = 1.0,
    *,
    max_elements: int = MAX_ELEMENTS,
) -> Compared:
    """``head.token_logprobs``, and how far the student's distribution is from the teacher's at each token.

    Args:
        hidden_TD, weight_VD, targets_T, temperature: as ``token_logprobs``; both models' logits are divided by it.
        max_elements: most elements of a [tokens, V] matrix at once. Of such matrices a few exist at a time; where
            T x V is more, they are computed again in the backward pass.
    Raises:
        ValueError: a temperature that is not positive, or two vocabularies of different size.
    """
    dtype = torch.float64 if hidden_TD.dtype == torch.float64 else torch.float32
    scale = torch.as_tensor(temperature, dtype=dtype, device=hidden_TD.device).reshape(-1)
    check_temperature(temperature, scale)
    scale = scale.expand(hidden_TD.shape[0])[:, None]
    if isinstance(teacher, TeacherStates):
        if teacher.weight.shape[0] != weight_VD.shape[0]:
            raise ValueError(
                f"the teacher's head knows {teacher.weight.shape[0]} ids and the student's {weight_VD.shape[0]}; cut "
                "the larger one to the ids that both know"
            )
        given = (teacher.hidden.detach(), teacher.weight.detach())
    else:
        given = (teacher.ids, teacher.logprobs.to(dtype))
    of_states = isinstance(teacher, TeacherStates)
    found = _Compare.apply(  # pyright: ignore
        hidden_TD, weight_VD, targets_T, scale, *given, of_states, divergence, max_elements
    )
    return Compared(*found)  # type: ignore[misc]


def score_against(
    decoder: TokenScorer,
    token_ids: Tensor,
    documents: Documents,
    targets: Tensor,
    teachers: Sequence[tuple[Tensor, TeacherStates | TeacherTop]],
    divergence: Divergence,
    temperature: float | Tensor = 1.0,
    *,
    index: Tensor | None = None,
    cache: KeyValueCache | None = None,
) -> Compared:
    """``TokenScorer.score``, with each scored position compared with its teacher.

    Args:
        token_ids, documents, targets, temperature, index, cache: as ``TokenScorer.score``.
        teachers: ([n] int64, which of the N scored positions; what the teacher says there) of each teacher. Of the
            others the divergence is 0, and the teacher's log-probability NaN.
    """
    hidden, weight = decoder.states(token_ids, documents, index=index, cache=cache)
    count = hidden.shape[0]
    if len(teachers) == 1 and len(teachers[0][0]) == count:
        return compare(hidden, weight, targets, teachers[0][1], divergence, temperature)
    scale = torch.as_tensor(temperature, device=hidden.device).reshape(-1).expand(count)
    alone = torch.ones(count, dtype=torch.bool, device=hidden.device)
    places, parts = [], []
    for rows, teacher in teachers:
        alone[rows] = False
        one = compare(hidden[rows], weight, targets[rows], teacher, divergence, scale[rows])
        places.append(rows)
        parts.append(torch.stack((one.logprobs, one.entropy, one.divergence, one.teacher_logprobs)))
    rows = alone.nonzero().squeeze(1)
    logprobs, entropy = token_logprobs(hidden[rows], weight, targets[rows], scale[rows])
    nothing = torch.zeros_like(entropy)
    parts.append(torch.stack((logprobs, entropy, nothing, torch.full_like(nothing, torch.nan))))
    order = torch.cat([*places, rows]).argsort()
    return Compared(*torch.cat(parts, dim=1)[:, order].unbind())


def bucket_terms(logp: Tensor, logq: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(divergence [T], pull [T, B]) of log-probabilities of B outcomes, [T, B] each.

    The pull of an outcome is p times the derivative by p of the divergence, up to a multiple of p, which a softmax
    does not feel: by the logit of an outcome the derivative is pull - p x (sum of the pulls).
    """
    if beta == 0.0:
        q = logq.exp()
        return (q * _gap(logq, logp, q)).sum(-1), -q
    p = logp.exp()
    if beta == 1.0:
        pull = p * _gap(logp, logq, p)
        return pull.sum(-1), pull
    logm = torch.logaddexp(logp + math.log1p(-beta), logq + math.log(beta))
    pull = (1.0 - beta) * p * _gap(logp, logm, p)
    q = logq.exp()
    return pull.sum(-1) + beta * (q * _gap(logq, logm, q)).sum(-1), pull


def _gap(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """one - other, and 0 where the weight of it is: infinity less infinity times 0 is NaN."""
    return torch.where(weight > 0, one - other, torch.zeros_like(one))


def _log_softmax(hidden: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    if hidden.dtype == scale.dtype:
        return torch.log_softmax((hidden @ weight.T).div_(scale), dim=-1)
    if hidden.is_cuda:  # rounding logits to bfloat16 would be most of a small divergence
        return torch.log_softmax(torch.mm(hidden, weight.T, out_dtype=scale.dtype).div_(scale), dim=-1)
    return torch.log_softmax((hidden @ weight.T).to(scale.dtype).div_(scale), dim=-1)


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
class _Block:
    """What a block of tokens needs, forward and backward."""

    logp: Tensor
    logq: Tensor | None
    teacher_logprobs: Tensor
    ids: Tensor | None  # [n, K], of a support
    divergence: Tensor
    pull: Tensor  # [n, V], or [n, B] of a support
    among: Tensor | None  # [n, B] log-probabilities of the student within a support


def _block(logp, logq, ids, top, targets, settings: Divergence) -> _Block:
    """
    Args:
        logp: [n, V] of the student; logq: of the teacher, or None where ``ids``, ``top`` [n, K] are all that is known.
    """
    if logq is not None:
        teacher_logprobs = logq.gather(1, targets[:, None]).squeeze(1)
        if settings.support is None:
            divergence, pull = bucket_terms(logp, logq, settings.beta)
            return _Block(logp, logq, teacher_logprobs, None, divergence, pull, None)
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
    return _Block(logp, None, teacher_logprobs, ids, divergence, pull, among)


def _add_pull(out: Tensor, p: Tensor, block: _Block, grad: Tensor, tail: bool) -> None:
    """Add the divergence's gradient by the logits, [n, V], to ``out``. ``p`` is used up."""
    grad = grad[:, None]
    total = block.pull.sum(dim=-1, keepdim=True)
    if block.ids is None or block.among is None:
        out.add_(torch.addcmul(block.pull, p, total, value=-1.0).mul_(grad))
        return
    count = block.ids.shape[1]
    if tail and block.among.shape[1] > count:
        # Every other token shares the tail's derivative, pull / p of the tail.
        rest = block.pull[:, count:] / block.among[:, count:].exp().clamp(min=torch.finfo(p.dtype).tiny)
        own = block.pull[:, :count] - p.gather(1, block.ids) * total
        out.scatter_add_(1, block.ids, grad * own)
        out.addcmul_(p.scatter_(1, block.ids, 0.0), grad * (rest - total))
        return
    out.scatter_add_(1, block.ids, grad * (block.pull - block.among.exp() * total))


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, scale, first, second, of_states, settings, max_elements):
        count = hidden.shape[0]
        size = max(1, max_elements // weight.shape[0])
        outputs = scale.new_empty(4, count)
        kept: list[Tensor] = []
        for start in range(0, count, size):
            part = slice(start, start + size)
            block = _of_part(hidden, weight, targets, scale, first, second, of_states, settings, part)
            p = block.logp.exp()
            outputs[0, part] = block.logp.gather(1, targets[part, None]).squeeze(1)
            outputs[1, part] = -(p * block.logp).sum(dim=-1)
            outputs[2, part], outputs[3, part] = block.divergence, block.teacher_logprobs
            kept = [block.logp] + ([] if block.logq is None else [block.logq])
        kept = kept if count <= size else []  # one block: its matrices are small enough to keep
        ctx.save_for_backward(hidden, weight, targets, scale, first, second, outputs[1], *kept)
        ctx.of_states, ctx.settings, ctx.size = of_states, settings, size
        ctx.set_materialize_grads(False)
        logprobs, entropy, divergence, teacher_logprobs = outputs.unbind()
        ctx.mark_non_differentiable(teacher_logprobs)
        return logprobs, entropy, divergence, teacher_logprobs

    @staticmethod
    def backward(ctx, *grads):
        hidden, weight, targets, scale, first, second, entropy, *kept = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=scale.dtype)
        for start in range(0, hidden.shape[0], ctx.size):
            part = slice(start, start + ctx.size)
            given = (hidden, weight, targets, scale, first, second, ctx.of_states, ctx.settings, part)
            block = _of_part(*given, kept=kept)
            by_logprobs, by_entropy, by_divergence = (None if one is None else one[part] for one in grads[:3])
            p = block.logp.exp()
            shared = torch.zeros_like(p)
            if by_entropy is not None:
                shared -= (block.logp + entropy[part, None]) * by_entropy[:, None]
            if by_logprobs is not None:
                shared -= by_logprobs[:, None]
            out = shared.mul_(p)
            if by_logprobs is not None:
                out.scatter_add_(1, targets[part, None], by_logprobs[:, None])
            if by_divergence is not None:
                _add_pull(out, p, block, by_divergence, ctx.settings.tail)
            out = out.div_(scale[part]).to(hidden.dtype)
            torch.mm(out, weight, out=grad_hidden[part])
            grad_weight += out.T @ hidden[part]
        return grad_hidden, grad_weight.to(weight.dtype), *(None,) * 7


def _of_part(hidden, weight, targets, scale, first, second, of_states, settings, part, kept=()) -> _Block:
    logp = kept[0] if kept else _log_softmax(hidden[part], weight, scale[part])
    if not of_states:
        return _block(logp, None, first[part], second[part], targets[part], settings)
    logq = kept[1] if len(kept) > 1 else _log_softmax(first[part], second, scale[part])
    return _block(logp, logq, None, None, targets[part], settings)
