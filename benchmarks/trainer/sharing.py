"""A forward and backward pass over groups that share their prompt, flat and shared.

``python benchmarks/trainer/sharing.py``: groups of 8 episodes of which 70 % is shared. Tokens a second are the
flat pack's tokens in both ways, so that the ratio is that of the times. Memory is the peak of a pass above what the
process had before it, gradients included, each in a process of its own that has done nothing else.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import PackedBatch, pack
from verigym.trainer.batching.sharing import shared_pack
from verigym.trainer.learning.scores import score

SIZES: dict[str, dict[str, int]] = {
    "tiny": {},
    "100M": {
        "hidden_size": 768, "intermediate_size": 2048, "num_heads": 12, "num_kv_heads": 4, "head_dim": 64,
        "num_layers": 14,
    },
}  # fmt: skip


def group(length: int, shared: float, size: int, vocabulary: int) -> PackedBatch:
    """Episodes of one prompt in one pack."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, vocabulary, int(length * shared))
    documents = []
    for _ in range(size):
        ids = np.concatenate([prompt, rng.integers(0, vocabulary, length - len(prompt))]).astype(np.int64)
        mask = np.arange(length - 1) >= len(prompt) - 1
        logprobs = -np.ones(length - 1, np.float32)
        documents.append(Document(token_ids=ids[:-1], targets=ids[1:], loss_mask=mask, old_logprobs=logprobs))
    (found,) = pack(documents, max_tokens=length * size)
    return found


def seconds(decoder: Decoder, batch: PackedBatch) -> float:
    """Of a pass forward and backward."""
    decoder.zero_grad()
    before = time.perf_counter()
    score(decoder, batch).logprobs.sum().backward()
    return time.perf_counter() - before


def peak_mib(decoder: Decoder, batch: PackedBatch) -> float:
    """Of a pass forward and backward, in a forked process, whose heap holds nothing yet."""

    def one(pipe: Connection) -> None:
        torch.set_num_threads(1)
        before = _status("VmRSS")
        score(decoder, batch).logprobs.sum().backward()
        pipe.send(_status("VmHWM") - before)

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=one, args=(sender,))
    process.start()
    sender.close()
    found = receiver.recv()
    process.join()
    return found


def _status(name: str) -> float:
    """MiB of this process, as Linux counts them."""
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def measure(name: str, length: int, shared: float, size: int, runs: int) -> dict[str, Any]:
    changes = dict(SIZES[name])
    layers = changes.pop("num_layers", None)
    config = preset("cwm-tiny", vocab_size=1024, max_position_embeddings=length, **changes)
    if layers is not None:
        kinds = tuple("full_attention" if k % 4 == 3 else "sliding_attention" for k in range(layers))
        config = replace(config, num_layers=layers, layer_types=kinds)
    decoder = Decoder(config, seed=0)
    flat = group(length, shared, size, 1024)
    together = replace(flat, share="on")
    found = shared_pack(flat.token_ids, flat.lengths, "on")
    assert found is not None
    memory = {"flat": peak_mib(decoder, flat), "shared": peak_mib(decoder, together)}
    times: dict[str, list[float]] = {"flat": [], "shared": []}
    for run in range(runs + 1):  # the first warms up
        for kind, batch in (("flat", flat), ("shared", together)):
            took = seconds(decoder, batch)
            if run:
                times[kind].append(took)
    tokens = flat.num_tokens
    row = {kind: tokens / statistics.median(took) for kind, took in times.items()}
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in decoder.parameters()),
        "tokens": tokens,
        "computed": int(found.token_ids.numel()),
        **row,
        "ratio": row["shared"] / row["flat"],
        "peak_mib": memory,
        "spread": {kind: [tokens / max(took), tokens / min(took)] for kind, took in times.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--length", type=int, default=512, help="tokens of an episode (default: 512)")
    parser.add_argument("--shared", type=float, default=0.7, help="share of it that the group has in common")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write JSON there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name, args.length, args.shared, args.group, args.runs) for name in args.models]
    print(
        f"{'model':6} {'parameters':>12} {'tokens':>7} {'computed':>9} {'flat/s':>9} {'shared/s':>9} {'ratio':>6} "
        f"{'flat MiB':>9} {'shared MiB':>10}"
    )
    for row in rows:
        print(
            f"{row['model']:6} {row['parameters']:12,} {row['tokens']:7} {row['computed']:9} {row['flat']:9.0f} "
            f"{row['shared']:9.0f} {row['ratio']:6.2f} {row['peak_mib']['flat']:9.0f} {row['peak_mib']['shared']:10.0f}"
        )
    print(f"load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, torch {torch.__version__}")
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
