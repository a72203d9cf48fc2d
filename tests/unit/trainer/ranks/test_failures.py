"""No rank waits for ever for one that is gone."""

import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from verigym.errors import TrainingError
from verigym.model.parallel.layout import Layout, Meshes
from verigym.model.parallel.place import Place
from verigym.trainer.ranks.launch import Membership
from verigym.trainer.ranks.rank import Rank, serve
from verigym.trainer.ranks.team import Team

LONG = 240.0  # seconds; nothing here takes so long unless it hangs


def run(part: Callable[[int, Membership], None], folder: Path, world: int, *, timeout_s: float = LONG) -> list[str]:
    """What became of each rank that runs ``part(rank, membership)``: "done", the error it ended with, or "died"."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(rank, part, world, folder, timeout_s)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=LONG)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging, "a rank waits for one that is gone"
    files = [folder / f"rank{rank}" for rank in range(world)]
    return [file.read_text() if file.exists() else "died" for file in files]


def _rank(rank: int, part: Callable[[int, Membership], None], world: int, folder: Path, timeout_s: float) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=timedelta(seconds=LONG))
    layout = Layout(shard=world)
    place = Place(layout=layout, meshes=Meshes.of(layout, "cpu"), device=torch.device("cpu"))
    control = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
    assert isinstance(control, dist.ProcessGroup)
    dist.barrier()
    try:
        part(rank, Membership(place=place, control=control))
        said = "done"
    except TrainingError as error:
        said = str(error)
    (folder / f"rank{rank}").write_text(said)
    os._exit(0)


def test_a_rank_that_dies_at_work_ends_the_others(tmp_path, monkeypatch) -> None:
    def dies(self: Rank) -> None:
        if dist.get_rank() == 1:
            os._exit(9)
        dist.barrier()

    monkeypatch.setattr(Rank, "drop", dies)

    def part(rank: int, membership: Membership) -> None:
        if rank > 0:
            serve(membership)
            return
        with Team(membership) as team:
            team.call("drop")

    first, second, third = run(part, tmp_path, 3)
    assert "the ranks could not finish 'drop'" in first
    assert "--resume" in first
    assert second == "died"
    assert "rank 2 could not finish 'drop'" in third


def test_a_rank_that_died_is_told_at_the_next_call(tmp_path) -> None:
    def part(rank: int, membership: Membership) -> None:
        if rank > 0:
            os._exit(9)
        with Team(membership, ping_s=0.2) as team:
            while team._broken is None:
                time.sleep(0.1)
            team.call("drop")

    first, _ = run(part, tmp_path, 2)
    assert "a rank is gone" in first


def test_the_others_end_with_rank_0(tmp_path) -> None:
    def part(rank: int, membership: Membership) -> None:
        if rank == 0:
            os._exit(9)
        serve(membership)

    assert "rank 1 has lost rank 0" in run(part, tmp_path, 2)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("ping_s", "told"), [(LONG, "rank 1 has lost rank 0"), (1.0, "done")])
def test_silence_ends_a_rank_and_a_ping_breaks_it(tmp_path, ping_s: float, told: str) -> None:
    """Rank 0 samples for longer than the others would wait for it."""
    patience = 8.0

    def part(rank: int, membership: Membership) -> None:
        if rank > 0:
            serve(membership)
            return
        with Team(membership, ping_s=ping_s):
            time.sleep(patience + 4.0)

    assert told in run(part, tmp_path, 2, timeout_s=patience)[1]
