"""What each kernel computes, in plain torch: slow, in the precision of its inputs, float64 included."""

from collections.abc import Sequence

import torch
from torch import Tensor


def reference_attention(
    q_THK: Tensor,
    k_SGK: Tensor,
    v_SGK: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    window: int | None,
) -> tuple[Tensor, Tensor]:
    """Causal grouped-query attention inside each document, scaled by K^-1/2; its last query stands at its last key.

    Returns:
        (out [T, H, K], log-sum-exp of the scaled scores [H, T], nats).
    """
    parts = (q_THK.split(list(query_lengths) or [0]), *(x.split(list(key_lengths) or [0]) for x in (k_SGK, v_SGK)))
    pairs = [_document(q, k, v, window) for q, k, v in zip(*parts, strict=True)]
    return torch.cat([out for out, _ in pairs]), torch.cat([logsumexp for _, logsumexp in pairs], dim=1)


def _document(q_LHK: Tensor, k_LGK: Tensor, v_LGK: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    length, num_heads, head_dim = q_LHK.shape
    count = k_LGK.shape[0]
    k, v = (x.repeat_interleave(num_heads // k_LGK.shape[1], dim=1) for x in (k_LGK, v_LGK))
    scores = torch.einsum("qhk,shk->hqs", q_LHK, k) * head_dim**-0.5
    index = torch.arange(count, device=q_LHK.device)
    distance = index[count - length :, None] - index
    seen = (distance >= 0) & (distance < (window or count + 1))
    scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("hqs,shk->qhk", scores.softmax(dim=-1), v), scores.logsumexp(dim=-1)


def reference_tree_attention(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, ends: Tensor, depths: Tensor, window: int | None
) -> tuple[Tensor, Tensor]:
    """As ``tree.tree_attention``, scaled by K^-1/2, with a mask of all pairs."""
    index = torch.arange(len(ends), device=q_THK.device)
    seen = (index <= index[:, None]) & (index[:, None] < ends)
    if window is not None:
        seen &= depths[:, None] - depths < window
    k, v = (x.repeat_interleave(q_THK.shape[1] // x.shape[1], dim=1) for x in (k_TGK, v_TGK))
    scores = torch.einsum("qhk,shk->hqs", q_THK, k) * q_THK.shape[-1] ** -0.5
    scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("hqs,shk->qhk", scores.softmax(dim=-1), v), scores.logsumexp(dim=-1)


def reference_decode(
    q_BHK: Tensor, k_PCGK: Tensor, v_PCGK: Tensor, page_table: Tensor, lengths: Sequence[int], window: int | None
) -> tuple[Tensor, Tensor]:
    """As ``decode.paged_decode``, sequence by sequence. Returns (out [B, H, K], log-sum-exp [B, H])."""
    outs, sums = [], []
    for q, pages, length in zip(q_BHK, page_table.long(), lengths, strict=True):
        if not length:
            outs.append(torch.zeros_like(q)[None])
            sums.append(torch.full_like(q[:, :1], float("-inf")))
            continue
        k, v = (x[pages].flatten(0, 1)[:length] for x in (k_PCGK, v_PCGK))
        out, logsumexp = _document(q[None], k, v, window)
        outs.append(out)
        sums.append(logsumexp)
    return torch.cat(outs), torch.cat(sums, dim=1).T


def reference_logprobs(
    hidden_TD: Tensor, weight_VD: Tensor, targets_T: Tensor, temperatures_T: Tensor
) -> tuple[Tensor, Tensor]:
    """(log-probability of each target [T], entropy [T]) of softmax(hidden @ weight.T / temperature), nats."""
    logp = torch.log_softmax(hidden_TD @ weight_VD.T / temperatures_T[:, None], dim=-1)
    return logp.gather(1, targets_T[:, None]).squeeze(1), -(logp.exp() * logp).sum(dim=-1)


def reference_rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return x_TD * (x_TD.square().mean(dim=-1, keepdim=True) + eps).rsqrt() * weight_D


def reference_swiglu(gate_up_TF: Tensor) -> Tensor:
    gate, up = gate_up_TF.chunk(2, dim=-1)
    return gate * torch.sigmoid(gate) * up


def reference_rope(x_THK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_THK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
