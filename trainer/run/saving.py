"""Training checkpoints written beside the training: a step takes a copy of the state, and never waits for the disk."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError, TrainingError
from ...model.decoder import Decoder
from ...model.lora import AnyDecoder, copy_trained, has_adapters
from ...model.trained import save_beside, save_trained
from ...model.weights.checksums import digests, files_of, read_sums, record
from ..ranks.sharded import ShardedLearning
from ..ranks.team import shard_dtype
from .checkpoint import write_training


class CheckpointWriter:
    """Writes checkpoints of one stage, at most one at a time; until one is whole, the one before it is the newest."""

    def __init__(self, root: Path, tokenizer: Any) -> None:
        self._root, self._tokenizer = root, tokenizer
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, decoder: AnyDecoder, trainer: Mapping[str, Any], *, step: int, info: Mapping[str, Any]) -> None:
        """Begin to write; the weights are copied before this returns. Waits for a write that is not done.

        Args:
            trainer: a loop's ``state_dict``, nothing of which changes later.
        Raises:
            CheckpointError: the write before this one failed.
        """
        self.wait()
        kept = _snapshot(decoder)
        self._begin(lambda folder: save_trained(folder, kept, self._tokenizer), trainer, step, info)

    def save_shards(
        self,
        learning: ShardedLearning,
        decoder: AnyDecoder,
        trainer: Mapping[str, Any],
        *,
        step: int,
        info: Mapping[str, Any],
    ) -> None:
        """As ``save``, of what ranks have, who write it.

        Args:
            decoder: its shape alone.
        """
        self.wait()
        learning.stage()

        def write(folder: Path) -> None:
            learning.write(folder)
            save_beside(folder, decoder, self._tokenizer, shard_dtype(decoder))
            record(folder, digests(folder, set(files_of(folder)) - read_sums(folder).keys()))

        self._begin(write, trainer, step, info)

    def _begin(
        self, write_model: Callable[[Path], None], trainer: Mapping[str, Any], step: int, info: Mapping[str, Any]
    ) -> None:
        def write() -> None:
            try:
                write_training(self._root, write_model, step=step, trainer=trainer, info=info)
            except BaseException as error:  # raised by ``check``, on the thread that trains
                self._error = error

        thread = threading.Thread(target=write, name="verigym-checkpoint")
        thread.start()  # raises where the system has no threads left: there is none to wait for then
        self._thread = thread

    def check(self) -> None:
        """Raise the error of a write that has failed, once."""
        error, self._error = self._error, None
        if isinstance(error, CheckpointError | TrainingError):  # a rank is gone: that is no fault of the disk
            raise error
        if error is not None:
            raise CheckpointError(f"the checkpoint could not be written to {self._root} ({error})") from error

    def wait(self) -> None:
        """Until nothing is being written. Raises CheckpointError where it failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()


@torch.no_grad()
def _snapshot(decoder: AnyDecoder) -> AnyDecoder:
    """A copy that training does not change, on the CPU for this package's decoder."""
    if not isinstance(decoder, Decoder) or has_adapters(decoder):
        return copy_trained(decoder)
    state = {name: value.detach().to("cpu", copy=True) for name, value in decoder.state_dict().items()}
    with torch.device("meta"):
        kept = Decoder(decoder.config)
    kept.load_state_dict(state, assign=True)
    return kept
