"""Turn games with PettingZoo's interface (AEC) as ours (``pip install pettingzoo``, and what the game needs)."""

from collections.abc import Callable, Sequence
from typing import Any

from ..acting import said_of
from ..task import Task
from .gymnasium_text import number_in
from .turn_game import Move, TurnGame


class PettingZoo(TurnGame):
    """An AEC environment, or any object with its methods (``reset``, ``last``, ``step``, ``agent_selection``,
    ``possible_agents``, ``action_space``, ``rewards``). Nothing of PettingZoo is imported here.

    An action that the mask of the game forbids is told to the player, who is asked again; the game does not see it.
    """

    family = "pettingzoo"

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        render: Callable[[Any, str], str] = lambda observation, player: str(observation),
        read: Callable[[str], Any] | None = None,
        about: str = "",
        num_tasks: int = 100,
        bounds: tuple[float, float] = (-1.0, 1.0),
        **kwargs: Any,
    ) -> None:
        """
        Args:
            make: makes the game, such as ``pettingzoo.classic.tictactoe_v3.env``.
            render: (observation, the player's name) -> what that player sees.
            read: message -> action; raises ValueError with what is wrong. None: the last whole number, or the text.
            about: what each player's first message begins with.
            num_tasks: tasks of its own: so many seeds, the agent in the seats in turn.
            bounds: the least and the most that a player gets.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self._make, self._render, self._read = make, render, read
        self._about, self._num_tasks, self.reward_bounds = about, num_tasks, bounds
        self._game: Any = None

    def load(self) -> Sequence[Task]:
        return [
            Task(
                id=f"seed-{seed}",
                family=self.family,
                prompt=self._about,
                hidden={"seed": seed},
                metadata={"seat": seed % 2},
            )
            for seed in range(self._num_tasks)
        ]

    def open_game(self, task: Task) -> int:
        self._game = self._make()
        self._game.reset(seed=task.hidden.get("seed"))
        self._players = list(self._game.possible_agents)
        self._got = dict.fromkeys(self._players, 0.0)
        return len(self._players)

    def next_move(self) -> Move:
        name = self._game.agent_selection
        observation, _, terminated, truncated, info = self._game.last()
        shown = said_of(self._hooks.within("render", self._render, observation, name)).content
        return Move(player=self._players.index(name), shown=shown, over=bool(terminated or truncated))

    def play(self, text: str) -> str | None:
        name = self._game.agent_selection
        observation, _, _, _, info = self._game.last()
        try:
            action = (self._read or number_in(self._game.action_space(name)))(text)
        except ValueError as error:
            return f"error: {error}"
        mask = observation.get("action_mask") if isinstance(observation, dict) else None
        mask = info.get("action_mask", mask)
        if mask is not None and not mask[action]:
            legal = ", ".join(str(place) for place, open_ in enumerate(mask) if open_)
            return f"error: {action} is no legal move now; the legal ones are {legal}"
        self._game.step(action)
        for player, reward in self._game.rewards.items():
            self._got[player] += float(reward)
        return None

    def results(self) -> Sequence[float]:
        return [self._got[player] for player in self._players]

    def stop(self) -> None:
        if self._game is not None:
            self._game.close()
            self._game = None
