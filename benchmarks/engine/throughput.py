"""Tokens a second of the engine, beside transformers' ``generate`` and ``generate_batch`` (continuous batching).

    python benchmarks/engine/throughput.py                 cwm-tiny and a model of 100 million parameters, on the CPU
    python benchmarks/engine/throughput.py --smoke         a few tokens of each, to see that it runs
    python benchmarks/engine/throughput.py --cuda          decoding's share of the memory floor, on one CUDA device

All three sample from the same weights (float32) at temperature 1, to the same lengths, in one process, one after the
other in each round, each in an order of its own. Where lengths are equal, ``generate`` needs no padding; in the ragged
load it gets left-padded batches, in the order of the queue, each of which lasts as long as its longest answer. Only
tokens that were asked for count. Prints a table and writes JSON.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table

from verigym.model.chat.sampling import Sampling
from verigym.model.checkpoint import save_checkpoint
from verigym.model.config import DecoderConfig, cwm_layer_types, preset
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.tokenizer import train_tokenizer

Complete = Callable[[list[list[int]], list[int]], list[list[int]]]
"""(prompts, new tokens of each) -> the new tokens of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A workload: ``batch`` conversations at once, each of ``turns`` turns of ``new`` sampled tokens.

    Attributes:
        queue: conversations in all, where that is more than ``batch``.
        ragged: ``own`` and ``new`` are means: of lengths spread evenly up to twice the mean, and exponentially, as
            answers' lengths are, up to four times.
        common: tokens at the start that all conversations share; own: tokens after it, of each alone.
        observed: tokens that come between two turns.
    """

    name: str
    batch: int
    queue: int = 0
    ragged: bool = False
    common: int = 0
    own: int = 0
    turns: int = 1
    observed: int = 0
    new: int

    def run(self, complete: Complete, vocab_size: int, seed: int) -> int:
        """Sample all of it. Returns how many tokens were sampled."""
        random = np.random.default_rng(seed)

        def tokens(count: int) -> list[int]:
            return random.integers(8, vocab_size, count).tolist()

        start, count = tokens(self.common), self.queue or self.batch
        owns, news = [self.own] * count, [self.new] * count
        if self.ragged:
            owns = random.integers(1, 2 * self.own, count).tolist()
            news = np.minimum(1 + random.exponential(self.new, count), 4 * self.new).astype(int).tolist()
        prompts = [[*start, *tokens(own)] for own in owns]
        total = 0
        for _ in range(self.turns):
            answers = complete(prompts, news)
            assert list(map(len, answers)) == news, "a peer sampled other numbers of tokens than asked"
            total += sum(map(len, answers))
            prompts = [[*p, *a, *tokens(self.observed)] for p, a in zip(prompts, answers, strict=True)]
        return total

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation, or more."""
        own, new = (2 * self.own, 4 * self.new) if self.ragged else (self.own, self.new)
        return self.common + own + self.turns * (new + self.observed)


def loads(size: str) -> list[Load]:
    if size == "smoke":
        turns = Load(name="turns", batch=2, common=20, turns=2, own=2, observed=2, new=2)
        ragged = Load(name="ragged", batch=2, queue=5, ragged=True, own=5, new=3)
        return [Load(name="batch 2", batch=2, own=8, new=3), turns, ragged]
    if size == "tiny":
        return [
            Load(name="batch 1", batch=1, own=200, new=100),
            Load(name="batch 16", batch=16, own=200, new=100),
            Load(name="batch 64", batch=64, own=200, new=100),
            Load(name="128 ragged, 64 at once", batch=64, queue=128, ragged=True, own=100, new=64),
            Load(name="4 turns of 16, shared prefix", batch=16, common=200, own=30, turns=4, observed=30, new=40),
            Load(name="16 samples of one prompt", batch=16, common=400, new=64),
        ]
    return [
        Load(name="batch 1", batch=1, own=32, new=16),
        Load(name="batch 16", batch=16, own=32, new=16),
        Load(name="batch 64", batch=64, own=32, new=8),
        Load(name="3 turns of 8, shared prefix", batch=8, common=96, own=8, turns=3, observed=8, new=8),
        Load(name="16 samples of one prompt", batch=16, common=128, new=16),
    ]


def hundred_million() -> DecoderConfig:
    """CWM's proportions at a width of 768: 103 million parameters."""
    return replace(
        preset("cwm-tiny"),
        vocab_size=8192,
        hidden_size=768,
        intermediate_size=2688,
        num_layers=12,
        num_heads=12,
        num_kv_heads=2,
        head_dim=64,
        layer_types=cwm_layer_types(12),
        sliding_window=256,
    )


