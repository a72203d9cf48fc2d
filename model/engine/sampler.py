"""Draw one token a row, and say with which log-probability."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoder import Decoder

# Rows of the head that are cast at once where no product casts by itself.
_VOCABULARY_ROWS = 16_384


def logits_of(decoder: Decoder, hidden_RD: Tensor) -> Tensor:
    """[R, V] float32, V the ids that are known. Not rounded to the dtype of the weights: the trainer's head does not
    round them either."""
    weight = decoder.head.own_rows()
    if weight.dtype == torch.float32:
        logits = F.linear(hidden_RD, weight)
    elif weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16):
        logits = torch.mm(hidden_RD, weight.T, out_dtype=torch.float32)
    else:
        rows = hidden_RD.float()
        logits = torch.cat([rows @ part.float().T for part in weight.split(_VOCABULARY_ROWS)], dim=1)
    return decoder.head.joined(logits)[:, : decoder.config.num_ids]


def sample(
    logits_RV: Tensor,
    temperature_R: Tensor,
    top_k_R: Tensor,
    top_p_R: Tensor,
    uniform_R: Tensor,
    min_p_R: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw by inverting the cumulative distribution at one uniform number a row.

    The noise of a row is its own number, so a draw depends on nothing else in the batch.

    Args:
        logits_RV: [R, V].
        temperature_R: [R] float32; 0 takes the largest logit.
        top_k_R: [R] int64; 0 keeps all.
        top_p_R: [R] float32; 1 keeps all. Applied after top_k, to what that left.
        uniform_R: [R] float64 in [0, 1).
        min_p_R: [R] float32; a token needs this share of the likeliest one's probability; 0 and None keep all.
    Returns:
        (token ids [R] int64, log-probabilities [R] float32, nats, of the distribution drawn from; at temperature 0
        of the one at temperature 1, with top_k, top_p and min_p left aside).
    """
    logits = logits_RV.float()
    greedy = temperature_R == 0
    logits = logits / torch.where(greedy, 1.0, temperature_R)[:, None]
    any_greedy = bool(greedy.any())
    largest = logits.argmax(dim=-1) if any_greedy else None
    if bool(((top_k_R > 0) | (top_p_R < 1.0)).any()):
        top_k_R, top_p_R = torch.where(greedy, 0, top_k_R), torch.where(greedy, 1.0, top_p_R)
        logits = _truncated(logits, top_k_R, top_p_R)
    if min_p_R is not None and bool((min_p_R > 0).any()):
        least = logits.amax(dim=-1) + torch.where(greedy, 0.0, min_p_R).log()  # of 0: -inf, which keeps all
        logits = logits.masked_fill(logits < least[:, None], float("-inf"))
    logprobs = torch.log_softmax(logits, dim=-1)
    # float64: over a large vocabulary float32 sums would lose the rare tokens.
    cumulative = logprobs.exp().double().cumsum_(dim=-1)
    point = uniform_R.clamp(max=1.0 - 1e-12)[:, None] * cumulative[:, -1:]
    token_ids = torch.searchsorted(cumulative, point, right=True).squeeze(1)
    if largest is not None:
        token_ids = torch.where(greedy, largest, token_ids)
    # Only logits that are not numbers lead past the end; their log-probability is NaN and says so.
    token_ids.clamp_(max=logits.shape[1] - 1)
    return token_ids, logprobs.gather(1, token_ids[:, None]).squeeze(1)


def raw_logprobs(logits_RV: Tensor, token_ids_R: Tensor, num_top: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the model's own distribution, at temperature 1 and with nothing left out.

    Args:
        num_top: of how many of the likeliest tokens too.
    Returns:
        (of the given tokens [R], the likeliest tokens [R, num_top] int64, theirs [R, num_top]); float32, nats.
    """
    logprobs = torch.log_softmax(logits_RV.float(), dim=-1)
    top, top_ids = logprobs.topk(min(num_top, logits_RV.shape[1]), dim=-1)
    return logprobs.gather(1, token_ids_R[:, None]).squeeze(1), top_ids, top


def _truncated(logits: Tensor, top_k_R: Tensor, top_p_R: Tensor) -> Tensor:
    """-inf for all but the top_k largest, and of those all but the fewest that hold top_p of the probability."""
    ordered, order = logits.sort(dim=-1, descending=True)
    rank = torch.arange(logits.shape[1], device=logits.device)
    limit = torch.where(top_k_R > 0, top_k_R, logits.shape[1])[:, None]
    ordered = ordered.masked_fill(rank >= limit, float("-inf"))
    weights = ordered.softmax(dim=-1)
    above = weights.cumsum(dim=-1) - weights
    ordered = ordered.masked_fill((above >= top_p_R[:, None]) & (rank > 0) & (top_p_R[:, None] < 1.0), float("-inf"))
    return torch.empty_like(logits).scatter_(1, order, ordered)
