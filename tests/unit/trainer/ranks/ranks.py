"""Forked processes that are ranks: rank 0 runs a test's part, the others serve it."""

import multiprocessing
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer and a sharded module import it: here once, and not in each process
import torch.distributed as dist

from verigym.model.parallel.layout import Layout, Meshes
from verigym.model.parallel.place import Place
from verigym.trainer.ranks.launch import Membership
from verigym.trainer.ranks.rank import serve
from verigym.trainer.ranks.team import Team


def run_team(control: Callable[..., Any], folder: Path, layout: Layout, *args: object) -> Any:
    """What ``control(team, *args)`` returns on rank 0 of ``layout.num_ranks`` processes."""
    context = multiprocessing.get_context("fork")  # imports are what takes longest
    processes = [
        context.Process(target=_rank, args=(rank, control, layout, args, str(folder)))
        for rank in range(layout.num_ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    errors = "".join(file.read_text() for file in sorted(folder.glob("error*.txt")))
    assert [process.exitcode for process in processes] == [0] * layout.num_ranks, errors
    return torch.load(folder / "found.pt", weights_only=False)


def _rank(rank: int, control: Callable[..., Any], layout: Layout, args: tuple, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store-{control.__name__}"
    timeout = timedelta(seconds=240)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=layout.num_ranks, timeout=timeout)
    try:
        place = Place(layout=layout, meshes=Meshes.of(layout, "cpu"), device=torch.device("cpu"))
        groups = [dist.new_group(backend="gloo", timeout=timeout) for _ in range(3)]
        assert all(isinstance(group, dist.ProcessGroup) for group in groups)
        membership = Membership(place=place, control=groups[0], saving=groups[1], publishing=groups[2])
        if rank > 0:
            serve(membership)
        else:
            with Team(membership) as team:
                torch.save(control(team, *args), f"{folder}/found.pt")
    except BaseException:
        Path(f"{folder}/error{rank}.txt").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        raise
    finally:
        dist.destroy_process_group()
