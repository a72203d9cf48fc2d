"""One GRPO step of ours beside TRL's: same model, weights, episodes and advantages, on the CPU.

    python benchmarks/trainer/step.py                     the tiny model
    python benchmarks/trainer/step.py --size 100m         at least 100 million parameters
    python benchmarks/trainer/step.py --smoke             a few short episodes, to see that it runs

Episodes are multi-turn and ragged: prompts, sampled turns and observations of drawn lengths. A step is forward, loss
(DAPO's, without a reference), backward, clipping and AdamW. TRL's is what ``GRPOTrainer`` runs for a prepared batch, at
the fastest of several batch sizes: it pads the whole batch of a generation, then splits it. "sorted" pads less than TRL
does: each part by itself, after sorting by length. Ours is ``TrainStep`` over packs, and over one document a pack, to
show what packing alone brings. All take the same number of threads. Tokens are those of the episodes, without padding.
Peak memory is the largest resident set of a process of its own, less what it had before its first step.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verigym.model.checkpoint import load_checkpoint, save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import join, pack
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.objective.objective import loss_of
from verigym.trainer.recipe.algorithms import DAPOConfig
from verigym.trainer.recipe.config import OptimConfig

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "100m": {
        **{"hidden_size": 768, "intermediate_size": 2688, "num_layers": 12, "num_heads": 12, "num_kv_heads": 4},
        **{"head_dim": 64, "vocab_size": 8192, "layer_types": ("sliding_attention", "full_attention") * 6},
    },
}
BATCHES = (2, 4, 8, 16)


def episodes(count: int, longest: int, vocab_size: int, *, group: int = 1) -> list[dict[str, Any]]:
    """Ragged multi-turn episodes: token ids, a mask of the sampled ones, their log-probabilities, an advantage.

    Args:
        group: episodes that begin with one prompt.
    """
    rng = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for number in range(count):
        target = int(rng.integers(longest // 4, longest))
        if number % group:
            ids = made[-1]["ids"][: made[-1]["prompt"]]
            target = max(target, len(ids) + 8)
        else:
            ids = rng.integers(3, vocab_size, max(8, target // 3)).tolist()
        mask = [0] * len(ids)
        prompt = len(ids)
        while len(ids) < target:
            for sampled in (1, 0):
                piece = rng.integers(3, vocab_size, int(rng.integers(4, max(5, longest // 10)))).tolist()
                ids += piece
                mask += [sampled] * len(piece)
        ids, mask = ids[:target], mask[:target]
        mask[prompt] = mask[-1] = 1
        logprobs = np.where(mask, -7.0 + 0.1 * rng.standard_normal(target), np.nan)
        made.append(
            {
                "ids": ids,
                "mask": mask,
                "prompt": prompt,
                "logprobs": logprobs,
                "advantage": float(rng.standard_normal()),
            }
        )
    return made


def our_step(folder: Path, rows: list[dict[str, Any]], *, packed: bool) -> Callable[[], Any]:
    decoder, _ = load_checkpoint(folder)
    optimizer = Optimizer(decoder, OptimConfig(lr=1e-6))
    step = TrainStep(decoder, optimizer, loss_of(DAPOConfig()))
    documents = [
        Document(
            token_ids=np.asarray(row["ids"][:-1]),
            targets=np.asarray(row["ids"][1:]),
            loss_mask=np.asarray(row["mask"][1:], dtype=bool),
            old_logprobs=row["logprobs"][1:].astype(np.float32),
            advantage=row["advantage"],
        )
        for row in rows
    ]
    packs = pack(documents, max_tokens=8192) if packed else [join([one]) for one in documents]
    return lambda: step(packs)


def trl_step(folder: Path, rows: list[dict[str, Any]], *, batch: int, by_length: bool) -> Callable[[], Any]:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                output_dir=out,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                loss_type="dapo",
                epsilon_high=0.28,
                beta=0.0,
                report_to=[],
                per_device_train_batch_size=8,
                num_generations=8,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{"prompt": "x"}] * 8),
            processing_class=AutoTokenizer.from_pretrained(folder),
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    model.train()
    starts = range(0, len(rows), batch)
    if by_length:
        ordered = sorted(rows, key=lambda row: len(row["ids"]))
        inputs = [padded(ordered[start : start + batch]) for start in starts]
    else:
        whole = padded(rows)
        inputs = [{name: column[start : start + batch] for name, column in whole.items()} for start in starts]
    num_items = torch.tensor(sum(sum(row["mask"]) for row in rows))
    trainer.current_gradient_accumulation_steps = len(inputs)
    trainer.args.steps_per_generation = len(inputs)

    def step() -> None:
        for one in inputs:
            trainer._compute_loss(model, {**one, "num_items_in_batch": num_items}).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """TRL's inputs: prompts padded on the left, what follows on the right."""
    left, right = max(row["prompt"] for row in rows), max(len(row["ids"]) - row["prompt"] for row in rows)

    def column(name: str, fill: float, *, prompt: bool) -> torch.Tensor:
        lines = []
        for row in rows:
            values = list(row[name])
            values = values[: row["prompt"]] if prompt else values[row["prompt"] :]
            gap = [fill] * ((left if prompt else right) - len(values))
            lines.append(gap + values if prompt else values + gap)
        return torch.tensor(lines)

    ones = [{**row, "ones": [1] * len(row["ids"])} for row in rows]
    rows = ones
    return {
        "prompt_ids": column("ids", 2, prompt=True),
        "prompt_mask": column("ones", 0, prompt=True),
        "completion_ids": column("ids", 2, prompt=False),
        "completion_mask": column("ones", 0, prompt=False),
        "tool_mask": column("mask", 0, prompt=False),
        "old_per_token_logps": column("logprobs", 0.0, prompt=False).float().nan_to_num(0.0),
        "advantages": torch.tensor([row["advantage"] for row in rows]),
    }


