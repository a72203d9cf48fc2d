"""Objects between ranks: only what a holder of their secret has signed is unpickled."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from verigym.errors import ConfigError
from verigym.model.parallel import objects

from .ranks import run_ranks

VALUES = [("step", {"packs": [torch.arange(5)], "more": None}), {}, "x" * 3000]


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self._mark,)


def _talk(rank: int, folder: str) -> None:
    objects.share_secret(one_machine=True, environment={})
    assert repr(objects.broadcast(VALUES if rank == 0 else None)) == repr(VALUES)
    assert repr(objects.scatter(VALUES if rank == 0 else None)) == repr(VALUES[rank])
    gathered = objects.gather({"rank": rank, "text": "y" * rank * 100})
    expected = [{"rank": other, "text": "y" * other * 100} for other in range(3)]
    assert gathered == (expected if rank == 0 else None)
    assert objects.all_gather_json([rank, None, float("inf")]) == [[other, None, float("inf")] for other in range(3)]
    assert objects.broadcast_json({"a": [1]} if rank == 0 else None) == {"a": [1]}


def test_what_is_sent_arrives(tmp_path: Path) -> None:
    run_ranks(_talk, tmp_path, 3)


def _forge(rank: int, way: str, folder: str) -> None:
    """Rank 0 is an intruder: it speaks torch's own way, or signs with a secret that it has made up."""
    mark = f"{folder}/ran"
    if way == "unsigned":
        objects.use_secret(b"of the ranks")
        if rank == 0:
            dist.broadcast_object_list([Payload(mark)], src=0)
            return
    else:
        objects.use_secret(b"of the ranks" if rank else b"of an intruder")
        if rank == 0 and way == "broadcast":
            objects.broadcast(Payload(mark))
            return
        if rank == 0:
            objects.scatter([("ok", {}), Payload(mark)])
            return
    with pytest.raises(RuntimeError, match="not signed"):
        objects.scatter(None) if way == "scatter" else objects.broadcast(None)
    assert not os.path.exists(mark)


@pytest.mark.parametrize("way", ["unsigned", "broadcast", "scatter"])
def test_an_intruders_pickle_is_not_opened(way: str, tmp_path: Path) -> None:
    run_ranks(_forge, tmp_path, 2, way)
    assert not (tmp_path / "ran").exists()


def _gather_from_an_intruder(rank: int, folder: str) -> None:
    objects.use_secret(b"of the ranks" if rank == 0 else b"of an intruder")
    if rank == 0:
        with pytest.raises(RuntimeError, match="not signed"):
            objects.gather("mine")
    else:
        objects.gather(Payload(f"{folder}/ran"))


def test_nor_one_that_is_gathered(tmp_path: Path) -> None:
    run_ranks(_gather_from_an_intruder, tmp_path, 2)
    assert not (tmp_path / "ran").exists()


def _several_machines(rank: int, folder: str) -> None:
    with pytest.raises(ConfigError, match="VERIGYM_RANKS_SECRET"):
        objects.share_secret(one_machine=False, environment={})
    objects.share_secret(one_machine=False, environment={"VERIGYM_RANKS_SECRET": " long and random "})
    assert objects.broadcast("hello" if rank == 0 else None) == "hello"


def test_ranks_on_several_machines_need_a_secret(tmp_path: Path) -> None:
    run_ranks(_several_machines, tmp_path, 2)


def test_a_secret_that_others_can_read_or_have_left_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 32)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="of another user"):
        objects._left_by_us(secret)
    secret.chmod(0o600)
    assert objects._left_by_us(secret) == b"x" * 32
    (tmp_path / "link").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        objects._left_by_us(tmp_path / "link")


def test_ranks_of_one_machine_listen_on_its_loopback() -> None:
    values = {"NCCL_SOCKET_IFNAME": "eth7"}
    objects.stay_on_this_machine(values)
    assert values == {"NCCL_SOCKET_IFNAME": "eth7", "GLOO_SOCKET_IFNAME": "lo"}
