"""Games of TextArena as ours (``pip install textarena``)."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ..task import Task
from .needed import needed
from .turn_game import Move, TurnGame

_SEEDING = threading.Lock()
"""TextArena's games draw from Python's one random state, which ``reset`` seeds: two may not begin at once."""


class TextArena(TurnGame):
    """A game by its id, such as "TicTacToe-v0": what the game says to a player is the next message of that player's
    conversation, whole histories are not repeated. A move that the game refuses is the game's to punish.

    Source: TextArena, arXiv:2504.11442.
    """

    family = "textarena"

    def __init__(
        self,
        game: str,
        *,
        num_players: int = 2,
        num_tasks: int = 100,
        about: str = "",
        game_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            game: its id, which may be one of a single player.
            num_players: 1, 2, or as many as the game takes.
            num_tasks: tasks of its own: so many seeds, each with the agent in the next seat.
            about: what the first message says before the game does.
            game_options: of ``textarena.make``.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self._textarena = needed("textarena", "textarena")
        self._game, self._num, self._options = game, num_players, dict(game_options or {})
        self._num_tasks, self._about = num_tasks, about

    def load(self) -> Sequence[Task]:
        return [
            Task(
                id=f"{self._game}-{seed}",
                family=self.family,
                prompt=self._about,
                hidden={"seed": seed},
                metadata={"seat": seed % self._num},
            )
            for seed in range(self._num_tasks)
        ]

    def open_game(self, task: Task) -> int:
        env = self._textarena.make(self._game, **self._options)
        while hasattr(env, "env"):  # wrappers repeat the whole history in each observation
            env = env.env
        with _SEEDING:
            env.reset(num_players=self._num, seed=task.hidden.get("seed"))
        self._env, self._done, self._read = env, False, [0] * self._num
        return self._num

    def next_move(self) -> Move:
        player, news = self._env.get_observation()
        shown = "\n".join(text.strip() for sender, text, _ in news if sender != player)
        return Move(player=player, shown=shown, over=self._done)

    def play(self, text: str) -> str | None:
        self._done, _ = self._env.step(text)
        return None

    def results(self) -> Sequence[float]:
        rewards, _ = self._env.close()
        return [float((rewards or {}).get(player, 0.0)) for player in range(self._num)]
