"""``Midtrain``: learning what programs and commands do, from documents of several sources in stated shares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...agent.trajectory import Trajectory
from ...errors import ConfigError
from ...model.chat.trace import Trace
from ...model.chat.trace_tokens import TraceFormat
from ...model.lora import AnyDecoder
from ..batching.documents import Document, DocumentStream, demonstrations_of
from ..learning.learner import Learning
from ..recipe.config import MidtrainConfig, OptimConfig
from .loop import Supervised

STATE_VERSION = 2
"""2: what is held out is drawn from groups in the order of their digests (``midtrain_groups``)."""


class Midtrain(Supervised):
    """Next-token prediction on whole documents."""

    def __init__(
        self,
        decoder: AnyDecoder,
        sources: Mapping[str, Sequence[Document]],
        weights: Mapping[str, float],
        *,
        config: MidtrainConfig,
        optim: OptimConfig,
        held_out: Sequence[Document] = (),
        seed: int = 0,
        learning: Learning | None = None,
    ) -> None:
        """
        Args:
            sources: name -> documents, each within a microbatch.
            weights: name -> share of the tokens.
            held_out: documents that only measure; needed where ``config.patience`` is above 0.
            learning: as ``Supervised``.
        Raises:
            ConfigError: a source without a document, or held-out documents missing.
        """
        for name, documents in sources.items():
            if not documents:
                raise ConfigError(
                    f"the source {name!r} of midtrain has no document of at most {config.microbatch_tokens} tokens; "
                    "raise microbatch_tokens, or give more"
                )
        stream = DocumentMixture(sources, weights, batch_tokens=config.batch_tokens, seed=seed)
        super().__init__(decoder, stream, config=config, optim=optim, held_out=held_out, seed=seed, learning=learning)


class DocumentMixture:
    """Documents of several sources, each source in its share of the tokens, in an order that survives a resume."""

    def __init__(
        self,
        sources: Mapping[str, Sequence[Document]],
        weights: Mapping[str, float],
        *,
        batch_tokens: int,
        seed: int = 0,
    ) -> None:
        # A stream of one document at a time: every batch holds at least one.
        self._streams = {name: DocumentStream(some, batch_tokens=1, seed=seed) for name, some in sources.items()}
        self._weights = {name: weights[name] for name in sources}
        self._batch_tokens = batch_tokens
        self._drawn = dict.fromkeys(sources, 0)
        self._waiting: dict[str, Document] = {}

    @property
    def epochs_done(self) -> float:
        """Passes over the source that has had the fewest."""
        return min(stream.epochs_done for stream in self._streams.values())

    @property
    def drawn(self) -> Mapping[str, int]:
        """Tokens given out of each source."""
        return self._drawn

    def next_batch(self) -> list[Document]:
        """At least one document; as many more as fit."""
        batch: list[Document] = []
        total = 0
        while True:
            name = min(self._streams, key=lambda one: (self._drawn[one] / self._weights[one], one))
            document = self._waiting.pop(name, None) or self._streams[name].next_batch()[0]
            if batch and total + len(document) > self._batch_tokens:
                self._waiting[name] = document
                return batch
            batch.append(document)
            total += len(document)
            self._drawn[name] += len(document)

    def state_dict(self) -> dict[str, Any]:
        """A document that waits for the next batch is drawn again: its stream is put back by one."""
        return {
            "version": STATE_VERSION,
            "drawn": dict(self._drawn),
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
            "waiting": sorted(self._waiting),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where the documents are not those of the state."""
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                "midtraining was begun by a version that held out other documents; finish it with that version, or "
                "begin it anew"
            )
        if state["streams"].keys() != self._streams.keys():
            raise ValueError(
                f"the saved cursor is of the sources {', '.join(state['streams'])}, here are "
                f"{', '.join(self._streams)}; resume with the same recipe"
            )
        self._drawn = dict(state["drawn"])
        self._waiting = {}
        for name, stream in self._streams.items():
            cursor = dict(state["streams"][name])
            if name in state["waiting"]:
                stream.load_state_dict(stepped_back(cursor))
                self._waiting[name] = stream.next_batch()[0]
            else:
                stream.load_state_dict(cursor)


def stepped_back(cursor: Mapping[str, int]) -> dict[str, int]:
    """The cursor of a stream before its last document."""
    epoch, position = cursor["epoch"], cursor["position"]
    if position == 0:
        epoch, position = epoch - 1, cursor["num_documents"]
    return {**cursor, "epoch": epoch, "position": position - 1}


def trace_document(trace: Trace, form: TraceFormat, *, context_weight: float) -> Document:
    """A whole trace: its frames count 1 a token, its source context ``context_weight``."""
    ids = np.asarray(form.encode(trace), dtype=np.int64)
    first = len(form.prompt(Trace(context=trace.context, frames=(), ended=False)))
    written = np.arange(1, len(ids)) >= first
    return Document(
        token_ids=ids[:-1],
        targets=ids[1:],
        loss_mask=written | (context_weight > 0),
        old_logprobs=np.full(len(ids) - 1, np.nan, dtype=np.float32),
        written=written,
        observation_weight=context_weight,
    )


def trajectory_documents(trajectories: Sequence[Trajectory]) -> list[Document]:
    """Whole episodes: what the environment answered counts as much as what the assistant said."""
    return demonstrations_of(trajectories, observation_weight=1.0)
