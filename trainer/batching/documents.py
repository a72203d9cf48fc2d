"""From trajectories to documents: what each token of a segment is trained with; and their order in an epoch."""

import random
from array import array
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...agent.trajectory import Segment, Trajectory

OBSERVED = ("system", "user", "tool", "template")
"""Roles of tokens that the assistant did not write."""
TOP = "teacher_top"
"""Name of the column of what a server's teacher finds likeliest, see ``Document.columns``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """Tokens that a teacher reads and the student does not.

    Attributes:
        token_ids: [B] int64.
        before: the place in the document's segment of the token that they stand before, at least 1; what the student
            read and wrote is the same before and after them.
    """

    token_ids: np.ndarray
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One segment, shifted: position t holds the input token t and everything about token t + 1, its target.

    Attributes:
        token_ids: [L] int64 inputs.
        targets: [L] int64, the token that follows each input.
        loss_mask: [L] bool, whether the target is trained.
        old_logprobs: [L] float32 nats of the target as sampled; NaN where nothing was sampled.
        advantage: of the episode, or [L] of each target; 0 in supervised training.
        weight: of each trained token in the loss's weighted mean.
        observation_weight: the share of ``weight`` that trained tokens have which the assistant did not write.
        written: [L] bool, whether the assistant wrote the target; None: it wrote every trained one.
        columns: name -> [L] float32 of each target, under the name of an attribute of ``losses.TrainedTokens``; or
            "temperature", at which it is scored, and "echo", the weight of an observation in ``losses.echo_loss``; and
            ``TOP``, [L, 2, K], the ids and nats of the tokens that a teacher behind a server finds likeliest there.
        taught: name of the teacher that scores it; "": none.
        hint: what the teacher alone reads; None: nothing.
    """

    token_ids: np.ndarray
    targets: np.ndarray
    loss_mask: np.ndarray
    old_logprobs: np.ndarray
    advantage: float | np.ndarray = 0.0
    weight: float = 1.0
    observation_weight: float = 0.0
    written: np.ndarray | None = None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    taught: str = ""
    hint: Hint | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def weights(self) -> np.ndarray:
        """[L] float32, of each target in the loss; 0 where it is not trained."""
        share = 1.0 if self.written is None else np.where(self.written, 1.0, self.observation_weight)
        return (self.loss_mask * share * self.weight).astype(np.float32)


def document_of(
    segment: Segment,
    *,
    sampled: bool,
    advantage: float = 0.0,
    weight: float = 1.0,
    observed: Container[str] = (),
) -> Document | None:
    """Shift a segment. What follows the last token that is learned is cut: attention is causal, so it changes no loss.

    Args:
        observed: roles whose tokens are learned, too (by weights that are written elsewhere): nothing up to the last of
            these is cut.
        sampled: every trained token needs the log-probability it was sampled with (reinforcement learning); False
            ignores log-probabilities (demonstrations).
    Returns:
        None where the segment has nothing to learn.
    Raises:
        ValueError: a trained token has no finite log-probability, or has no token before it.
    """
    mask = np.asarray(segment.loss_mask, dtype=bool)
    learned = np.flatnonzero(mask | np.array([role in observed for role in segment.roles], dtype=bool))
    if not len(learned) or (not mask.any() and sampled) or learned[-1] == 0:
        return None
    if mask[0]:
        raise ValueError(
            "the first token of a segment is marked as trained, but nothing predicts it; begin with a prompt"
        )
    end = int(learned[-1])
    ids = np.asarray(segment.token_ids[: end + 1], dtype=np.int64)
    logprobs = np.full(end, np.nan, dtype=np.float32)
    if sampled:
        logprobs = np.asarray(segment.logprobs[1 : end + 1], dtype=np.float32)
        bad = np.flatnonzero(mask[1 : end + 1] & ~np.isfinite(logprobs))
        if len(bad):
            raise ValueError(
                f"token {int(bad[0]) + 1} is trained but its sampled log-probability is {logprobs[bad[0]]} "
                f"({len(bad)} such tokens); sample with an engine that returns them, or train it as a demonstration"
            )
    return Document(
        token_ids=ids[:-1],
        targets=ids[1:],
        loss_mask=mask[1 : end + 1],
        old_logprobs=logprobs,
        advantage=advantage,
        weight=weight,
    )


def demonstrations_of(trajectories: Iterable[Trajectory], *, observation_weight: float = 0.0) -> list[Document]:
    """Documents of episodes to imitate: every assistant token counts the same, whoever wrote it.

    Args:
        observation_weight: of a token that the assistant did not write (prompts, answers of tools), beside 1 for one
            that it did; 0 trains on the assistant's alone.
    """
    segments = (segment for trajectory in trajectories for segment in trajectory.segments)
    observed = OBSERVED if observation_weight else ()
    made = (document_of(segment, sampled=False, observed=observed) for segment in segments)
    documents = [found for found in made if found is not None]
    if not observation_weight:
        return documents
    return [
        replace(
            document,
            written=document.loss_mask,
            loss_mask=np.ones_like(document.loss_mask),
            observation_weight=observation_weight,
        )
        for document in documents
    ]


class DocumentStream:
    """Documents in a new order each epoch, cut into batches of about ``batch_tokens``. Its state is a cursor.

    Batches do not cross the end of an epoch, and every document is in exactly one batch of it.
    """

    def __init__(self, documents: Sequence[Document], *, batch_tokens: int, seed: int = 0) -> None:
        if not documents:
            raise ValueError("there is no demonstration to train on; give at least one with an assistant token")
        self._documents, self._batch_tokens, self._seed = documents, batch_tokens, seed
        self.epoch = 0
        self._position = 0
        self._order = self._shuffle()

    @property
    def epochs_done(self) -> float:
        return self.epoch + self._position / len(self._documents)

    def next_batch(self) -> list[Document]:
        """At least one document; as many more as fit."""
        batch: list[Document] = []
        total = 0
        while self._position < len(self._order):
            document = self._documents[self._order[self._position]]
            if batch and total + len(document) > self._batch_tokens:
                break
            batch.append(document)
            total += len(document)
            self._position += 1
        if self._position == len(self._order):
            self.epoch, self._position = self.epoch + 1, 0
            self._order = self._shuffle()
        return batch

    def _shuffle(self) -> Sequence[int]:
        order = array("I", range(len(self._documents)))
        random.Random(f"{self._seed}/{self.epoch}").shuffle(order)
        return order

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self._position, "num_documents": len(self._documents)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError where the demonstrations are not those of the state."""
        if state["num_documents"] != len(self._documents):
            raise ValueError(
                f"the saved cursor is of {state['num_documents']} demonstrations, here are {len(self._documents)}; "
                "resume with the same data"
            )
        self.epoch, self._position = state["epoch"], state["position"]
        self._order = self._shuffle()
