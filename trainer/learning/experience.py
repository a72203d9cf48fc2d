"""From graded episodes to the documents of an update: scored under the weights before it, with an advantage a token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...agent.trajectory import TRUNCATED, Trajectory
from ...model.lora import AnyDecoder
from ...model.parallel.place import Place
from ..batching.documents import TOP, Document, document_of
from ..batching.packs import PackedBatch, join, planned
from ..batching.sharing import Share
from ..objective.advantages import GroupAdvantages, finite_rewards
from ..objective.critic import Critic
from ..objective.objective import baselined_each, shaped_rewards, weighting
from ..objective.own import credits_of
from ..objective.per_token import add_columns, is_by_token, with_temperature
from ..objective.reference import AdapterReference
from ..objective.teacher import Teachers
from ..objective.turns import at_ends, by_token
from ..recipe.algorithms import OPDConfig, OwnConfig, PPOConfig, ReinforcePPConfig, RLConfig
from ..recipe.per_family import ConfigOf
from .credit import costs_to_go, estimate, kl_costs, mean_of, mismatch, spread
from .distilling import distil, hint_metrics, in_loss_units, taught_by
from .hindsight import Hindsight, Hints
from .scores import score
from .served import Columns, Unscored, num_likeliest

Annotate = Callable[[Sequence[Document]], list[Document]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """What a step learns from.

    Attributes:
        documents: of each trajectory, in their order; none where it is left out.
        groups: what became of each group.
        metrics: keys "room/quantity/stat".
    """

    documents: tuple[tuple[Document, ...], ...]
    groups: GroupAdvantages
    metrics: dict[str, float]


class Scorer:
    """Writes what the weights before a step say of each trained token into the documents' columns.

    "anchor_logprobs" where the sampler is corrected for, "reference_logprobs" with a KL term, "teacher_logprobs" with a
    teacher, "old_values" with a critic. With none of them it does nothing.
    """

    def __init__(
        self,
        decoder: AnyDecoder,
        config: RLConfig,
        *,
        reference: AnyDecoder | AdapterReference | None = None,
        teachers: Teachers | None = None,
        critic: Critic | None = None,
        place: Place | None = None,
    ) -> None:
        self._decoder, self._config, self._reference, self._critic = decoder, config, reference, critic
        exact = isinstance(config, OPDConfig) and config.is_exact
        self._teachers = None if exact else teachers
        self._place = place

    @torch.no_grad()
    def columns(self, packs: Sequence[PackedBatch]) -> list[dict[str, Tensor]]:
        """Of each pack, name -> [N] on the CPU, at its trained tokens."""
        return [self._columns(pack.to(self._decoder.head.weight.device)) for pack in packs]

    def _columns(self, batch: PackedBatch) -> dict[str, Tensor]:
        columns = {}
        anchored = self._config.correction.kind != "none"
        if anchored or self._critic is not None:
            scores = score(self._decoder, batch, self._critic, self._place)
            if anchored:
                columns["anchor_logprobs"] = scores.logprobs
            if scores.values is not None:
                columns["old_values"] = scores.values
        if self._reference is not None:
            columns["reference_logprobs"] = score(self._reference, batch, place=self._place).logprobs
        if self._teachers is not None:
            columns["teacher_logprobs"] = self._teachers.logprobs(
                batch, lambda model, pack: score(model, pack, place=self._place).logprobs
            )
        return {name: column.float().cpu() for name, column in columns.items()}

    def __call__(self, documents: Sequence[Document]) -> list[Document]:
        return annotate(documents, self._config, self.columns)


def annotate(
    documents: Sequence[Document],
    config: RLConfig,
    columns_of: Callable[[Sequence[PackedBatch]], list[dict[str, Tensor]]],
    *,
    ways: int = 1,
    share: Share = "off",
) -> list[Document]:
    """Documents with the columns that their loss needs; see ``Scorer``.

    Args:
        columns_of: ``Scorer.columns``, here or over many ranks.
        ways: packs are made for so many ranks.
        share: of ``packs.planned``.
    """
    asked = isinstance(config, PPOConfig) or (isinstance(config, OPDConfig) and not config.is_exact)
    if config.correction.kind == "none" and not config.kl.coef and not asked:
        return list(documents)
    found: list[Document] = list(documents)
    plan, share = planned(documents, max_tokens=config.microbatch_tokens, ways=ways, share=share)
    joined = (join([documents[index] for index in members], temperature=config.temperature) for members in plan)
    batches = [replace(batch, share=share) for batch in joined]
    for members, batch, columns in zip(plan, batches, columns_of(batches), strict=True):
        place = np.flatnonzero(batch.loss_mask.numpy())
        for name, column in columns.items():
            whole = np.zeros(batch.num_tokens, np.float32)
            whole[place] = column.numpy()
            for index, part in zip(members, np.split(whole, np.cumsum(batch.lengths)[:-1]), strict=True):
                known = found[index].columns.get(name)  # said by a server, where ranks have nothing to say
                part = part if known is None else np.where(np.isnan(part), known, part)
                found[index] = replace(found[index], columns={**found[index].columns, name: part})
    return found


def experience_of(
    trajectories: Sequence[Trajectory],
    config: RLConfig,
    annotate: Annotate = list[Document],
    config_of: ConfigOf | None = None,
    hindsight: Hindsight | None = None,
    said: Sequence[Columns | Unscored] | None = None,
) -> Experience:
    """Documents of sampled episodes with an advantage for each token.

    Args:
        annotate: what the weights before the step say, see ``Scorer``.
        config_of: the settings of each task; None: ``config`` for all.
        hindsight: makes what teachers are shown beside the episodes; None: nothing.
        said: of each episode what ``ServedTeachers`` say; one that they could not score is left out. None: there are
            none.
    Raises:
        TrainingError: a reward is not finite.
        ValueError: a sampled token has no log-probability.
    """
    rewards = shaped_rewards(config, trajectories, finite_rewards(trajectories))
    own = [config if config_of is None else config_of(one.family, one.task_id) for one in trajectories]
    hints = None if hindsight is None else hindsight(trajectories, own)
    said = said or [()] * len(trajectories)
    documents = _scored(trajectories, rewards, own, annotate, hints, said)
    metrics = mismatch(documents) | hint_metrics(documents, hints)
    unscored = sum(isinstance(one, Unscored) for one in said)
    metrics |= {"trainer/teacher_failures/count": float(unscored)} if any(one != () for one in said) else {}
    if config.kl.coef and config.kl.place == "reward" and not isinstance(config, PPOConfig | ReinforcePPConfig):
        rewards = [
            None if reward is None else reward - float(sum(cost.sum() for cost in kl_costs(mine, config)))
            for reward, mine in zip(rewards, documents, strict=True)
        ]
    own_credits = credits_of(config, trajectories) if isinstance(config, OwnConfig) else None
    groups = baselined_each(own, trajectories, rewards)
    if own_credits is not None:
        groups = replace(groups, values=tuple(None if one is None else mean_of(one) for one in own_credits))
    kept = [
        index
        for index, trajectory in enumerate(trajectories)
        if documents[index]
        and groups.values[index] is not None
        and not (own[index].overlong == "mask" and trajectory.ending in TRUNCATED)
    ]
    for index in kept:
        in_ppo = isinstance(config, PPOConfig)
        documents[index] = _credited(documents[index], trajectories[index], groups, index, in_ppo)
    if isinstance(config, ReinforcePPConfig):
        costs_to_go(documents, kept, config)
    elif isinstance(config, PPOConfig):
        metrics |= estimate(documents, kept, config)
    elif own_credits is not None:
        for index in kept:
            columns = spread(documents[index], own_credits[index])  # type: ignore[arg-type]  # kept ones have some
            documents[index] = [replace(one, advantage=c) for one, c in zip(documents[index], columns, strict=True)]
    elif isinstance(config, OPDConfig):
        metrics |= distil(documents, kept, trajectories, own)
    by_episode = weighting(config) == "episode"
    result: list[tuple[Document, ...]] = [()] * len(trajectories)
    for index in kept:
        weight = 1.0 / trajectories[index].num_sampled if by_episode else 1.0
        result[index] = tuple(replace(one, weight=weight) for one in documents[index])
    if isinstance(config, OPDConfig) and config.is_exact:
        result = in_loss_units(result)
    add_columns(result, trajectories, own)
    return Experience(documents=tuple(result), groups=groups, metrics=metrics)


def _credited(
    documents: list[Document], trajectory: Trajectory, groups: GroupAdvantages, index: int, at_the_end: bool
) -> list[Document]:
    """Documents with the episode's advantage, or its turns'; ``at_the_end`` of each (PPO's critic spreads them)."""
    turns = groups.turns[index] if groups.turns else None
    if turns is None:
        value = float(groups.values[index] or 0.0)
        return [replace(one, advantage=value) for one in documents]
    count = sum(int(one.loss_mask.sum()) for one in documents)
    columns = spread(documents, (at_ends if at_the_end else by_token)(trajectory, turns, count))
    return [replace(one, advantage=column) for one, column in zip(documents, columns, strict=True)]


def _scored(
    trajectories: Sequence[Trajectory],
    rewards: Sequence[float | None],
    own: Sequence[RLConfig],
    annotate: Annotate,
    hints: Hints | None,
    said: Sequence[Columns | Unscored],
) -> list[list[Document]]:
    flat: list[Document] = []
    owners: list[int] = []
    by_token, are_served = is_by_token(own), any(one != () for one in said)
    for index, (trajectory, reward, told) in enumerate(zip(trajectories, rewards, said, strict=True)):
        is_left_out = reward is None or isinstance(told, Unscored)
        for place, segment in enumerate(() if is_left_out else trajectory.segments):
            document = document_of(segment, sampled=True, observed=own[index].echo)
            if document is not None:
                document = with_temperature(document, own[index]) if by_token else document
                taught, hint = taught_by(own[index]), None
                if hints is not None:
                    mine = hints.of_episodes[index]
                    taught, hint = (taught, mine[place]) if mine else ("", None)
                document = replace(document, taught=taught, hint=hint)
                if are_served:  # documents of a pack have the same columns
                    column = told[place] if told and taught else None  # type: ignore[index]  # unscored ones are out
                    num_top = num_likeliest(own[index])
                    if column is None:
                        shape = (len(document), 2, num_top) if num_top else (len(document),)
                        column = np.full(shape, np.nan, np.float32)
                    name = TOP if num_top else "teacher_logprobs"
                    document = replace(document, columns={**document.columns, name: column})
                flat.append(document)
                owners.append(index)
    documents: list[list[Document]] = [[] for _ in trajectories]
    for index, document in zip(owners, annotate(flat), strict=True):
        documents[index].append(document)
    return documents
