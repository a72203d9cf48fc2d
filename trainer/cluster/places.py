"""What a run has on a cluster, from the controller's side: ranks, engines and episode workers in reserved room."""

import asyncio
from pathlib import Path

from ...agent.harness.open import Rollout
from ..engines.fleet import Fleet
from ..learning.trainee import Trainee
from ..recipe.layouts import layout_of
from ..recipe.recipe import Recipe
from .bundles import cluster_of, engine_need, trainer_need, worker_need
from .elsewhere import Elsewhere
from .engines import OnCluster
from .episodes import RecipeSetup
from .placing import release, reserve
from .ranks import RayRanks
from .remote import Reach, addresses_of
from .worker_actor import starts_workers
from .workers import LOOK_SECONDS, Workers


class ClusterPlaces:
    """``engines.open.Places`` on a Ray cluster, and the ranks that train.

    Room is reserved for all at once; it goes, with all that is in it, when the process that made this does.

    Attributes:
        ranks: that train.
        launch: starts engines.
    """

    def __init__(self, recipe: Recipe, out: Path, room: str) -> None:
        """
        Args:
            out: folder of the run, which all machines see.
            room: name of the room, by which the driver gives it back should this process die.
        Raises:
            ConfigError: there is no room. RanksLost: a rank could not start.
        """
        config, engines = cluster_of(recipe), recipe.engines
        assert engines is not None, "cluster_of has looked"
        self._recipe, self._config, self._out = recipe, config, out
        layout = layout_of(recipe.layout, config.ranks, unit="ranks", remedy="set cluster.ranks to a multiple")
        split = engines.tensor_parallel
        needs = [trainer_need(config, layout), *[engine_need(config, split)] * engines.count, worker_need(config)]
        self._groups = reserve(needs, config.wait_seconds, room)
        try:
            self.ranks = RayRanks(config, layout, self._groups[0])
        except BaseException:
            release(self._groups)
            raise
        self.launch = OnCluster(config, split, self._groups[1:-1])
        self._setup: RecipeSetup | None = None
        start = starts_workers(config, self._groups[-1], self._made)
        self.workers = Workers(start, config.workers, most_inside=config.episodes)
        self._watching: asyncio.Task[None] | None = None

    def acting(self, name: str, act: Rollout) -> Rollout:
        """See ``Places``."""
        return Elsewhere(self.workers, name, act)

    async def opened(self, fleet: Fleet, trainee: Trainee) -> None:
        """See ``Places``."""
        if self._setup is not None:
            return
        folder = (self._out / "engines" / "format").absolute()
        trainee.save_format(folder)
        reach = Reach(
            format=folder,
            num_engines=len(fleet.servers),
            max_context=fleet.max_context,
            request_seconds=self._recipe.episode_seconds,
            concurrency=self._config.episodes,
        )
        self._setup = RecipeSetup(recipe=self._recipe, reach=reach)
        fleet.on_change = lambda: self.workers.change(addresses_of(fleet))
        self._watching = asyncio.ensure_future(fleet.watch(LOOK_SECONDS))
        await self.workers.open(addresses_of(fleet))

    def renew(self) -> None:
        """See ``Places``."""
        self.ranks.renew()

    async def aclose(self) -> None:
        """See ``Places``."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.workers.aclose()

    def close(self) -> None:
        """End the ranks and give all room back."""
        self.ranks.close()
        release(self._groups)

    def _made(self) -> RecipeSetup:
        assert self._setup is not None, "workers are started once engines are"
        return self._setup
