"""One step of on-policy distillation of ours beside TRL's: same models, weights and episodes, on the CPU.

    python benchmarks/trainer/distill.py                     the tiny model
    python benchmarks/trainer/distill.py --size 100m --episodes 6 --longest 320 --runs 3 --json distill-100m.json
                                                             at least 100 million parameters, few and shorter episodes
    python benchmarks/trainer/distill.py --group 8           groups of episodes of one prompt, as they are sampled
    python benchmarks/trainer/distill.py --smoke             a few short episodes, to see that it runs

Episodes are those of ``step.py``, and the teacher has the student's shape and other weights. A step is the teacher's
forward, the divergence over the whole vocabulary, backward, clipping and AdamW. Ours computes once what episodes share
(``share_prefixes = "auto"``), if they do. TRL's is what ``DistillationTrainer`` runs for a prepared batch, of both
divergences, at the fastest of several batch sizes. "GRPO" is our step without a teacher. What is measured is processor
seconds of the process, with one thread: on a machine that others use too, wall clock says little.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from step import SIZES, episodes, padded

from verigym.model.checkpoint import load_checkpoint, save_checkpoint
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.experience import Scorer, annotate
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.objective.objective import divergence_of, loss_of
from verigym.trainer.objective.teacher import Teachers
from verigym.trainer.recipe.algorithms import GRPOConfig, OPDConfig, RLConfig
from verigym.trainer.recipe.config import OptimConfig

MAX_TOKENS = 8192
KINDS = ("grpo", "sampled", "reverse", "jensen_shannon")
BETAS = {"reverse": 1.0, "jensen_shannon": 0.5}
"""What TRL calls them."""


def documents_of(rows: list[dict[str, Any]]) -> list[Document]:
    return [
        Document(
            token_ids=np.asarray(row["ids"][:-1]),
            targets=np.asarray(row["ids"][1:]),
            loss_mask=np.asarray(row["mask"][1:], dtype=bool),
            old_logprobs=row["logprobs"][1:].astype(np.float32),
            advantage=row["advantage"],
            taught="teacher",
        )
        for row in rows
    ]


def our_steps(folder: Path, rows: list[dict[str, Any]], *, kinds: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Of kinds "grpo", "sampled", or exact divergences; all of the same two models."""
    decoder, _ = load_checkpoint(folder / "student")
    teacher, _ = load_checkpoint(folder / "teacher")
    teacher.requires_grad_(False)
    return {kind: _our_step(decoder, teacher, documents_of(rows), kind) for kind in kinds}


def _our_step(decoder: Decoder, teacher: Decoder, documents: list[Document], kind: str) -> Callable[[], Any]:
    config: RLConfig = GRPOConfig() if kind == "grpo" else OPDConfig(teacher="teacher", divergence={"kind": kind})
    teachers = None if kind == "grpo" else Teachers({"teacher": teacher}, divergence_of(config))
    exact = kind not in ("grpo", "sampled")
    step = TrainStep(
        decoder, Optimizer(decoder, OptimConfig(lr=1e-6)), loss_of(config), teachers=teachers if exact else None
    )
    scorer = Scorer(decoder, config, teachers=teachers)

    def run() -> None:
        found = annotate(documents, config, scorer.columns, share="auto") if kind == "sampled" else documents
        step(pack([replace(one, columns={}) for one in found], max_tokens=MAX_TOKENS, share="auto"))

    return run


