"""A tensor-parallel engine: this process schedules and draws, the others repeat its forwards with their share of heads.

Every call of ``Forward`` is told to the followers before it is made here, so that all meet in the same collectives.
Plans travel over gloo, as they are the host's; tensors over nccl on CUDA, which has not been run, and gloo elsewhere.
"""

import logging
import multiprocessing
import pickle
import secrets
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import init_device_mesh

from ...errors import CheckpointError, ConfigError
from ..attention import Backend
from ..checkpoint import load_config
from ..decoder import Decoder
from ..parallel import objects
from ..parallel.checkpoint import load_into_shards
from ..parallel.layout import Layout
from ..parallel.tensor import split_tensors
from ..weights.sources import open_source
from .forward import Forward
from .memory import tokens_kept
from .weights import agree

logger = logging.getLogger(__name__)

_CLOSE = "close"
# Followers wait for the next command as long as nobody asks anything.
_PATIENCE = timedelta(days=365)
_SECONDS_TO_END = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a process needs to know to be a rank of the group.

    Attributes:
        checkpoint, device: as ``open_checkpoint``.
        size: of the group.
        meeting_point: a file that does not exist yet.
        sizes: of ``Forward``; where its cache_tokens is None, the first rank decides.
        attention: of ``Decoder.use_attention``.
        num_threads: torch's; None leaves them.
        secret: by which they know each other's words.
    """

    checkpoint: Path
    device: str
    size: int
    meeting_point: Path
    sizes: dict[str, Any]
    attention: Backend
    num_threads: int | None
    secret: bytes = field(repr=False)

    def join(self, rank: int) -> tuple[Decoder, ProcessGroup]:
        """Meet the others and load this rank's shards. Returns (its decoder, the group that commands travel over).

        Raises:
            CheckpointError: a rank could not read the checkpoint; all raise it.
        """
        cuda = self.device == "cuda"
        if cuda:
            torch.cuda.set_device(rank)
        objects.use_secret(self.secret)
        objects.stay_on_this_machine()
        url = f"file://{self.meeting_point}"
        dist.init_process_group("nccl" if cuda else "gloo", init_method=url, rank=rank, world_size=self.size)
        commands = dist.new_group(backend="gloo", timeout=_PATIENCE)
        assert isinstance(commands, ProcessGroup)
        problem, decoder = None, None
        try:
            config, source = open_source(self.checkpoint)
            with torch.device("meta"):
                decoder = Decoder(config).to(next(iter(source.dtypes.values())))
            split_tensors(decoder, init_device_mesh(self.device, (self.size,)), split_tokens=False)
            decoder.to_empty(device=self.device)
            load_into_shards(self.checkpoint, decoder)
        except CheckpointError as error:
            problem = str(error)
        agree(problem, commands)
        assert decoder is not None
        decoder.use_attention(self.attention)
        return decoder, commands


class FollowerProcesses:
    """The other ranks, as processes of this machine. See ``forward.Followers``.

    Attributes:
        decoder: this rank's share.
        sizes: of every rank's ``Forward``.
    """

    def __init__(self, share: Share) -> None:
        """Raises CheckpointError where the checkpoint cannot be loaded; no process is left then."""
        context = multiprocessing.get_context("spawn")  # a forked copy of threads and CUDA would not work
        self._processes = [
            context.Process(target=follow, args=(share, rank), name=f"verigym-rank-{rank}", daemon=True)
            for rank in range(1, share.size)
        ]
        for process in self._processes:
            process.start()
        try:
            self.decoder, self._commands = share.join(0)
            self.sizes = dict(share.sizes)
            if self.sizes["cache_tokens"] is None:  # one number for all ranks
                within = {name: self.sizes[name] for name in ("max_batch", "max_context")}
                self.sizes["cache_tokens"] = tokens_kept(self.decoder, **within)
            objects.broadcast(self.sizes, group=self._commands)
        except BaseException:
            self._end()
            raise

    def tell(self, method: str, arguments: tuple) -> None:
        try:
            objects.broadcast((method, arguments), group=self._commands)
        except (pickle.PicklingError, AttributeError, TypeError) as error:  # before anything is sent
            raise ConfigError(
                f"{method} cannot be told to the other ranks ({error}); take weights from a folder, by from_checkpoint"
            ) from error

    def lose(self) -> None:
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        if all(process.is_alive() for process in self._processes):
            self.tell(_CLOSE, ())
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            process.join(_SECONDS_TO_END)
            if process.is_alive():
                logger.warning("%s did not end by itself and is killed", process.name)
                process.kill()
                process.join()
        if dist.is_initialized():
            dist.destroy_process_group()


def start_followers(
    checkpoint: Path, device: str, size: int, sizes: dict[str, Any], attention: Backend, num_threads: int | None
) -> FollowerProcesses:
    """Start the other ranks of a group of ``size``, and load this one's share.

    Raises:
        ConfigError: the model cannot be split so many ways, there are too few GPUs, or this process is a rank already.
        CheckpointError: the checkpoint cannot be loaded.
    """
    Layout(tensor=size).check(load_config(checkpoint))
    if dist.is_initialized():
        raise ConfigError("this process is a rank of torch.distributed already; start the engine in one of its own")
    if device == "cuda" and torch.cuda.device_count() < size:
        raise ConfigError(f"tensor parallel is {size} and there are {torch.cuda.device_count()} GPUs; choose fewer")
    with tempfile.TemporaryDirectory(prefix="verigym-ranks-") as folder:
        share = Share(
            checkpoint=checkpoint,
            device=device,
            size=size,
            meeting_point=Path(folder) / "store",
            sizes=sizes,
            attention=attention,
            num_threads=num_threads,
            secret=secrets.token_bytes(32),
        )
        return FollowerProcesses(share)


def follow(share: Share, rank: int) -> None:
    """Be a follower until the first rank ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all: the first rank drains, and needs the others for it
        signal.signal(number, signal.SIG_IGN)
    if share.num_threads is not None:
        torch.set_num_threads(share.num_threads)
    try:
        decoder, commands = share.join(rank)
    except CheckpointError:
        return  # the first rank tells it
    forward = Forward(decoder, **objects.broadcast(None, group=commands))
    while True:
        try:
            method, arguments = objects.broadcast(None, group=commands)
        except RuntimeError:
            logger.warning("the first rank has gone without a word; rank %d ends", rank)
            return
        if method == _CLOSE:
            break
        with suppress(CheckpointError):  # new weights that cannot be read: the first rank raises it too
            getattr(forward, method)(*arguments)
    dist.destroy_process_group()
