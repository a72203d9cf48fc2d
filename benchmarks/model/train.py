"""Training speed of the decoder on one device: the full model's width, few layers, packs of several lengths.

    python benchmarks/model/train.py                 8k, 32k and 131k tokens of cwm-32b-slice on one CUDA device
    python benchmarks/model/train.py --smoke         a tiny model on the CPU, to see that it runs

Prints a table and writes JSON. A step is forward, loss (fused log-probabilities and entropies of every token), backward
and AdamW, with weights, gradients and moments in bfloat16 on CUDA (float32 in the smoke size). MFU counts what the
mathematics needs, 6 FLOP a weight and token and 12 a channel and query-key pair that mask and window leave, and no
recomputation, against --peak.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from verigym.model.attention import Documents
from verigym.model.config import DecoderConfig, preset
from verigym.model.decoder import Decoder
from verigym.model.parallel.layout import Layout
from verigym.model.parallel.recompute import recompute_layers
from verigym.model.plan.attention import num_pairs

PEAK_TFLOPS = 989.0  # dense bfloat16, H100 SXM and H200, NVIDIA's data sheets


def flops_of_step(config: DecoderConfig, lengths: Sequence[int]) -> int:
    """What forward and backward need: three times the forward."""
    with torch.device("meta"):
        decoder = Decoder(config)
    # Looking up an embedding is no product.
    weights = sum(p.numel() for p in decoder.parameters() if p.dim() == 2) - decoder.embed.weight.numel()
    pairs = sum(num_pairs(lengths, lengths, config.window_of(layer)) for layer in range(config.num_layers))
    return 6 * weights * sum(lengths) + 12 * pairs * config.num_heads * config.head_dim


def measure(
    config: DecoderConfig, num_tokens: int, *, device: str, recompute: Any, warmups: int, runs: int
) -> dict[str, Any]:
    """Times of steps on one document of ``num_tokens``."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with torch.device("meta"):
        decoder = Decoder(config).to(dtype)
    decoder.to_empty(device=device).init_weights(0)
    recompute_layers(decoder.layers, Layout(recompute=recompute))
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-5, fused=True)
    documents = Documents.from_lengths([num_tokens], device=device)
    generator = torch.Generator(device=device).manual_seed(0)
    ids = torch.randint(config.vocab_size, (num_tokens,), device=device, generator=generator)
    targets = ids.roll(-1)
    seconds = []
    for run in range(warmups + runs):
        _wait(device)
        started = time.perf_counter()
        logprobs, entropy = decoder.score(ids, documents, targets)
        (-(logprobs + 0.001 * entropy).mean()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)
        if run >= warmups:
            seconds.append(time.perf_counter() - started)
    flops = flops_of_step(config, [num_tokens])
    median = statistics.median(seconds)
    return {
        "tokens": num_tokens,
        "layers": config.num_layers,
        "recompute": recompute,
        "seconds": seconds,
        "median_s": median,
        "spread_s": max(seconds) - min(seconds),
        "tokens_per_s": num_tokens / median,
        "model_tflops": flops / median / 1e12,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32_768, 131_072])
    parser.add_argument("--recompute", choices=("none", "selective", "full"), default="full")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peak", type=float, default=PEAK_TFLOPS, help="TFLOP/s that MFU is a share of")
    parser.add_argument("--smoke", action="store_true", help="cwm-tiny on the CPU: no figure to quote")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-model.json"))
    args = parser.parse_args(argv)
    device = "cpu" if args.smoke else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device; --smoke runs a tiny model on the CPU", file=sys.stderr)
        return 2
    config = preset("cwm-tiny" if args.smoke else "cwm-32b-slice")
    tokens, runs, warmups = ([96, 192], 2, 1) if args.smoke else (args.tokens, args.runs, 2)
    rows = []
    for count in tokens:
        row = measure(config, count, device=device, recompute=args.recompute, warmups=warmups, runs=runs)
        row["mfu"] = None if args.smoke else row["model_tflops"] / args.peak
        rows.append(row)
    found = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU",
        "torch": torch.__version__,
        "model": "cwm-tiny" if args.smoke else "cwm-32b-slice",
        "peak_tflops": args.peak,
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    table = Table(
        "tokens", "s a step", "spread", "tokens/s", "TFLOP/s", "MFU", title=f"{found['model']}, {found['device']}"
    )
    for row in rows:
        mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
        values = (f"{row['median_s']:.3f}", f"{row['spread_s']:.3f}", f"{row['tokens_per_s']:,.0f}")
        table.add_row(f"{row['tokens']:,}", *values, f"{row['model_tflops']:.3f}", mfu)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
