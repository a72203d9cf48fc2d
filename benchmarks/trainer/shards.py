"""Ranks that have nothing whole: peak memory of each, and what a publish of all weights, or of what has changed, takes.

A model of about 100 million parameters over ranks that Ray starts on this machine: loaded from a checkpoint, updated at
a rate of 1e-6, saved, published whole and as changes, read back by an engine's decoder, whose sums are compared.

    python benchmarks/trainer/shards.py --ranks 2 --updates 8 --out shards.json
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verigym.model.checkpoint import save_checkpoint, save_settings
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.weights import from_checkpoint
from verigym.model.parallel.layout import Layout
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.cluster.bundles import trainer_need
from verigym.trainer.cluster.connect import connected
from verigym.trainer.cluster.placing import reserve
from verigym.trainer.cluster.ranks import RayRanks
from verigym.trainer.learning.learner import Lesson
from verigym.trainer.ranks.sharded import ShardedLearning
from verigym.trainer.recipe.cluster import ClusterConfig
from verigym.trainer.recipe.config import OptimConfig

SHAPE = {"hidden_size": 640, "intermediate_size": 2560, "num_layers": 14, "num_heads": 10, "num_kv_heads": 5}


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} does not tell its peak")


def documents(seed: int, vocabulary: int) -> list[Document]:
    rng = np.random.default_rng(seed)
    return [
        Document(
            token_ids=rng.integers(0, vocabulary, 96),
            targets=rng.integers(0, vocabulary, 96),
            loss_mask=np.ones(96, bool),
            old_logprobs=np.full(96, np.nan, np.float32),
        )
        for _ in range(4)
    ]


def size_of(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern))


def publishes(
    learning: ShardedLearning, root: Path, tokenizer: Any, decoder: Decoder, updates: int
) -> list[dict[str, Any]]:
    """A row for each publish; the first is whole. The engine misses ten in the middle."""
    away = range(updates // 2 - 5, updates // 2 + 5) if updates > 20 else range(1, 2)
    engine = Decoder(decoder.config, seed=1).to(torch.bfloat16)
    rows = []
    for number in range(updates + 1):
        if number:
            learning.step(pack(documents(number, decoder.config.vocab_size), max_tokens=192, ways=learning.ways))
        name = f"weights-{number:06d}"
        started = time.perf_counter()
        learning.publish(root / name, torch.bfloat16, name=name, whole=False)
        written = time.perf_counter() - started
        save_settings(root / name, decoder.config, tokenizer, torch.bfloat16)
        row = {"seconds": written, "bytes": size_of(root / name, "delta-*") or size_of(root / name, "__*")}
        if number not in away:  # compares the sums of all tensors
            started = time.perf_counter()
            from_checkpoint(root / name)(engine)
            row["read_seconds"] = time.perf_counter() - started
        rows.append(row)
        print(number, {key: round(value, 2) for key, value in row.items()}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["counting one two three " * 8], 320)
    config = preset("cwm-tiny", vocab_size=8192, **SHAPE, head_dim=64, layer_types=("full_attention",) * 14)
    with (
        tempfile.TemporaryDirectory() as folder,
        connected("local", machine={"CPU": float(args.ranks), "sandbox": 1.0}),
    ):
        root = Path(folder)
        decoder = Decoder(config, seed=0)
        num_parameters = sum(parameter.numel() for parameter in decoder.parameters())
        save_checkpoint(root / "start", decoder, tokenizer)
        decoder = decoder.to("meta")
        cluster, layout = ClusterConfig(ranks=args.ranks, rank_gpus=0), Layout(shard=args.ranks)
        ranks = RayRanks(cluster, layout, reserve([trainer_need(cluster, layout)], 60.0, "benchmark")[0])
        pids = ranks.process_ids()
        before = [peak_mib(pid) for pid in pids]
        learning = ShardedLearning(ranks, decoder, Lesson(optim=OptimConfig(lr=1e-6)), root / "start")
        rows = publishes(learning, root, tokenizer, decoder, args.updates)
        started = time.perf_counter()
        learning.stage()
        staged = time.perf_counter() - started
        learning.write(root / "state")
        saved = time.perf_counter() - started
        learning.load_state_dict({"ranks": str(root / "state")})
        found = {
            "machine": platform.platform(),
            "parameters": num_parameters,
            "whole_checkpoint_mib": size_of(root / "state", "__*") / 2**20,
            "stage_seconds": staged,
            "save_seconds": saved,
            "mib_before": before,
            "mib_peak": [peak_mib(pid) for pid in pids],
            "load": os.getloadavg(),
            "publishes": rows,
        }
        ranks.close()
    share = max(row["bytes"] for row in rows[1:]) / rows[0]["bytes"]
    print({key: value for key, value in found.items() if key != "publishes"})
    print(f"the largest publish of changes has {share:.2%} of the bytes of all weights")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
