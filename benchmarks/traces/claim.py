"""Does a tiny model that was trained on traces know what programs return?

    python -P benchmarks/traces/claim.py --out DIR [--updates 2000] [--programs 5000] [--held-out 150] [--seed 0]

Two models of the same shape, tokenizer and optimizer on the same generated programs: "traces" is trained on traces for
``--updates`` updates, "values" for as many processor seconds on the same programs with the returned value alone
(context, then the last frame of the trace). Both predict what held-out programs return: the first writes the trace,
greedily, and its last value counts; the second writes the last frame. Beside them: a model without any training, the
commonest value, and the better of the two arguments. No held-out function is trained on with any arguments, nor one
that differs from it in names alone.

A call that is cut off goes on where the last one saved. The folder gets ``report.json`` and the checkpoints;
``checkpoint-traces`` is what ``verigym debug`` takes.
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
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

SAVE_EVERY = 50
"""Updates between two saves of a training."""
SHAPE: dict[str, Any] = {
    "layer_types": ("sliding_attention", "full_attention", "sliding_attention", "full_attention"),
    "sliding_window": 32,
}
"""What differs from the preset: a value is bound to its name nearby (sliding) before it is looked up afar (full)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=int, default=2000, help="of the model that sees traces")
    parser.add_argument("--programs", type=int, default=5000)
    parser.add_argument("--held-out", type=int, default=150)
    parser.add_argument("--values-seconds", type=float, help="of the processor, for the other one (as many as it took)")
    parser.add_argument("--parts", nargs="+", choices=["traces", "values"], default=["traces", "values"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2048)
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
    from verigym.model.chat.trace import texts_of_trace
    from verigym.model.chat.trace_tokens import TraceFormat
    from verigym.model.checkpoint import save_checkpoint
    from verigym.model.config import preset
    from verigym.model.decoder import Decoder
    from verigym.model.tokenizer import train_tokenizer

    held_out, learned = await _programs(args)
    tokenizer = train_tokenizer((text for one in learned[:1000] for text in texts_of_trace(one)), 512)
    form = TraceFormat(tokenizer)
    known = _Known(args.out / "verdicts.json")
    values = [replace(trace, frames=trace.frames[-1:]) for trace in learned]
    for name, documents in (("traces", learned), ("values", values)):
        if name not in args.parts:
            continue
        shape = preset("cwm-tiny", vocab_size=tokenizer.vocab_size, **SHAPE)
        decoder = Decoder(shape, seed=args.seed)
        if "untrained" not in known.results:
            known.add("untrained", _right(await _written(decoder, form, held_out), held_out))
        seconds = None
        if name == "values":
            seconds = args.values_seconds or known.report["traces"]["processor_seconds"]
        trained = _train(name, decoder, tokenizer, documents, form, args, seconds)
        written = await _written(decoder, form, held_out)
        if name == "traces":
            trained["first_wrong_frames"] = _first_wrong(written, held_out)
        save_checkpoint(args.out / f"checkpoint-{name}", decoder, tokenizer)
        known.add(name, _right(written, held_out), trained)
    return {
        "seed": args.seed,
        "num_programs": len(learned),
        "num_held_out": len(held_out),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": args.threads},
        "load": os.getloadavg(),
        **known.report,
        **_compared(known.results | _trivial(held_out, learned)),
    }


class _Known:
    """What the parts gave, kept in a file, so that each can be a call of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: dict[str, list[bool]] = {}
        self.report: dict[str, Any] = {}
        self._read()

    def _read(self) -> None:
        if self._path.exists():
            kept = json.loads(self._path.read_text())
            self.results, self.report = kept["results"], kept["report"]

    def add(self, name: str, right: list[bool], trained: dict[str, Any] | None = None) -> None:
        self._read()
        self.results[name] = right
        if trained is not None:
            self.report[name] = trained
        self._path.write_text(json.dumps({"results": self.results, "report": self.report}))


async def _programs(args: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Held-out traces, each of another function, and those to learn from, none of which has a held-out function."""
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.trace.make import make_from_programs
    from verigym.envs.trace.shards import MANIFEST, read_shards
    from verigym.envs.trace.twins import twin_key

    data = args.out / "traces"
    if not (data / MANIFEST).exists():
        num = args.programs + args.held_out
        await make_from_programs("small-programs", num, data, seed=args.seed, backend=make_backend("local"))
    traces = [example.trace for example in read_shards(data)]
    random.Random(args.seed).shuffle(traces)
    held_out: dict[str, Any] = {}
    for trace in traces:
        if len(held_out) < args.held_out:
            held_out.setdefault(twin_key(trace.context), trace)
    return list(held_out.values()), [trace for trace in traces if twin_key(trace.context) not in held_out]


def _trivial(held_out: Sequence[Any], learned: Sequence[Any]) -> dict[str, list[bool]]:
    """The commonest returned value of the programs to learn from, and the better of the two arguments."""
    ((commonest, _),) = Counter(trace.frames[-1].value for trace in learned).most_common(1)
    given = [list(trace.frames[2].locals.values()) for trace in held_out]
    true = [trace.frames[-1].value for trace in held_out]
    copied = [[row[at] == value for row, value in zip(given, true, strict=True)] for at in (0, 1)]
    return {"commonest value": [value == commonest for value in true], "an argument": max(copied, key=sum)}


def _train(
    name: str,
    decoder: Any,
    tokenizer: Any,
    traces: Sequence[Any],
    form: Any,
    args: argparse.Namespace,
    seconds: float | None,
) -> dict[str, Any]:
    """Train to the end, from where an earlier call was cut off.

    Args:
        seconds: of the processor, in place of ``args.updates``.
    """
    from verigym.trainer.loops.midtrain import Midtrain, trace_document
    from verigym.trainer.recipe.config import MidtrainConfig, OptimConfig
    from verigym.trainer.run.checkpoint import latest, load_training, save_training

    steps = args.updates if seconds is None else 10**6
    config = MidtrainConfig(
        batch_tokens=args.batch_tokens,
        microbatch_tokens=args.batch_tokens,
        max_steps=steps,
        patience=0,
        context_weight=0.0,
    )
    schedule: dict[str, Any] = {} if seconds is not None else {"schedule": "cosine", "total_steps": steps}
    optim = OptimConfig(lr=args.lr, matrices="muon", muon_lr=args.muon_lr, warmup_steps=20, **schedule)
    documents = [trace_document(trace, form, context_weight=0.0) for trace in traces]
    loop = Midtrain(decoder, {"traces": documents}, {"traces": 1.0}, config=config, optim=optim, seed=args.seed)
    folder, before, losses = args.out / f"steps-{name}", 0.0, []
    found = latest(folder)
    if found is not None:
        state = load_training(found, decoder)
        loop.load_state_dict(state.trainer)
        before = float(state.info["processor_seconds"])
    began = time.process_time()

    def on_step(step: Any) -> None:
        losses.append(step.metrics["trainer/loss/mean"])
        used = before + time.process_time() - began
        if seconds is not None and used >= seconds:
            loop.stop()
        if step.step % SAVE_EVERY == 0 or loop.stopping or loop.finished:
            info = {"processor_seconds": used}
            save_training(
                folder, step=step.step, decoder=decoder, tokenizer=tokenizer, trainer=loop.state_dict(), info=info
            )
            mean = statistics.fmean(losses[-SAVE_EVERY:])
            print(f"{name}: {step.step} updates, {used:.0f} processor seconds, loss {mean:.4f}", file=sys.stderr)

    loop.run(on_step=on_step)
    return {
        "updates": loop.num_steps,
        "processor_seconds": round(before + time.process_time() - began, 1),
        "last_loss": statistics.fmean(losses[-SAVE_EVERY:]) if losses else None,
    }


async def _written(decoder: Any, form: Any, held_out: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The frames that a model writes for each program, greedily; () where it writes no trace."""
    from verigym.agent.prediction import EnginePredictor
    from verigym.errors import PolicyError
    from verigym.model.engine.generator import Generator

    async with Generator(decoder, max_batch=32, max_context=1536) as engine:
        predictor = EnginePredictor(engine, form)

        async def one(trace: Any) -> tuple[Any, ...]:
            try:
                return (await predictor.rest(replace(trace, frames=(), ended=False), max_tokens=1000)).frames
            except PolicyError:
                return ()

        return list(await asyncio.gather(*(one(trace) for trace in held_out)))


def _right(written: Sequence[tuple[Any, ...]], held_out: Sequence[Any]) -> list[bool]:
    """Whether the last value that was written is the one that was returned."""
    return [
        bool(frames) and frames[-1].event == "return" and frames[-1].value == trace.frames[-1].value
        for frames, trace in zip(written, held_out, strict=True)
    ]


def _first_wrong(written: Sequence[tuple[Any, ...]], held_out: Sequence[Any]) -> dict[str, int]:
    """How many traces are wrong first after a line of each kind, in the next line or in a value."""
    found: Counter[str] = Counter()
    for frames, trace in zip(written, held_out, strict=True):
        at = next((at for at, one in enumerate(trace.frames) if at >= len(frames) or frames[at] != one), None)
        if at is None:
            found["nothing"] += 1
            continue
        line = trace.frames[at - 1].source.strip() if at else ""
        kind = line.split()[0] if line.split()[:1] in (["for"], ["if"], ["return"], ["def"]) else "sum"
        part = "missing" if at >= len(frames) else "line" if frames[at].source != trace.frames[at].source else "value"
        found[f"{part} after {kind}"] += 1
    return dict(found.most_common())


def _compared(results: dict[str, list[bool]]) -> dict[str, Any]:
    """Shares with Wilson intervals, and what traces gain over each of the others on the same programs."""
    from verigym.evals.metrics import wilson_interval

    shares = {
        name: {"right": statistics.fmean(one), "interval": wilson_interval(sum(one), len(one))}
        for name, one in results.items()
    }
    gains = {
        f"traces - {name}": _difference(results["traces"], one)
        for name, one in results.items()
        if name != "traces" and "traces" in results
    }
    return {"held_out_returns": shares, "gains": gains}


def _difference(after: Sequence[bool], before: Sequence[bool]) -> dict[str, Any]:
    """Mean difference on the same programs, with its 95 % interval by the normal approximation."""
    differences = [int(one) - int(other) for one, other in zip(after, before, strict=True)]
    mean = statistics.fmean(differences)
    half = 1.96 * statistics.stdev(differences) / len(differences) ** 0.5
    return {"mean": mean, "interval": [mean - half, mean + half]}


if __name__ == "__main__":
    sys.exit(main())
