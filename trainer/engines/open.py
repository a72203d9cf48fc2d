"""Where a run samples: in this process, or in processes of the engines' own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import torch

from ...agent.harness.open import Rollout
from ...agent.policy import TokenPolicy
from ...agent.vllm_engine import MOST_PADDING
from ...errors import ConfigError
from ...model.engine.generator import Generator
from ...model.engine.huggingface import HuggingFaceEngine
from ...model.huggingface import HuggingFaceDecoder
from ...model.lora import copy_trained
from ..learning.trainee import Trainee
from ..recipe.cluster import ClusterConfig
from ..recipe.config import EnginesConfig
from ..recipe.recipe import Recipe
from .fleet import Fleet
from .server import Launch
from .sizes import Sizes

RolloutEngine = Generator | HuggingFaceEngine | Fleet


class Places(Protocol):
    """Where the parts of a run are that are not in this process.

    Attributes:
        launch: starts an engine there.
    """

    launch: Launch

    def acting(self, name: str, act: Rollout) -> Rollout:
        """What runs a family's episodes there; ``act`` does it here, where they cannot be run elsewhere."""
        ...

    async def opened(self, fleet: Fleet, trainee: Trainee) -> None:
        """Engines can be asked now: episodes may run there."""
        ...

    def renew(self) -> None:
        """After RanksLost: start ranks anew; nothing is built in them. Raises TrainingError where that cannot be."""
        ...

    async def aclose(self) -> None:
        """End what was started there. May be called twice."""
        ...


class Engines:
    """Opens what samples under a trainee's weights of the moment."""

    def __init__(self, recipe: Recipe, out: Path, places: Places | None = None) -> None:
        """
        Args:
            out: folder of the run.
            places: where else than here engines are started, and episodes run.
        """
        self._recipe, self._folder, self._places = recipe, out / "engines", places
        self._fleet: Fleet | None = None

    @property
    def concurrency(self) -> int:
        """Episodes at once."""
        return max((stage.train.concurrency for stage in self._recipe.sampled_stages), default=64)

    @asynccontextmanager
    async def open(self, trainee: Trainee, *, ahead: bool = False) -> AsyncIterator[RolloutEngine]:
        """An engine with the trainee's weights as version 0, or, inside of another ``open`` over processes, that one.

        Args:
            ahead: it goes on sampling while the trainee is updated.
        Raises:
            ConfigError: the recipe's engines cannot be had like this.
            PolicyError: an engine's process could not start.
        """
        if self._recipe.engines is not None:
            if self._fleet is None:
                self._fleet = self._fleet_of(trainee, self._recipe.engines)
            async with self._fleet.open() as fleet:
                if self._places is not None:
                    await self._places.opened(fleet, trainee)
                yield fleet
            return
        sampled = copy_trained(trainee.decoder) if ahead else None
        threads = 1 if self._recipe.overlap else None  # sandboxes and training have the other cores
        async with trainee.engine(self.concurrency, sampled, num_threads=threads) as engine:
            yield engine

    @asynccontextmanager
    async def policy(self, trainee: Trainee) -> AsyncIterator[tuple[TokenPolicy, int]]:
        """What answers conversations through ``open``, and the tokens of its context."""
        async with self.open(trainee) as engine:
            yield TokenPolicy(engine, trainee.renderer, trainee.parser), engine.max_context

    async def aclose(self) -> None:
        """End the processes. May be called twice."""
        fleet, self._fleet = self._fleet, None
        if self._places is not None:
            await self._places.aclose()
        if fleet is not None:
            await fleet.aclose()

    def _fleet_of(self, trainee: Trainee, config: EnginesConfig) -> Fleet:
        ours = not isinstance(trainee.decoder, HuggingFaceDecoder)
        vllm = config.kind == "vllm"
        if vllm and self._places is not None:
            raise ConfigError(
                "a cluster places `verigym serve` alone; start vLLM's servers yourself and name them in engines.urls, "
                "without --ray, or leave engines.kind out"
            )
        if not (ours or vllm) and (config.dtype is not None or config.tensor_parallel > 1):
            raise ConfigError(
                "engines.dtype and engines.tensor_parallel are of our own decoder; remove them for this model"
            )
        if config.count and not config.gpus and self._places is None and torch.cuda.is_available():
            raise ConfigError("engines.gpus names no GPU, and this machine has some; name those that do not train")
        dtype = None if config.dtype is None else getattr(torch, config.dtype)
        sizes = Sizes(
            concurrency=self.concurrency,
            max_context=trainee.config.max_context,
            request_seconds=self._recipe.episode_seconds,
            seed=trainee.seed,
            attention=trainee.config.attention,
            freezes=ours or vllm,
            dtype=str(dtype or trainee.decoder.head.weight.dtype).removeprefix("torch."),
            padding=_padding(trainee) if vllm else (),
        )
        return Fleet(
            config,
            self._folder,
            sizes,
            save=(
                (lambda folder, _: trainee.save(folder, {}, dtype=dtype, sums=False))  # as Hugging Face has it
                if vllm
                else (lambda folder, whole: trainee.publish(folder, dtype=dtype, whole=whole))
            ),
            launch=None if self._places is None else self._places.launch,
            full_every=(self._recipe.cluster or ClusterConfig()).full_every if ours and trainee.stored else 1,
        )


def _padding(trainee: Trainee) -> range:
    """The ids that the head has and the tokenizer does not know. Raises ConfigError where they are too many to name."""
    decoder = trainee.decoder
    rows = decoder.head.weight.shape[0]
    known = decoder.num_ids if isinstance(decoder, HuggingFaceDecoder) else decoder.config.num_ids
    found = range(rows if known is None else known, rows)
    if len(found) > MOST_PADDING:
        raise ConfigError(
            f"the model's head has {len(found)} rows that no token of its tokenizer has, and vLLM would draw them; "
            f"leave engines.kind out, or use a checkpoint with at most {MOST_PADDING}"
        )
    return found
