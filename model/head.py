"""Log-probabilities and entropies of chosen tokens, without keeping [T, V] logits where they would be large."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .attention import Documents, KeyValueCache
from .kernels.launch import fused
from .kernels.loss_head import fused_logprobs

# Elements of a [tokens, vocabulary] matrix that may be alive at once: 256 MiB in float32.
MAX_ELEMENTS = 64 * 2**20


class TokenScorer(nn.Module, ABC):
    """What can be trained on packed documents: its forward gives hidden states, its head's matrix tokens."""

    @abstractmethod
    def head_matrix(self) -> Tensor:
        """[V, D]: logits are its product with the hidden states; V is the ids that are known, without padding."""

    def score(
        self,
        token_ids: Tensor,
        documents: Documents,
        targets: Tensor,
        temperature: float | Tensor = 1.0,
        *,
        index: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the tokens that follow, and the entropies they were drawn with.

        Args:
            token_ids, documents, cache: as the forward takes them.
            targets: [N] int64, what follows each scored position.
            temperature: > 0, one number or [N]; logits are divided by it.
            index: [N] int64, the scored positions; None for all T. Only these meet the vocabulary.
        Returns:
            (logprobs [N], entropies [N]), nats, at least float32.
        """
        return self.score_and_states(token_ids, documents, targets, temperature, index=index, cache=cache)[:2]

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
        """``score``, and [N, D] the hidden states it came from: what a critic reads."""
        # forward, not a call: where FSDP fetches weights around ``score``, it must not do so once more inside.
        context = () if cache is None else (cache,)
        hidden = self.forward(token_ids, documents, *context)
        if index is not None:
            hidden = hidden.index_select(0, index)
        return *token_logprobs(hidden, self.head_matrix(), targets, temperature), hidden

    def states(
        self,
        token_ids: Tensor,
        documents: Documents,
        *,
        index: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """([N, D] hidden states, [V, D] the head): what a distribution is made of, for ``divergence.compare``."""
        context = () if cache is None else (cache,)
        hidden = self.forward(token_ids, documents, *context)
        return hidden if index is None else hidden.index_select(0, index), self.head_matrix()


def token_logprobs(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    targets_T: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    max_elements: int = MAX_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of the distribution it was drawn from.

    Args:
        hidden_TD: [T, D]; hidden_TD[t] predicts targets_T[t].
        weight_VD: [V, D], the head.
        targets_T: [T] int64.
        temperature: > 0, one number or [T]; logits are divided by it. It gets no gradient.
        max_elements: most elements of a [tokens, V] matrix at once. Where T x V is more, tokens are taken in chunks,
            and the logits are computed again in the backward pass.
    Returns:
        (logprobs [T], entropy [T]), nats, in float32 (float64 where hidden is).
    Raises:
        ValueError: a temperature that is not positive.
    """
    dtype = torch.float64 if hidden_TD.dtype == torch.float64 else torch.float32
    scale = torch.as_tensor(temperature, dtype=dtype, device=hidden_TD.device).reshape(-1)
    check_temperature(temperature, scale)
    scale = scale.expand(hidden_TD.shape[0])
    if fused(hidden_TD, weight_VD):
        inputs = (hidden_TD.contiguous(), weight_VD.contiguous(), targets_T, scale.contiguous())
        logprobs, entropy, _, _ = fused_logprobs(*inputs, max_elements)
    else:
        logprobs, entropy = _TokenLogprobs.apply(  # pyright: ignore
            hidden_TD, weight_VD, targets_T, scale[:, None], max_elements
        )
    return logprobs, entropy


def check_temperature(given: float | Tensor, scale: Tensor) -> None:
    """Raises ValueError where a temperature is not positive."""
    if scale.is_cuda and isinstance(given, Tensor):  # without waiting for the GPU
        torch._assert_async((scale > 0).all(), "a temperature is not positive: score greedy samples at 1.0")
        return
    lowest = given if isinstance(given, int | float) else scale.min().item() if scale.numel() else 1.0
    if not lowest > 0:
        raise ValueError(f"the lowest temperature is {lowest}; it must be positive: score greedy samples at 1.0")


def _log_softmax(hidden: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    logits = hidden @ weight.T
    if logits.dtype == scale.dtype:
        return torch.log_softmax(logits.div_(scale), dim=-1)
    return torch.log_softmax(logits.to(scale.dtype).div_(scale), dim=-1)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, scale, max_elements):
        num_tokens = hidden.shape[0]
        chunk = max(1, max_elements // weight.shape[0])
        logprobs, entropy = scale.new_empty(num_tokens), scale.new_empty(num_tokens)
        kept = None
        for start in range(0, num_tokens, chunk):
            part = slice(start, start + chunk)
            logp = _log_softmax(hidden[part], weight, scale[part])
            logprobs[part] = logp.gather(1, targets[part, None]).squeeze(1)
            entropy[part] = -(logp.exp() * logp).sum(dim=-1)
            kept = logp
        # One chunk: its log-softmax is small enough to keep.
        ctx.save_for_backward(hidden, weight, targets, scale, entropy, kept if num_tokens <= chunk else None)
        ctx.chunk = chunk
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    def backward(ctx, *grads):
        hidden, weight, targets, scale, entropy, kept = ctx.saved_tensors
        grad_logprobs, grad_entropy = grads
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=scale.dtype)
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logp = kept if kept is not None else _log_softmax(hidden[part], weight, scale[part])
            grad_logits = _grad_logits(
                logp, targets[part], entropy[part], _at(grad_logprobs, part), _at(grad_entropy, part)
            )
            grad_logits = grad_logits.div_(scale[part]).to(hidden.dtype)
            torch.mm(grad_logits, weight, out=grad_hidden[part])
            grad_weight += grad_logits.T @ hidden[part]
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


def _at(grad: Tensor | None, part: slice) -> Tensor | None:
    return None if grad is None else grad[part]


def _grad_logits(
    logp: Tensor, targets: Tensor, entropy: Tensor, grad_logprobs: Tensor | None, grad_entropy: Tensor | None
) -> Tensor:
    """d logprob_t / d z_i = [i = t] - p_i, and d H / d z_i = -p_i (log p_i + H)."""
    p = logp.exp()
    if grad_entropy is None:
        assert grad_logprobs is not None
        out = p.mul_(-grad_logprobs[:, None])
    else:
        pull = (logp + entropy[:, None]).mul_(-grad_entropy[:, None])
        if grad_logprobs is not None:
            pull -= grad_logprobs[:, None]
        out = p.mul_(pull)
    if grad_logprobs is not None:
        out.scatter_add_(1, targets[:, None], grad_logprobs[:, None])
    return out
