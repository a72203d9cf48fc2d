"""What training loops share, and the supervised ones. ``SFT`` imitates demonstrations; ``midtrain.Midtrain`` learns
what programs do, ``reinforce.RL`` from rewards."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ...agent.trajectory import Trajectory
from ...errors import ConfigError
from ...model.lora import AnyDecoder
from ..batching.documents import Document, DocumentStream, demonstrations_of
from ..batching.packs import PackedBatch, check_lengths, pack
from ..batching.stored import LazyPacks
from ..learning.kept import KeptTokens
from ..learning.learner import Learner, Learning, Lesson
from ..recipe.config import OptimConfig, SFTConfig, SupervisedConfig
from .metrics import update_metrics
from .throughput import Throughput

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step did.

    Attributes:
        step: steps done, this one included.
        metrics: keys "room/quantity/stat".
        trajectories: the episodes of the step; none in supervised training.
        advantages: of each episode; None where it is left out of training.
        kept: tokens of episodes that ``RL.keeps`` chose.
    """

    step: int
    metrics: Mapping[str, float]
    trajectories: tuple[Trajectory, ...] = ()
    advantages: tuple[float | None, ...] = ()
    kept: tuple[KeptTokens, ...] = ()


OnStep = Callable[[StepResult], None]


class Loop:
    """What all loops share: the model, what learns, a step counter and a flag to stop at."""

    def __init__(self, decoder: AnyDecoder, learning: Learning, seed: int) -> None:
        """
        Args:
            decoder: whole: what samples, and what is saved.
            learning: trains ``decoder`` itself, or shards that it is brought up to by ``sync``.
        """
        self.decoder, self.learning, self.seed = decoder, learning, seed
        self.throughput = Throughput(decoder)
        self.num_steps = 0
        self.stopping = False

    def stop(self) -> None:
        """Ask ``run`` to return after the step in progress. Safe from a signal handler."""
        self.stopping = True

    def sync(self) -> None:
        """Bring ``decoder`` to what has been learned."""
        self.learning.sync()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights; a checkpoint holds those once, in Hugging Face's format. Nothing in it changes
        later: it may be written while training goes on."""
        return {"num_steps": self.num_steps, "rng": torch.get_rng_state(), **self.learning.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken. The weights must have been loaded into the decoder.

        Raises:
            ValueError: the state is of another model, or of other data.
        """
        self.num_steps = int(state["num_steps"])
        self.learning.load_state_dict(state)
        torch.set_rng_state(state["rng"])


class Stream(Protocol):
    """Where batches of documents come from: ``batching.DocumentStream``, or a mixture of several."""

    @property
    def epochs_done(self) -> float: ...

    def next_batch(self) -> list[Document]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Supervised(Loop):
    """Training on documents as they stand, up to a plateau of the held-out loss."""

    def __init__(
        self,
        decoder: AnyDecoder,
        stream: Stream,
        *,
        config: SupervisedConfig,
        optim: OptimConfig,
        held_out: Sequence[Document] = (),
        seed: int = 0,
        learning: Learning | None = None,
    ) -> None:
        """
        Args:
            held_out: documents that only measure; needed where ``config.patience`` is above 0.
            learning: does the steps; None: this process alone.
        Raises:
            ConfigError: settings that need held-out documents, without any.
        """
        super().__init__(decoder, learning or Learner(decoder, Lesson(optim=optim)), seed)
        self.config = config
        self._stream = stream
        self._held_out = LazyPacks(held_out, max_tokens=config.microbatch_tokens, ways=self.learning.ways)
        if config.patience and not self._held_out:
            raise ConfigError("patience needs held-out documents to measure; give some, or set patience = 0")
        self.best_loss = float("inf")
        self._num_worse = 0

    @property
    def plateaued(self) -> bool:
        """Whether ``patience`` measures in a row brought no better held-out loss."""
        return bool(self.config.patience) and self._num_worse >= self.config.patience

    @property
    def finished(self) -> bool:
        """Whether steps, epochs or the plateau end the training."""
        config = self.config
        out_of_steps = config.max_steps is not None and self.num_steps >= config.max_steps
        out_of_data = config.epochs is not None and self._stream.epochs_done >= config.epochs
        return out_of_steps or out_of_data or self.plateaued

    def step(self) -> StepResult:
        """One update, and, every ``eval_every`` of them, a measure of the held-out loss."""
        started = time.perf_counter()
        packs = self._packed(self._stream.next_batch())
        found = self.learning.step(packs)
        self.throughput.trained(packs)
        self.num_steps += 1
        metrics = {
            "trainer/loss/mean": found["loss"],
            "trainer/entropy/mean": found["entropy"],
            **update_metrics([found]),
            "trainer/epochs/done": self._stream.epochs_done,
            **self.throughput.metrics(time.perf_counter() - started, found["tokens"]),
        }
        if self._held_out and self.num_steps % self.config.eval_every == 0:
            metrics["trainer/held_out_loss/mean"] = self._measure()
        metrics["trainer/seconds/step"] = time.perf_counter() - started
        return StepResult(step=self.num_steps, metrics=metrics)

    def run(self, *, on_step: OnStep | None = None, seconds: float | None = None) -> None:
        """Steps until the training is ``finished``, ``stop`` is called, or the wall clock is up.

        Args:
            seconds: wall clock from now; None: no limit.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not (self.finished or self.stopping or (deadline is not None and time.monotonic() >= deadline)):
            result = self.step()
            if on_step is not None:
                on_step(result)
        self.sync()

    def _packed(self, documents: Sequence[Document]) -> list[PackedBatch]:
        return pack(documents, max_tokens=self.config.microbatch_tokens, ways=self.learning.ways)

    def _measure(self) -> float:
        loss = self.learning.mean_loss(self._held_out)
        better = loss < self.best_loss - self.config.min_delta
        self._num_worse = 0 if better else self._num_worse + 1
        self.best_loss = loss if better else self.best_loss
        return loss

    def state_dict(self) -> dict[str, Any]:
        own = {"cursor": self._stream.state_dict(), "best_loss": self.best_loss, "num_worse": self._num_worse}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._stream.load_state_dict(state["cursor"])
        super().load_state_dict(state)
        self.best_loss, self._num_worse = float(state["best_loss"]), int(state["num_worse"])


class SFT(Supervised):
    """Supervised training on the assistant tokens of demonstrations."""

    def __init__(
        self,
        decoder: AnyDecoder,
        demonstrations: Sequence[Trajectory],
        *,
        config: SFTConfig,
        optim: OptimConfig,
        held_out: Sequence[Trajectory] = (),
        seed: int = 0,
        learning: Learning | None = None,
    ) -> None:
        """
        Args:
            held_out: demonstrations of other tasks; needed where ``config.patience`` is above 0.
            learning: as ``Supervised``.
        Raises:
            ConfigError: settings that need held-out demonstrations, without any.
            ValueError: nothing to train on, or a demonstration longer than a microbatch.
        """
        documents = demonstrations_of(demonstrations, observation_weight=config.observation_weight)
        stream = DocumentStream(documents, batch_tokens=config.batch_tokens, seed=seed)
        check_lengths(map(len, documents), config.microbatch_tokens)  # now, not in the middle of an epoch
        super().__init__(
            decoder,
            stream,
            config=config,
            optim=optim,
            held_out=demonstrations_of(held_out),
            seed=seed,
            learning=learning,
        )