def trl_step(folder: Path, rows: list[dict[str, Any]], *, batch: int) -> dict[str, Callable[[], Any]]:
    from transformers import AutoModelForCausalLM
    from trl.trainer.distillation_trainer import DistillationTrainer

    student = AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32)
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.float32)
    stub: Any = SimpleNamespace(
        **{"teacher_model": teacher, "temperature": 1.0, "_is_vlm": False},
        accelerator=SimpleNamespace(unwrap_model=lambda model: model, is_main_process=False),
        model_kwarg_keys={"logits_to_keep"},
        _forward_redirection=lambda wrapper, model, method, *args, **kwargs: method(*args, **kwargs),
    )
    stub._get_last_hidden_state = lambda *args, **kwargs: DistillationTrainer._get_last_hidden_state(
        stub, *args, **kwargs
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    student.train()
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")
    whole = padded(rows)
    starts = range(0, len(rows), batch)
    inputs = [{name: whole[name][start : start + batch] for name in names} for start in starts]
    count = torch.tensor(sum(sum(row["mask"]) for row in rows))

    def step(beta: float) -> None:
        stub.beta = beta
        for one in inputs:
            DistillationTrainer._compute_loss(stub, student, one, count)[0].backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {f"TRL {kind}, batch {batch}": partial(step, beta) for kind, beta in BETAS.items()}


def measure(peer: str, options: dict[str, Any], folder: Path, rows: Any, runs: int, pipe: Any) -> None:
    """In a process of its own: processor seconds of each step after one to warm up, by its name. Several steps are
    taken in turns, so that what else the machine does meets all of them."""
    torch.set_num_threads(1)
    steps = (our_steps if peer == "verigym" else trl_step)(folder, rows, **options)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(runs + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:
                seconds[name].append(time.process_time() - started)
    pipe.send(seconds)


def save_models(folder: Path, config: Any) -> int:
    """A student and a teacher; returns the parameters of each."""
    tokenizer = train_tokenizer(["a b c"], 300)
    for seed, name in enumerate(("student", "teacher")):
        decoder = Decoder(config, seed=seed)
        save_checkpoint(folder / name, decoder, tokenizer)
    return sum(parameter.numel() for parameter in decoder.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--longest", type=int)
    parser.add_argument("--group", type=int, default=1, help="episodes that begin with one prompt")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=(2, 4, 8), help="TRL's batch sizes")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    count = args.episodes or (8 if args.smoke else 64 if args.size == "tiny" else 16)
    config = preset("cwm-tiny", **SIZES[args.size])
    rows = episodes(count, args.longest or (64 if args.smoke else 640), config.vocab_size, group=args.group)
    tokens = sum(len(row["ids"]) for row in rows)
    batches = args.batches[:1] if args.smoke else args.batches
    cases = [("verigym", {"kinds": KINDS}), *(("trl", {"batch": batch}) for batch in batches)]
    context, results = multiprocessing.get_context("spawn"), {}
    with tempfile.TemporaryDirectory() as scratch:
        num_parameters = save_models(Path(scratch), config)
        for peer, options in cases:
            mine, theirs = context.Pipe(duplex=False)
            runs = 1 if args.smoke else args.runs
            process = context.Process(target=measure, args=(peer, options, Path(scratch), rows, runs, theirs))
            process.start()
            theirs.close()
            found = mine.recv()
            process.join()
            for name, seconds in found.items():
                median = statistics.median(seconds)
                results[name] = {"seconds": seconds, "median_s": median, "tokens_per_s": tokens / median}
                print(
                    f"{name:28} {tokens / median:9.0f} tokens a processor second  median {median:.3f} s "
                    f"({min(seconds):.3f} to {max(seconds):.3f})",
                    flush=True,
                )
    ratios = {}
    for kind in BETAS:
        best = max(result["tokens_per_s"] for name, result in results.items() if name.startswith(f"TRL {kind}"))
        ratios[kind] = results[kind]["tokens_per_s"] / best
    base = results["grpo"]["seconds"]
    costs = {
        name: statistics.median(mine / grpo for mine, grpo in zip(results[name]["seconds"], base, strict=True))
        for name in KINDS
    }
    print(f"{num_parameters / 1e6:.1f} M parameters, {count} episodes, {tokens} tokens")
    print("tokens a second beside TRL's best: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    print("cost beside a GRPO step: " + ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items()))
    if args.json:
        facts = {
            "parameters": num_parameters,
            "episodes": count,
            "group": args.group,
            "tokens": tokens,
            "threads": 1,
            "processor": platform.processor() or platform.machine(),
            **{name: version(name) for name in ("torch", "transformers", "trl")},
        }
        args.json.write_text(
            json.dumps({**facts, "ratios": ratios, "costs": costs, "results": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
