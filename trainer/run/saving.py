"""Training checkpoints written beside the training: a step takes a copy of the state, and never waits for the disk."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError
from ...model.decoder import Decoder
from ...model.lora import AnyDecoder, copy_trained, has_adapters
from .checkpoint import save_training


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

        def write() -> None:
            try:
                save_training(
                    self._root, step=step, decoder=kept, tokenizer=self._tokenizer, trainer=trainer, info=info
                )
            except BaseException as error:  # raised by ``check``, on the thread that trains
                self._error = error

        thread = threading.Thread(target=write, name="verigym-checkpoint")
        thread.start()  # raises where the system has no threads left: there is none to wait for then
        self._thread = thread

    def check(self) -> None:
        """Raise the error of a write that has failed, once."""
        error, self._error = self._error, None
        if isinstance(error, CheckpointError):
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
