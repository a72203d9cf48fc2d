"""Does a tiny model that was trained on traces know what programs return?

    python -P benchmarks/traces/claim.py --out DIR [--seconds 150] [--programs 2500] [--held-out 100] [--seed 0]

Two models of the same shape, tokenizer, optimizer and wall clock on the same generated programs: one is trained on
traces, the other on the same programs with the returned value alone (context, then the last frame of its trace). Both
predict what held-out programs return: the first writes the trace, greedily, and its last value counts; the second
writes the last frame. A model without any training is measured beside them. The folder gets ``report.json`` and the
checkpoints; ``checkpoint-traces`` is what ``verigym debug`` takes.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150.0, help="of each training")
    parser.add_argument("--programs", type=int, default=2500)
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--parts", nargs="+", choices=["traces", "answers"], default=["traces", "answers"])
    parser.add_argument("--go-on", action="store_true", help="with the weights of --out, for as long again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=6e-3)
    parser.add_argument("--muon-lr", type=float, default=2e-3)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    report = asyncio.run(_run(args))
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 0


async def _run(args: argparse.Namespace) -> dict[str, Any]:
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.trace.make import make_from_programs
    from verigym.envs.trace.shards import MANIFEST, read_shards
    from verigym.model.chat.trace import TraceFormat, texts_of_trace
    from verigym.model.checkpoint import load_checkpoint, save_checkpoint
    from verigym.model.config import preset
    from verigym.model.decoder import Decoder
    from verigym.model.tokenizer import train_tokenizer

    data = args.out / "traces"
    if not (data / MANIFEST).exists():
        num = args.programs + args.held_out
        await make_from_programs("small-programs", num, data, seed=args.seed, backend=make_backend("local"))
    traces = [example.trace for example in read_shards(data)]
    random.Random(args.seed).shuffle(traces)
    held_out, learned = traces[: args.held_out], traces[args.held_out :]
    known = {trace.context for trace in learned}
    assert not any(trace.context in known for trace in held_out), "a held-out program was trained on"
    tokenizer = train_tokenizer((text for one in learned[:1000] for text in texts_of_trace(one)), 512)
    form = TraceFormat(tokenizer)
    answers = [replace(trace, frames=trace.frames[-1:]) for trace in learned]
    kept = args.out / "verdicts.json"  # of the parts that earlier calls trained
    saved = json.loads(kept.read_text()) if kept.exists() else {"results": {}, "report": {}}
    results, report = saved["results"], saved["report"]
    for name, documents in (("traces", learned), ("answers", answers)):
        if name not in args.parts:
            continue
        decoder = Decoder(preset("cwm-tiny", vocab_size=tokenizer.vocab_size), seed=args.seed)
        if args.go_on:
            decoder, _ = load_checkpoint(args.out / f"checkpoint-{name}")
        elif name == "traces":
            results["untrained"] = await _returns(decoder, form, held_out)
        before = report.get(name, {}) if args.go_on else {}
        trained = _train(decoder, documents, form, args, int(before.get("updates", 0)))
        trained = {**trained, **{key: trained[key] + before.get(key, 0) for key in ("updates", "seconds")}}
        results[name] = await _returns(decoder, form, held_out)
        report[name] = {**trained, "held_out_returns": sum(results[name]) / len(held_out)}
        save_checkpoint(args.out / f"checkpoint-{name}", decoder, tokenizer)
    kept.write_text(json.dumps({"results": results, "report": report}))
    report["untrained"] = {"held_out_returns": sum(results["untrained"]) / len(held_out)}
    for control in {"answers", "untrained"} & results.keys():
        report[f"traces - {control}"] = _difference(results["traces"], results[control])
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": args.threads,
        "load": os.getloadavg(),
    }
    return {
        "seed": args.seed,
        "num_programs": len(learned),
        "num_held_out": len(held_out),
        "machine": machine,
        **report,
    }


def _difference(after: list[bool], before: list[bool]) -> dict[str, Any]:
    """Mean difference on the same programs, with its 95 % interval by the normal approximation."""
    differences = [int(one) - int(other) for one, other in zip(after, before, strict=True)]
    mean = statistics.fmean(differences)
    half = 1.96 * statistics.stdev(differences) / len(differences) ** 0.5
    return {"mean": mean, "interval": [mean - half, mean + half]}


def _train(decoder: Any, traces: Any, form: Any, args: argparse.Namespace, before: int) -> dict[str, Any]:
    from verigym.trainer.config import MidtrainConfig, OptimConfig
    from verigym.trainer.midtrain import Midtrain, trace_document

    documents = [trace_document(trace, form, context_weight=0.0) for trace in traces]
    config = MidtrainConfig(batch_tokens=2048, microbatch_tokens=2048, max_steps=10**6, patience=0, context_weight=0.0)
    optim = OptimConfig(lr=args.lr, matrices="muon", muon_lr=args.muon_lr, warmup_steps=20)
    loop = Midtrain(
        decoder, {"traces": documents}, {"traces": 1.0}, config=config, optim=optim, seed=args.seed + before
    )
    losses: list[float] = []
    began = time.monotonic()
    loop.run(on_step=lambda step: losses.append(step.metrics["trainer/loss/mean"]), seconds=args.seconds)
    seconds = time.monotonic() - began
    print(f"{loop.num_steps} updates in {seconds:.0f} s, loss {losses[0]:.3f} ... {losses[-1]:.3f}", file=sys.stderr)
    return {"updates": loop.num_steps, "seconds": seconds, "last_loss": sum(losses[-20:]) / len(losses[-20:])}


async def _returns(decoder: Any, form: Any, held_out: Any) -> list[bool]:
    """Whether the last value that a model writes is the one that was returned."""
    from verigym.agent.prediction import EnginePredictor
    from verigym.errors import PolicyError
    from verigym.model.engine.generator import Generator

    async with Generator(decoder, max_batch=32, max_context=1536) as engine:
        predictor = EnginePredictor(engine, form)

        async def one(trace: Any) -> bool:
            try:
                predicted = await predictor.rest(replace(trace, frames=(), ended=False), max_tokens=1000)
            except PolicyError:
                return False
            frames = predicted.frames
            return bool(frames) and frames[-1].event == "return" and frames[-1].value == trace.frames[-1].value

        return list(await asyncio.gather(*(one(trace) for trace in held_out)))


if __name__ == "__main__":
    sys.exit(main())
