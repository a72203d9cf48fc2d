"""Tokens a processor second of a real checkpoint: our engine, our engine over transformers' model, transformers'
``generate`` and ``generate_batch``, and vLLM, in one run.

    python -m benchmarks.engine.checkpoint CHECKPOINT [--vllm PYTHON] [--runs N] [--smoke]

All in float32 at temperature 1, to the same lengths, one after the other in each round, each round in another order.
Processor seconds are of all processes that work for a peer: where others use the machine, the clock tells little.
Prints a table and writes JSON.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from verigym.agent.vllm_engine import VllmEngine
from verigym.model.chat.protocols import Engine
from verigym.model.chat.sampling import Sampling
from verigym.model.checkpoint import load_decoder
from verigym.model.engine.generator import Generator
from verigym.model.engine.huggingface import HuggingFaceEngine
from verigym.trainer.engines.sizes import Sizes
from verigym.trainer.engines.vllm import VllmProcess, vllm_options
from verigym.trainer.recipe.config import EnginesConfig

from .throughput import Complete, Load, theirs

LOADS = (
    Load(name="24 ragged, 8 at once", batch=8, queue=24, ragged=True, own=24, new=16),
    Load(name="8 of equal lengths", batch=8, own=24, new=24),
    Load(name="8 samples of one prompt", batch=8, common=128, new=16),
)
SMOKE = Load(name="ragged", batch=2, queue=4, ragged=True, own=5, new=3)


def asked_of(connect: Callable[[], Any]) -> Complete:
    """Ask an engine all at once. ``connect`` gives it, on the loop that asks it."""

    def complete(prompts: list[list[int]], news: list[int]) -> list[list[int]]:
        async def together() -> list[list[int]]:
            engine: Engine = await connect()
            asked = (
                engine.generate(prompt, Sampling(max_tokens=new), ()) for prompt, new in zip(prompts, news, strict=True)
            )
            found = [list(answer.token_ids) for answer in await asyncio.gather(*asked)]
            if isinstance(engine, VllmEngine):
                await engine.aclose()
            return found

        return asyncio.run(together())

    return complete


def session_seconds(session: int | None) -> float:
    """Processor seconds of this process, and of all that are in a session."""
    total = time.process_time()
    for entry in Path("/proc").iterdir() if session is not None else ():
        if entry.name.isdigit():
            try:
                fields = entry.joinpath("stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session:
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def start_vllm(python: str, checkpoint: Path, batch: int, context: int, stack: ExitStack) -> tuple[Complete, int]:
    """(vLLM's server, asked all at once; its session)."""
    config = EnginesConfig(kind="vllm", count=1, python=Path(python))
    sizes = Sizes(concurrency=batch, max_context=context, request_seconds=600.0)
    process = VllmProcess(
        python, checkpoint, log=Path("runs/vllm.log"), options=vllm_options(config, sizes, batch), cuda=False
    )
    stack.callback(lambda: asyncio.run(process.aclose()))
    url = asyncio.run(process.url(1200))

    async def connect() -> VllmEngine:
        return await VllmEngine.connect(url, None, concurrency=256)

    return asked_of(connect), process.process_id


def measure(checkpoint: Path, load: Load, runs: int, vllm: str | None) -> list[dict[str, Any]]:
    """Rows of one load: each peer a few tokens to warm up, then all of it ``runs`` times."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    decoder = load_decoder(checkpoint, "cpu").float()
    context = load.longest + 1
    with ExitStack() as stack:
        own = stack.enter_context(Generator(decoder, max_batch=load.batch, max_context=context))
        peers: dict[str, tuple[Complete, int | None]] = {}
        if vllm:
            peers["vllm"] = start_vllm(vllm, checkpoint, load.batch, context, stack)
        slots = stack.enter_context(HuggingFaceEngine(model, max_batch=load.batch, max_context=context))

        def giving(engine: Any) -> Callable[[], Any]:
            async def give() -> Any:
                return engine

            return give

        generate, generate_batch = theirs(model, load.batch)
        peers |= {
            "ours": (asked_of(giving(own)), None),
            "transformers' model, slots": (asked_of(giving(slots)), None),
            "generate": (generate, None),
            "generate_batch": (generate_batch, None),
        }
        rates: dict[str, list[float]] = {name: [] for name in peers}
        computed = reused = 0
        for run in range(-1, runs):
            names = list(peers)[run % len(peers) :] + list(peers)[: run % len(peers)]
            for name in names:
                complete, session = peers[name]
                begun, before = session_seconds(session), own.stats()
                work = load if run >= 0 else SMOKE
                count = work.run(complete, decoder.config.vocab_size, seed=run + 1)
                if run >= 0:
                    rates[name].append(count / (session_seconds(session) - begun))
                if name == "ours":
                    computed = own.stats().prompt_tokens_computed - before.prompt_tokens_computed
                    reused = own.stats().prompt_tokens_reused - before.prompt_tokens_reused
    return [
        {
            "load": load.name,
            "name": name,
            "tokens_per_processor_s": found,
            "median": statistics.median(found),
            "prompt_tokens": [computed, computed + reused] if name == "ours" else None,
        }
        for name, found in rates.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a folder that our decoder opens")
    parser.add_argument("--vllm", metavar="PYTHON", help="interpreter of an environment that has vLLM")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", metavar="TEXT", help="loads whose name holds this")
    parser.add_argument("--smoke", action="store_true", help="a few tokens: no figure to quote")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-checkpoint.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    load_before = os.getloadavg()[0]
    work = [SMOKE] if args.smoke else [load for load in LOADS if args.only in load.name]
    rows = [row for load in work for row in measure(args.checkpoint, load, args.runs, args.vllm)]
    found = {
        "checkpoint": args.checkpoint.name,
        "loads": [load_before, os.getloadavg()[0]],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    table = Table("load", "engine", "tokens a processor second", "lowest to highest", "prompt tokens computed")
    for row in rows:
        rates = row["tokens_per_processor_s"]
        told = "" if row["prompt_tokens"] is None else f"{row['prompt_tokens'][0]:,} of {row['prompt_tokens'][1]:,}"
        table.add_row(
            row["load"], row["name"], f"{row['median']:,.1f}", f"{min(rates):,.1f} to {max(rates):,.1f}", told
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
