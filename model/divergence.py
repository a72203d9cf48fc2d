"""Divergences of a student's distributions from a teacher's, straight from hidden states, without [T, V] tensors.

Shapes: T tokens, D width of the student, E of the teacher, V vocabulary, K tokens of a support, B outcomes (K + 1
with the tail).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import Documents, KeyValueCache
from .divergence_terms import Block, Divergence, block_of, by_logits
from .head import MAX_ELEMENTS, TokenScorer, check_temperature, token_logprobs

CACHED_ELEMENTS = 2**18
"""Of a [tokens, V] matrix that a processor's cache holds, so that few passes over it wait for memory."""
FEWEST_ROWS = 64
"""At once on a processor, however large the vocabulary: fewer would read the heads' weights too often."""


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
    cached: bool | None = None,
) -> Compared:
    """``head.token_logprobs``, and how far the student's distribution is from the teacher's at each token.

    Args:
        hidden_TD, weight_VD, targets_T, temperature: as ``token_logprobs``; both models' logits are divided by it.
        max_elements: most elements of a [tokens, V] matrix at once. Of such matrices a few exist at a time; where
            T x V is more, they are computed again in the backward pass.
        cached: work on as few tokens at a time as a processor's cache holds; None: where the tensors are on one.
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
        highest = int(teacher.ids.max()) if teacher.ids.numel() else 0
        if highest >= weight_VD.shape[0]:
            raise ValueError(f"a server tells of the id {highest}, and the student's head knows {weight_VD.shape[0]}")
        given = (teacher.ids, teacher.logprobs.to(dtype))
    of_states = isinstance(teacher, TeacherStates)
    found = _Compare.apply(  # pyright: ignore
        hidden_TD,
        weight_VD,
        targets_T,
        scale,
        *given,
        of_states,
        divergence,
        _rows(hidden_TD, weight_VD, max_elements, cached),
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
    cached: bool | None = None,
) -> Compared:
    """``TokenScorer.score``, with each scored position compared with its teacher.

    Args:
        token_ids, documents, targets, temperature, index, cache: as ``TokenScorer.score``.
        teachers: ([n] int64, which of the N scored positions; what the teacher says there) of each teacher. Of the
            others the divergence is 0, and the teacher's log-probability NaN.
        cached: as ``compare``.
    """
    hidden, weight = decoder.states(token_ids, documents, index=index, cache=cache)
    count = hidden.shape[0]
    if len(teachers) == 1 and len(teachers[0][0]) == count:
        return compare(hidden, weight, targets, teachers[0][1], divergence, temperature, cached=cached)
    scale = torch.as_tensor(temperature, device=hidden.device).reshape(-1).expand(count)
    alone = torch.ones(count, dtype=torch.bool, device=hidden.device)
    places, parts = [], []
    for rows, teacher in teachers:
        alone[rows] = False
        one = compare(hidden[rows], weight, targets[rows], teacher, divergence, scale[rows], cached=cached)
        places.append(rows)
        parts.append(torch.stack((one.logprobs, one.entropy, one.divergence, one.teacher_logprobs)))
    rows = alone.nonzero().squeeze(1)
    logprobs, entropy = token_logprobs(hidden[rows], weight, targets[rows], scale[rows])
    nothing = torch.zeros_like(entropy)
    parts.append(torch.stack((logprobs, entropy, nothing, torch.full_like(nothing, torch.nan))))
    order = torch.cat([*places, rows]).argsort()
    return Compared(*torch.cat(parts, dim=1)[:, order].unbind())


def _rows(hidden: Tensor, weight: Tensor, max_elements: int, cached: bool | None) -> tuple[int, int]:
    """(tokens at a time, the most of which matrices are kept for the backward pass)."""
    most = max(1, max_elements // weight.shape[0])
    if cached is None:
        cached = not hidden.is_cuda
    return (min(most, max(FEWEST_ROWS, CACHED_ELEMENTS // weight.shape[0])) if cached else most), most


def _log_softmax(hidden: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    if hidden.dtype == scale.dtype:
        return torch.log_softmax((hidden @ weight.T).div_(scale), dim=-1)
    if hidden.is_cuda:  # rounding logits to bfloat16 would be most of a small divergence
        return torch.log_softmax(torch.mm(hidden, weight.T, out_dtype=scale.dtype).div_(scale), dim=-1)
    return torch.log_softmax((hidden @ weight.T).to(scale.dtype).div_(scale), dim=-1)


class _Compare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, scale, first, second, of_states, settings, rows):
        count, (step, size) = hidden.shape[0], rows
        outputs = scale.new_empty(4, count)
        kept: list[Tensor] = []
        for start in range(0, count, step):
            part = slice(start, start + step)
            given = (hidden, weight, targets, scale, first, second, of_states, settings, part)
            block, outputs[2, part], outputs[3, part] = _of_part(*given)
            outputs[0, part] = block.logp.gather(1, targets[part, None]).squeeze(1)
            outputs[1, part] = -block.logp.exp().mul_(block.logp).sum(dim=-1)
            if step >= count:
                kept = block.tensors
            elif count <= size:  # few enough tokens to keep their matrices
                kept = kept or [one.new_empty(count, one.shape[1]) for one in block.tensors]
                for whole, one in zip(kept, block.tensors, strict=True):
                    whole[part] = one
        ctx.save_for_backward(hidden, weight, targets, scale, first, second, outputs[1], *kept)
        ctx.of_states, ctx.settings, ctx.step = of_states, settings, step
        ctx.set_materialize_grads(False)
        logprobs, entropy, divergence, teacher_logprobs = outputs.unbind()
        ctx.mark_non_differentiable(teacher_logprobs)
        return logprobs, entropy, divergence, teacher_logprobs

    @staticmethod
    def backward(ctx, *grads):
        hidden, weight, targets, scale, first, second, entropy, *kept = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=scale.dtype)
        for start in range(0, hidden.shape[0], ctx.step):
            part = slice(start, start + ctx.step)
            given = (hidden, weight, targets, scale, first, second, ctx.of_states, ctx.settings, part)
            block = Block(*(one[part] for one in kept)) if kept else _of_part(*given)[0]
            by = [None if one is None else one[part, None] / scale[part] for one in grads[:3]]
            out = by_logits(block, targets[part], entropy[part, None], by, ctx.settings.tail).to(hidden.dtype)
            torch.mm(out, weight, out=grad_hidden[part])
            grad_weight += out.T @ hidden[part]
        return grad_hidden, grad_weight.to(weight.dtype), *(None,) * 7


def _of_part(hidden, weight, targets, scale, first, second, of_states, settings, part) -> tuple[Block, Tensor, Tensor]:
    logp = _log_softmax(hidden[part], weight, scale[part])
    if not of_states:
        return block_of(logp, None, first[part], second[part], targets[part], settings)
    logq = _log_softmax(first[part], second, scale[part])
    return block_of(logp, logq, None, None, targets[part], settings)