def measure(kind: str, options: dict[str, Any], folder: Path, rows: Any, runs: int, threads: int, pipe: Any) -> None:
    """In a process of its own: seconds of each step after one to warm up, and what the steps added to its memory."""
    torch.set_num_threads(threads)
    step = (our_step if kind == "verigym" else trl_step)(folder, rows, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({"seconds": seconds, "peak_mib": (peak - before) / 1024})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--longest", type=int)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="TRL's batch sizes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    count = args.episodes or (8 if args.smoke else 64 if args.size == "tiny" else 16)
    longest = args.longest or (64 if args.smoke else 640)
    config = preset("cwm-tiny", **SIZES[args.size])
    rows = episodes(count, longest, config.vocab_size)
    tokens = sum(len(row["ids"]) for row in rows)
    batches = BATCHES[:1] if args.smoke else args.batches
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("ours, packed", "verigym", {"packed": True}),
        ("ours, one document a pack", "verigym", {"packed": False}),
        *((f"TRL, batch {batch}", "trl", {"batch": batch, "by_length": False}) for batch in batches),
        ("TRL's loss, sorted, batch 4", "trl", {"batch": 4, "by_length": True}),
    ]
    context = multiprocessing.get_context("spawn")
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        tokenizer = train_tokenizer(["a b c"], 300)
        decoder = Decoder(config, seed=0)
        save_checkpoint(folder, decoder, tokenizer)
        num_parameters = sum(parameter.numel() for parameter in decoder.parameters())
        del decoder
        for name, kind, options in cases:
            ours, theirs = context.Pipe(duplex=False)
            runs = 1 if args.smoke else args.runs
            process = context.Process(target=measure, args=(kind, options, folder, rows, runs, args.threads, theirs))
            process.start()
            theirs.close()
            found = ours.recv()
            process.join()
            median = statistics.median(found["seconds"])
            results[name] = {**found, "median_s": median, "tokens_per_s": tokens / median}
            print(
                f"{name:28} {tokens / median:9.0f} tokens/s  median {median:.3f} s "
                f"({min(found['seconds']):.3f} to {max(found['seconds']):.3f})  + {found['peak_mib']:.0f} MiB",
                flush=True,
            )
    peers = [name for name in results if name.startswith("TRL,")]
    best = max(peers, key=lambda name: results[name]["tokens_per_s"])
    ours = results["ours, packed"]
    ratio = ours["tokens_per_s"] / results[best]["tokens_per_s"]
    alone = ours["tokens_per_s"] / results["ours, one document a pack"]["tokens_per_s"]
    print(f"{num_parameters / 1e6:.1f} M parameters, {count} episodes, {tokens} tokens: {ratio:.2f} x TRL ({best})")
    print(f"packing alone: {alone:.2f} x; memory: {ours['peak_mib'] / max(1, results[best]['peak_mib']):.2f} of TRL's")
    if args.json:
        facts = {
            "parameters": num_parameters,
            "episodes": count,
            "tokens": tokens,
            "threads": args.threads,
            "processor": platform.processor() or platform.machine(),
            **{name: version(name) for name in ("torch", "transformers", "trl")},
        }
        args.json.write_text(json.dumps({**facts, "ratio": ratio, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
