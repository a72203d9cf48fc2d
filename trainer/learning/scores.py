"""What a model says of the tokens of a pack, on one rank or on those that share it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.attention import Documents
from ...model.decoder import Decoder
from ...model.divergence import score_against
from ...model.head import TokenScorer
from ...model.lora import AnyDecoder
from ...model.parallel.packs import share_of, whole_of
from ...model.parallel.place import Place
from ..batching.documents import TOP
from ..batching.hints import rows_of
from ..batching.packs import PackedBatch
from ..batching.sharing import laid
from ..objective.critic import Critic
from ..objective.losses import TrainedTokens
from ..objective.reference import AdapterReference
from ..objective.taught import Taught
from ..objective.teacher import Teachers

NOT_OF_THE_LOSS = frozenset({"temperature", "echo", "kept", "teacher_logprobs", TOP})
"""Columns that say how tokens are scored, which observations are learned, what is kept to look at and what a teacher
says, and are no part of ``TrainedTokens``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the model says of the scored tokens of a pack.

    Attributes:
        index: [N] int64, their places in the pack.
        logprobs, entropy: [N] nats, at the pack's temperature.
        values: [N] of the critic; None without one.
        taught: what teachers say, where they are asked in the step; None where they are not.
    """

    index: Tensor
    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None = None
    taught: Taught | None = None

    def at(self, chosen: Tensor) -> "Scores":
        """Those where ``chosen``, [N] bool, is true."""
        values = None if self.values is None else self.values[chosen]
        taught = None
        if self.taught is not None:
            taught = Taught(divergence=self.taught.divergence[chosen], logprobs=self.taught.logprobs[chosen])
        return Scores(
            index=self.index[chosen],
            logprobs=self.logprobs[chosen],
            entropy=self.entropy[chosen],
            values=values,
            taught=taught,
        )


def score(
    decoder: AnyDecoder | AdapterReference,
    batch: PackedBatch,
    critic: Critic | None = None,
    place: Place | None = None,
    teachers: Teachers | None = None,
) -> Scores:
    """Score the trained tokens. Only they meet the vocabulary: prompts and observations are most of an episode.

    Args:
        place: this rank's, where the decoder is sharded; all ranks that share the pack get the scores of all of it.
        teachers: whose distributions those of the decoder are compared with.
    """
    if teachers is not None:
        assert isinstance(decoder, TokenScorer)
        return _score_taught(decoder, batch, teachers, place)
    if place is not None:
        return _score_share(decoder, batch, critic, place)
    index = batch.scored.nonzero().squeeze(1)
    targets, temperature = batch.targets.index_select(0, index), batch.temperatures
    if isinstance(temperature, Tensor):
        temperature = temperature.index_select(0, index)
    ids, documents, where = _laid(decoder, batch, index)
    if critic is None:
        logprobs, entropy = decoder.score(ids, documents, targets, temperature, index=where)
        return Scores(index=index, logprobs=logprobs, entropy=entropy)
    assert not isinstance(decoder, AdapterReference), "a critic reads the policy, never the reference"
    logprobs, entropy, hidden = decoder.score_and_states(ids, documents, targets, temperature, index=where)
    return Scores(index=index, logprobs=logprobs, entropy=entropy, values=critic(hidden, ids, documents, where))


def _laid(
    decoder: AnyDecoder | AdapterReference, batch: PackedBatch, index: Tensor
) -> tuple[Tensor, Documents, Tensor]:
    """``sharing.laid`` as the pack asks for it, where the decoder is ours."""
    model = decoder.decoder if isinstance(decoder, AdapterReference) else decoder
    return laid(batch.token_ids, batch.lengths, index, batch.share if isinstance(model, Decoder) else "off")


def _score_taught(decoder: AnyDecoder, batch: PackedBatch, teachers: Teachers, place: Place | None) -> Scores:
    """Score a pack beside its teachers; on ranks that share it, each its own tokens."""
    said = teachers.states(batch, place)
    index = batch.scored.nonzero().squeeze(1)
    temperature = batch.temperatures
    if place is None:
        ids, documents, where = _laid(decoder, batch, index)
        if isinstance(temperature, Tensor):
            temperature = temperature.index_select(0, index)
        against = [(rows_of(name, batch, index), found) for name, found in said]
        targets = batch.targets.index_select(0, index)
        one = score_against(decoder, ids, documents, targets, against, teachers.divergence, temperature, index=where)
        taught = Taught(divergence=one.divergence, logprobs=one.teacher_logprobs)
        return Scores(index=index, logprobs=one.logprobs, entropy=one.entropy, taught=taught)
    share = share_of(batch.lengths, place.layout, place.meshes, batch.token_ids.device)
    own = share.take(batch.scored).nonzero().squeeze(1)
    scored = own if own.numel() else own.new_zeros(1)
    if isinstance(temperature, Tensor):
        temperature = share.take(temperature, fill=1.0).index_select(0, scored)
    against = []
    for name, found in said:
        # Where the teacher's rows, which follow each other in the order of the pack, stand in the padded pack.
        at = index[rows_of(name, batch, index)] - share.own.start
        here = ((at >= 0) & (at < share.own.stop - share.own.start)).nonzero().squeeze(1)
        if here.numel():
            against.append((torch.searchsorted(scored, at[here]), found.at(here)))
    one = score_against(
        decoder,
        share.take(batch.token_ids),
        share.documents,
        share.take(batch.targets).index_select(0, scored),
        against,
        teachers.divergence,
        temperature,
        index=scored,
        cache=share.cache,
    )
    columns = (one.logprobs, one.entropy, one.divergence, one.teacher_logprobs)
    count = share.own.stop - share.own.start
    placed = [column.new_zeros(count).index_copy(0, scored, column) for column in columns]
    whole = whole_of(torch.stack(placed, dim=1), place.layout, place.meshes).index_select(0, index).unbind(dim=1)
    taught = Taught(divergence=whole[2], logprobs=whole[3].detach())
    return Scores(index=index, logprobs=whole[0], entropy=whole[1], taught=taught)


def _score_share(
    decoder: AnyDecoder | AdapterReference, batch: PackedBatch, critic: Critic | None, place: Place
) -> Scores:
    """Score this rank's tokens of a pack and fetch the others'.

    A rank without such a token among its own scores one all the same: in every layer the others wait for it.
    """
    share = share_of(batch.lengths, place.layout, place.meshes, batch.token_ids.device)
    own = share.take(batch.scored).nonzero().squeeze(1)
    scored = own if own.numel() else own.new_zeros(1)
    targets, temperature = share.take(batch.targets).index_select(0, scored), batch.temperatures
    if isinstance(temperature, Tensor):
        temperature = share.take(temperature, fill=1.0).index_select(0, scored)
    ids, documents, where = share.take(batch.token_ids), share.documents, scored
    if place.layout.token_split == 1:
        ids, documents, where = _laid(decoder, batch, scored)
    logprobs, entropy, hidden = decoder.score_and_states(
        ids, documents, targets, temperature, index=where, cache=share.cache
    )
    columns = [logprobs, entropy]
    if critic is not None:
        columns.append(critic(hidden, ids, documents, where, share.cache))
    count = share.own.stop - share.own.start
    placed = [column.new_zeros(count).index_copy(0, scored, column) for column in columns]
    index = batch.scored.nonzero().squeeze(1)
    found = whole_of(torch.stack(placed, dim=1), place.layout, place.meshes).index_select(0, index).unbind(dim=1)
    return Scores(index=index, logprobs=found[0], entropy=found[1], values=found[2] if critic is not None else None)


def known_tokens(batch: PackedBatch, index: Tensor) -> TrainedTokens:
    """What was known of the trained tokens, at ``index``, before the forward pass."""
    documents = torch.repeat_interleave(torch.tensor(batch.lengths, device=index.device))
    counts = torch.bincount(documents[index], minlength=len(batch.lengths))
    return TrainedTokens(
        old_logprobs=batch.old_logprobs[index],
        advantages=batch.advantages[index],
        lengths=counts[counts > 0],
        **{name: column[index] for name, column in batch.columns.items() if name not in NOT_OF_THE_LOSS},
    )