def ours(engine: Generator) -> Complete:
    def complete(prompts: list[list[int]], news: list[int]) -> list[list[int]]:
        async def together() -> list[list[int]]:
            asked = ((prompt, Sampling(max_tokens=new), ()) for prompt, new in zip(prompts, news, strict=True))
            answers = await asyncio.gather(*(engine.generate(*one) for one in asked))
            return [list(answer.token_ids) for answer in answers]

        return asyncio.run(together())

    return complete


def theirs(model: Any, batch: int) -> tuple[Complete, Complete]:
    """``generate``, ``batch`` prompts at once, and what ``generate_batch`` is made of, told each request's length."""
    # No token has the id -1, so nothing ends early.
    plain = {"do_sample": True, "top_k": 0, "temperature": 1.0, "pad_token_id": 2, "eos_token_id": -1}

    def generate(prompts: list[list[int]], news: list[int]) -> list[list[int]]:
        found: list[list[int]] = []
        for start in range(0, len(prompts), batch):
            part, new = prompts[start : start + batch], news[start : start + batch]
            width = max(map(len, part))
            ids = torch.tensor([[2] * (width - len(prompt)) + prompt for prompt in part])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part])
            config = transformers.GenerationConfig(**plain, max_new_tokens=max(new))
            out = model.generate(ids, attention_mask=mask, generation_config=config)[:, width:].tolist()
            found += [row[:count] for row, count in zip(out, new, strict=True)]
        return found

    def generate_batch(prompts: list[list[int]], news: list[int]) -> list[list[int]]:
        config = transformers.GenerationConfig(**plain, max_new_tokens=max(news))
        longest = max(map(len, prompts)) + max(news)
        batching = transformers.ContinuousBatchingConfig(
            page_size=32, num_blocks=batch * (longest // 32 + 2), max_batch_tokens=8192
        )
        found: dict[str, list[int]] = {}
        with model.continuous_batching_context_manager(
            generation_config=config, continuous_batching_config=batching, block=True, timeout=5
        ) as manager:
            names = [manager.add_request(ids, max_new_tokens=new) for ids, new in zip(prompts, news, strict=True)]
            while len(found) < len(names):
                row = manager.get_result(timeout=1)
                if row is not None and row.is_finished():
                    found[row.request_id] = list(row.generated_tokens)
                assert row is not None or manager.is_running(), "continuous batching ended early"
        return [found[name] for name in names]

    return generate, generate_batch


def compare(config: DecoderConfig, work: Sequence[Load], runs: int) -> list[dict[str, Any]]:
    """All loads, ``runs`` times each after one to warm up; the engine is new for each load."""
    decoder = Decoder(config)
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(folder, decoder, train_tokenizer(["a few words"], 320))
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = []
    for load in work:
        generate, generate_batch = theirs(model, load.batch)
        with Generator(decoder, max_batch=load.batch, max_context=load.longest + 1) as engine:
            peers = {"ours": ours(engine), "generate": generate, "generate_batch": generate_batch}
            rates: dict[str, list[float]] = {name: [] for name in peers}
            errors: dict[str, str] = {}
            for run in range(-1, runs):
                before = engine.stats()
                order = list(peers.items())
                for name, complete in order[run % 3 :] + order[: run % 3]:  # none always comes after the same other
                    if name in errors:
                        continue
                    started = time.perf_counter()
                    try:
                        count = load.run(complete, config.vocab_size, seed=run + 1)
                    except Exception as error:  # a peer that cannot do it is a row too
                        errors[name] = f"{type(error).__name__}: {error}"
                        continue
                    if run >= 0:
                        rates[name].append(count / (time.perf_counter() - started))
            computed = engine.stats().prompt_tokens_computed - before.prompt_tokens_computed
        given = load.batch * sum(
            load.common + load.own + turn * (load.new + load.observed) for turn in range(load.turns)
        )
        if load.ragged:
            given = computed + engine.stats().prompt_tokens_reused - before.prompt_tokens_reused
        rows += [
            {
                "load": load.name,
                "name": name,
                "tokens_per_s": rates[name],
                "median": statistics.median(rates[name]) if rates[name] else None,
                "prompt_tokens": given,
                "prompt_tokens_computed": computed if name == "ours" else None,
                "error": errors.get(name),
            }
            for name in peers
        ]
    return rows


def decode_floor(config: DecoderConfig, batch: int, context: int, steps: int) -> dict[str, Any]:
    """On CUDA in bfloat16: time of a decoding step, and the least that reading weights, keys and values takes."""
    with torch.device("meta"):
        decoder = Decoder(config).to(torch.bfloat16)
    decoder.to_empty(device="cuda").init_weights(0)
    weights = sum(p.numel() * p.element_size() for p in decoder.parameters()) - decoder.embed.weight.numel() * 2
    seen = [min(context, config.window_of(layer) or context) for layer in range(config.num_layers)]
    kv = batch * sum(seen) * 2 * config.num_kv_heads * config.head_dim * 2
    bandwidth = _copy_bandwidth()
    prompts = [list(range(8, 8 + context - steps)) for _ in range(batch)]

    def sampled(new: int) -> float:
        started = time.perf_counter()
        ours(engine)(prompts, [new] * batch)
        return time.perf_counter() - started

    with Generator(decoder, max_batch=batch, max_context=context + 1, device="cuda") as engine:
        sampled(steps)
        # The same prompt again is found; the difference is decoding alone.
        times = [(sampled(steps) - sampled(1)) / (steps - 1) for _ in range(5)]
    step, floor = statistics.median(times), (weights + kv) / bandwidth
    return {
        "batch": batch,
        "context": context,
        "step_ms": step * 1e3,
        "floor_ms": floor * 1e3,
        "share_of_floor": floor / step,
        "bandwidth_gb_per_s": bandwidth / 1e9,
    }


def _copy_bandwidth() -> float:
    """Bytes a second that the device reads and writes in a plain copy, the best of ten."""
    block = torch.empty(2**30, dtype=torch.int8, device="cuda")
    other = torch.empty_like(block)
    best = float("inf")
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        other.copy_(block)
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return 2 * block.numel() / best


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="torch's threads, for all three")
    parser.add_argument("--models", nargs="+", choices=("tiny", "100m"), default=["tiny", "100m"])
    parser.add_argument("--only", default="", metavar="TEXT", help="loads whose name holds this")
    parser.add_argument("--smoke", action="store_true", help="a few tokens of cwm-tiny: no figure to quote")
    parser.add_argument("--cuda", action="store_true", help="the memory floor instead, on a CUDA device")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-engine.json"))
    args = parser.parse_args(argv)
    if args.cuda and not torch.cuda.is_available():
        print("there is no CUDA device; without --cuda the engine is measured on the CPU", file=sys.stderr)
        return 2
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if args.cuda else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": args.threads,
    }
    if args.cuda:
        found["rows"] = _all_floors()
    else:
        before = torch.get_num_threads()
        torch.set_num_threads(args.threads)
        transformers.logging.set_verbosity_error()
        try:
            if args.smoke:
                found["rows"] = [{"model": "cwm-tiny"} | row for row in compare(preset("cwm-tiny"), loads("smoke"), 1)]
            else:
                configs = {"tiny": preset("cwm-tiny"), "100m": hundred_million()}
                found["rows"] = [
                    {"model": name} | row
                    for name in args.models
                    for row in compare(configs[name], [one for one in loads(name) if args.only in one.name], args.runs)
                ]
        finally:
            torch.set_num_threads(before)
    found["load_after"] = os.getloadavg()[0]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    Console().print(_floor_table(found) if args.cuda else _rate_table(found))
    return 0


