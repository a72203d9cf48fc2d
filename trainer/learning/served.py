"""Teachers behind servers: what they say of sampled tokens, asked while other episodes are sampled."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...agent.remote_scorer import RemoteScorer
from ...agent.trajectory import Trajectory
from ...envs.sandbox.background import on_thread
from ...errors import PolicyError
from ..batching.documents import Document, Hint, document_of
from ..recipe.algorithms import OPDConfig, RLConfig
from .distilling import taught_by
from .hindsight import Hindsight

logger = logging.getLogger(__name__)

Columns = tuple[np.ndarray | None, ...]
"""Of each segment of an episode what is said of its document's targets: [L] float32 nats of them, or [L, 2, K] ids and
nats of the K likeliest tokens in their places; None where it is not taught."""


@dataclass(frozen=True, slots=True)
class Unscored:
    """An episode whose teacher gave no answer: the infrastructure's failure, and no credit of 0."""

    why: str


class ServedTeachers:
    """Asks servers about groups of episodes. Everything happens on one event loop.

    A group is asked about as soon as it has ended; what the teacher is shown in hindsight is that of ``Hindsight``.
    """

    def __init__(
        self,
        scorers: Mapping[str, RemoteScorer],
        config_of: Callable[[Trajectory], RLConfig],
        hindsight: Hindsight | None = None,
    ) -> None:
        """
        Args:
            scorers: by the names that teachers have in the recipe.
            config_of: the settings of an episode.
        """
        self._scorers, self._config_of, self._hindsight = dict(scorers), config_of, hindsight
        self._asked: dict[int, tuple[Trajectory, asyncio.Task[Columns | Unscored]]] = {}

    def begin(self, group: Sequence[Trajectory]) -> None:
        """Ask about the episodes of a group that has ended; those that were asked about already are not again."""
        asked = [one for one in group if id(one) not in self._asked]
        if not any(taught_by(self._config_of(one)) in self._scorers for one in asked):
            return
        made = asyncio.ensure_future(on_thread(self._sequences, tuple(group)))
        for place, one in enumerate(group):
            if id(one) not in self._asked:
                self._asked[id(one)] = one, asyncio.ensure_future(self._columns(one, place, made))

    async def said(self, trajectories: Sequence[Trajectory]) -> list[Columns | Unscored]:
        """What the teachers said of each episode; () where none of these is its teacher. Each is asked about once."""
        groups: dict[str, list[Trajectory]] = {}
        for one in trajectories:
            groups.setdefault(one.group_id, []).append(one)
        for group in groups.values():
            self.begin(group)
        found = [await self._asked[id(one)][1] if id(one) in self._asked else () for one in trajectories]
        self.forget(trajectories)
        return found

    def forget(self, trajectories: Sequence[Trajectory]) -> None:
        """Episodes that are not learned from."""
        for one in trajectories:
            _, task = self._asked.pop(id(one), (one, None))
            if task is not None:
                task.cancel()

    async def aclose(self) -> None:
        """End what is being asked, and close the connections. May be called twice."""
        tasks = [task for _, task in self._asked.values()]
        self._asked.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for scorer in self._scorers.values():
            await scorer.aclose()

    def _sequences(self, group: Sequence[Trajectory]) -> list[list["_Asked | None"]]:
        """What is to be read of each segment of each episode."""
        configs = [self._config_of(one) for one in group]
        hints = None if self._hindsight is None else self._hindsight(group, configs).of_episodes
        found = []
        for index, (one, config) in enumerate(zip(group, configs, strict=True)):
            mine = (None,) * len(one.segments) if hints is None else hints[index]
            is_taught = taught_by(config) in self._scorers and one.reward is not None and len(mine) > 0
            documents = [
                document_of(segment, sampled=True, observed=config.echo) if is_taught else None
                for segment in one.segments
            ]
            found.append(
                [
                    None if document is None else _Asked.of(document, hint)
                    for document, hint in zip(documents, mine or (None,) * len(documents), strict=True)
                ]
            )
        return found

    async def _columns(
        self, episode: Trajectory, place: int, made: "asyncio.Future[list[list[_Asked | None]]]"
    ) -> Columns | Unscored:
        scorer = self._scorers.get(taught_by(self._config_of(episode)))
        if scorer is None:
            return ()
        asked, num_top = (await asyncio.shield(made))[place], num_likeliest(self._config_of(episode))

        async def said(ids: list[int]) -> np.ndarray:
            return await (scorer.likeliest(ids, num_top) if num_top else scorer.score(ids))

        try:
            return tuple([None if one is None else one.column(await said(one.token_ids)) for one in asked])
        except PolicyError as error:
            logger.warning("an episode of task %r is left out: its teacher gave no answer: %s", episode.task_id, error)
            return Unscored(str(error))


def num_likeliest(config: RLConfig) -> int:
    """Of how many tokens a server is asked in each place; 0: of the sampled one alone."""
    return (config.divergence.support or 0) if isinstance(config, OPDConfig) and config.is_exact else 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A document as the teacher reads it, and where its targets stand in that."""

    token_ids: list[int]
    places: np.ndarray

    @classmethod
    def of(cls, document: Document, hint: Hint | None) -> "_Asked":
        ids = np.concatenate((document.token_ids[:1], document.targets))
        places = np.arange(1, len(ids))
        if hint is not None:
            ids = np.insert(ids, hint.before, hint.token_ids)
            places = np.where(places >= hint.before, places + len(hint.token_ids), places)
        return cls(ids.tolist(), places)

    def column(self, logprobs: np.ndarray) -> np.ndarray:
        """[L, ...] of the document's targets, from those of all that was read."""
        return logprobs[self.places]
