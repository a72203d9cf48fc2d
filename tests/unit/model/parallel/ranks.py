"""Processes that are ranks of one gloo group."""

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # a sharded module imports it: here once, and not in each process
import torch.distributed as dist


def run_ranks(target: Callable[..., None], folder: Path, world: int, *args: object) -> None:
    """Run ``target(rank, *args, folder)`` in ``world`` processes; what one of them raises fails the test."""
    context = multiprocessing.get_context("fork")  # imports are what takes longest
    processes = [context.Process(target=_rank, args=(target, rank, world, args, str(folder))) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    errors = "".join(file.read_text() for file in sorted(folder.glob("error*.txt")))
    assert [process.exitcode for process in processes] == [0] * world, errors


def _rank(target: Callable[..., None], rank: int, world: int, args: tuple, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"{folder}/store-{target.__name__}-{world}"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        target(rank, *args, folder)
    except BaseException:
        Path(f"{folder}/error{rank}.txt").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
