"""Attention: forward, backward and decode, ours beside SDPA (flash and cuDNN), FlexAttention and torch's varlen."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from verigym.model.attention import Documents, attend
from verigym.model.kernels.attention import attention_flops
from verigym.model.kernels.decode import paged_decode
from verigym.model.kernels.launch import fused

from .timing import Row, measured

HEADS, KV_HEADS, HEAD_DIM = 48, 8, 128
SHAPES: list[tuple[list[int], int | None]] = [
    ([16384], None),
    ([4096] * 4, None),
    ([32768], 8192),
    ([131072], 8192),
]
SMOKE: list[tuple[list[int], int | None]] = [([48], None), ([20, 28], 16)]


def attention_rows(device: torch.device, *, smoke: bool) -> list[Row]:
    rows: list[Row] = []
    heads, kv_heads, head_dim = (6, 1, 16) if smoke else (HEADS, KV_HEADS, HEAD_DIM)
    for lengths, window in SMOKE if smoke else SHAPES:
        total = sum(lengths)
        q, k, v = (
            torch.randn(total, count, head_dim, device=device, dtype=torch.bfloat16, requires_grad=True)
            for count in (heads, kv_heads, kv_heads)
        )
        grad = torch.randn_like(q)
        flops = attention_flops(lengths, window, heads, head_dim)
        size = 2 * head_dim * total * (2 * heads + 2 * kv_heads)
        shape = f"{len(lengths)} x {lengths[0]}" + (f", window {window}" if window else "")
        for name, run in _implementations(q, k, v, lengths, window):
            common = {"smoke": smoke, "shape": shape, "name": name}
            forward = measured(device, run, task="attention forward", flops=flops, size=size, **common)
            rows.append(forward)
            if forward.error is not None:
                continue
            out = run()
            rows.append(
                measured(
                    device,
                    partial(torch.autograd.grad, out, (q, k, v), grad, retain_graph=True),
                    task="attention backward",
                    flops=2.5 * flops,
                    size=2 * size,
                    **common,
                )
            )
    return rows


def _implementations(
    q: Tensor, k: Tensor, v: Tensor, lengths: list[int], window: int | None
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """(name, call). SDPA and cuDNN see documents of one length as a batch; where there is a window they have no
    kernel for it, and are left out."""
    documents = Documents.from_lengths(lengths, device=q.device)
    if fused(q):
        yield "ours", lambda: attend(q, k, v, documents, window, backend="triton")
    else:
        yield "ours (sdpa)", lambda: attend(q, k, v, documents, window)
    if window is None and len(set(lengths)) == 1:
        batched = [x.unflatten(0, (len(lengths), lengths[0])).transpose(1, 2) for x in (q, k, v)]
        for name, backend in (("sdpa flash", "FLASH_ATTENTION"), ("sdpa cudnn", "CUDNN_ATTENTION")):
            yield name, lambda backend=backend: _sdpa(batched, backend).transpose(1, 2).flatten(0, 1)
    yield "flex", _flex(q, k, v, lengths, window)
    yield "torch varlen", lambda: _varlen(q, k, v, documents, max(lengths), window)


def _sdpa(batched: list[Tensor], backend: str) -> Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    on_gpu = batched[0].is_cuda
    with sdpa_kernel(getattr(SDPBackend, backend)) if on_gpu else nullcontext():
        return F.scaled_dot_product_attention(*batched, is_causal=True, enable_gqa=True)


def _flex(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], window: int | None) -> Callable[[], Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    owner = torch.repeat_interleave(torch.tensor(lengths, device=q.device))
    reach = window or sum(lengths)

    def seen(batch, head, query, key):
        return (owner[query] == owner[key]) & (query >= key) & (query - key < reach)

    call = torch.compile(flex_attention) if q.is_cuda else flex_attention
    mask = None

    def run() -> Tensor:
        nonlocal mask
        if mask is None:  # as ours has its table of tiles: made once a pack, not once a layer
            mask = create_block_mask(seen, None, None, q.shape[0], q.shape[0], device=str(q.device))
        heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
        return call(*heads, block_mask=mask, enable_gqa=True)[0].transpose(0, 1)

    return run


def _varlen(q: Tensor, k: Tensor, v: Tensor, documents: Documents, longest: int, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    if window is not None:
        raise NotImplementedError("torch's varlen is timed without a window")
    group = q.shape[1] // k.shape[1]
    keys, values = (x.repeat_interleave(group, dim=1) for x in (k, v))
    bounds = documents.cu_seqlens
    return varlen_attn(q, keys, values, bounds, bounds, longest, longest, is_causal=True)


def decode_rows(device: torch.device, *, smoke: bool) -> list[Row]:
    """One new token for each of a batch of sequences; memory bounds it."""
    rows: list[Row] = []
    heads, kv_heads, head_dim = (6, 1, 16) if smoke else (HEADS, KV_HEADS, HEAD_DIM)
    for batch, length, window in [(2, 40, 16)] if smoke else [(32, 8192, None), (8, 65536, None), (8, 65536, 8192)]:
        page_size = 16 if smoke else 64
        width = -(-length // page_size)
        k, v = (
            torch.randn(batch * width, page_size, kv_heads, head_dim, device=device, dtype=torch.bfloat16)
            for _ in range(2)
        )
        q = torch.randn(batch, heads, head_dim, device=device, dtype=torch.bfloat16)
        table = torch.randperm(batch * width, device=device).view(batch, width).int()
        lengths = torch.full((batch,), length, device=device, dtype=torch.int32)
        read = min(window or length, length)
        common = {"smoke": smoke, "task": "decode", "shape": f"{batch} x {length}, window {window}"}
        common |= {"flops": 4.0 * batch * heads * head_dim * read, "size": 4.0 * batch * kv_heads * head_dim * read}
        if fused(q):
            arguments = (q, k, v, table, lengths, length, window or 0, head_dim**-0.5)
            rows.append(measured(device, lambda a=arguments: paged_decode(*a), name="ours", **common))
        held = [x.view(batch, width * page_size, kv_heads, head_dim)[:, length - read : length] for x in (k, v)]
        dense = [q[:, :, None], *(x.transpose(1, 2) for x in held)]
        call = lambda d=dense: F.scaled_dot_product_attention(*d, enable_gqa=True)  # noqa: E731
        rows.append(measured(device, call, name="sdpa dense", **common))
    return rows
