"""Data sets of traces: from a library's tests, or from generated programs; each run twice, so that what differs is left
out."""

import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..sandbox.types import SandboxBackend
from ..synthesis.sources import Source
from .context import SourceTree
from .examples import SPOILT, SPOILT_MORE, Example, Sieve, stratified
from .library import Recording, RecordingSettings, examples_of, record_tests
from .programs import any_program, small_program
from .run import TraceBounds, TraceBox, TraceJob
from .shards import ShardWriter, write_shards

ProgramKind = Literal["programs", "small-programs"]
MAKERS: Mapping[str, Callable[[random.Random], TraceJob]] = {"programs": any_program, "small-programs": small_program}
Tell = Callable[[str, int, int], None]
BATCH = 100
MISSES = 20
"""Batches without anything new after which a kind of program is taken to be used up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a data set was made from: its manifest, and the figures of the runs."""

    manifest: Mapping[str, Any]
    counts: Mapping[str, int]


async def make_from_library(
    source: Source,
    out: Path,
    *,
    backend: SandboxBackend,
    settings: RecordingSettings | None = None,
    sieve: Sieve | None = None,
    limit: int = 0,
    seed: int = 0,
    tell: Tell = lambda what, done, total: None,
) -> Made:
    """Run the tests twice, under two hash seeds, and write the calls that were the same.

    Args:
        limit: most traces to write, drawn with ``seed`` and evenly over functions; 0 is no bound.
    Raises:
        TaskError: no tests, or ``out`` holds a data set. SandboxError: the sandbox failed.
    """
    settings, sieve = settings or RecordingSettings(), sieve or Sieve()
    runs: list[Recording] = []
    for number in range(2):
        tell(f"tests of {source.name}, run {number + 1} of 2", number, 2)
        runs.append(await record_tests(source, backend, settings, hash_seed=number))
    first, second = runs
    same = {key: rows for key, rows in first.calls.items() if second.calls.get(key) == rows}
    sieve.counts["calls"] += len(first.calls)
    sieve.counts["non_deterministic_calls"] += len(first.calls) - len(same)
    tree = SourceTree(source.root)
    origin = f"{source.name}=={source.version}"
    found = (one for rows in same.values() for one in examples_of(rows, tree, origin=origin))
    kept = list(sieve.kept(found))
    if 0 < limit < len(kept):
        sieve.counts["beyond_limit"] += len(kept) - limit
        kept = stratified(kept, limit, group=lambda one: one.origin, rng=random.Random(f"{seed}/limit"))
    about = {
        "source": origin,
        "requirements": list(source.requirements),
        "python": source.python,
        "settings": asdict(settings),
        "limit": limit,
        "seed": seed,
        "wanted": asdict(sieve.wanted),
        "tests": dict(first.end),
        "counts": sieve.counts,
    }
    return Made(manifest=write_shards(out, kept, about=about), counts=sieve.counts)


async def generated_examples(
    kind: ProgramKind,
    num: int,
    *,
    seed: int,
    backend: SandboxBackend,
    sieve: Sieve,
    bounds: TraceBounds | None = None,
    tell: Tell = lambda what, done, total: None,
) -> AsyncIterator[Example]:
    """Distinct traces of generated programs, each run twice."""
    box = TraceBox(backend, bounds=bounds or TraceBounds(events=sieve.wanted.max_frames + 1))
    made, number, misses = 0, 0, 0
    while made < num and misses < MISSES:
        jobs = [MAKERS[kind](random.Random(f"{seed}/{kind}/{number + index}")) for index in range(BATCH)]
        runs, again = await box.trace(jobs), await box.trace(jobs)
        before = made
        for index, (run, twice) in enumerate(zip(runs, again, strict=True)):
            if run != twice or run.flags & (SPOILT | SPOILT_MORE):
                sieve.counts["recorded"] += 1
                sieve.counts["non_deterministic" if run != twice else "spoilt"] += 1
                continue
            example = Example(
                trace=run.trace,
                kind=kind,
                origin=f"{kind}/{seed}/{number + index}",
                function="main",
                cut="cut" in run.flags,
            )
            for one in sieve.kept([example]):
                if made < num:
                    made += 1
                    yield one
        number += BATCH
        misses = misses + 1 if made == before else 0
        tell(kind, made, num)


async def make_from_programs(
    kind: ProgramKind,
    num: int,
    out: Path,
    *,
    seed: int,
    backend: SandboxBackend,
    sieve: Sieve | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Made:
    """Write ``num`` distinct traces of generated programs.

    Raises:
        TaskError: ``out`` holds a data set. SandboxError: the sandbox failed.
    """
    sieve = sieve or Sieve()
    writer = ShardWriter(out)
    async for one in generated_examples(kind, num, seed=seed, backend=backend, sieve=sieve, tell=tell):
        writer.add(one)
    about = {"source": kind, "seed": seed, "wanted": asdict(sieve.wanted), "counts": sieve.counts}
    return Made(manifest=writer.finish(about), counts=sieve.counts)