def _all_floors() -> list[dict[str, Any]]:
    rows = []
    for name in ("cwm-32b-slice", "cwm-32b"):
        config = preset(name)
        with torch.device("meta"):
            size = 2 * sum(parameter.numel() for parameter in Decoder(config).parameters())
        if size > 0.85 * torch.cuda.get_device_properties(0).total_memory:
            rows.append({"model": name, "error": f"{size / 2**30:.0f} GiB of weights do not fit"})
            continue
        rows += [{"model": name} | decode_floor(config, batch, 2048, 65) for batch in (1, 16)]
        torch.cuda.empty_cache()
    return rows


def _rate_table(found: dict[str, Any]) -> Table:
    table = Table("model", "load", "engine", "tokens/s", "lowest to highest", "prompt tokens", "of them computed")
    for row in found["rows"]:
        rates = row["tokens_per_s"]
        middle = f"{row['median']:,.0f}" if rates else row["error"] or ""
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}" if rates else ""
        computed = "" if row["prompt_tokens_computed"] is None else f"{row['prompt_tokens_computed']:,}"
        table.add_row(row["model"], row["load"], row["name"], middle, spread, f"{row['prompt_tokens']:,}", computed)
    return table


def _floor_table(found: dict[str, Any]) -> Table:
    table = Table("model", "batch", "context", "ms a step", "floor", "share of the floor's rate", title=found["device"])
    for row in found["rows"]:
        if "error" in row:
            table.add_row(row["model"], "", "", row["error"], "", "")
            continue
        times = (f"{row['step_ms']:.2f}", f"{row['floor_ms']:.2f}", f"{row['share_of_floor']:.0%}")
        table.add_row(row["model"], str(row["batch"]), f"{row['context']:,}", *times)
    return table


if __name__ == "__main__":
    sys.exit(main())
