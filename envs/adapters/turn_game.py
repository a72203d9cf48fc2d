"""Games of turns with several players as ours: the agent has one seat, and who has the others is asked by name."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...model.chat.messages import Message
from ...rewards.score import Score
from ..acting import Submission
from ..core import ToolEnv
from ..task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What is to be done next in a game.

    Attributes:
        player: whose turn it is, from 0.
        shown: what that player has to see since its last turn.
        over: whether the game has ended.
    """

    player: int
    shown: str
    over: bool


class TurnGame(ToolEnv):
    """The agent plays seat ``task.metadata["seat"]`` (0 where it says nothing); the model ``player_N`` has seat N.

    Each player has a conversation of its own, in which the game speaks as the user. Rewards of the others are told
    under their names (``Score.others``), so that a recipe may train them too.
    """

    family = "game"
    reward_bounds = (-1.0, 1.0)

    @abstractmethod
    def open_game(self, task: Task) -> int:
        """Begin a game; the number of its players."""

    @abstractmethod
    def next_move(self) -> Move:
        """Whose turn it is, and what that player sees."""

    @abstractmethod
    def play(self, text: str) -> str | None:
        """The player whose turn it is says this; what is wrong with it, where it is to be asked again."""

    @abstractmethod
    def results(self) -> Sequence[float]:
        """What each player got, within ``reward_bounds``."""

    most_attempts = 3
    """How often another player may be wrong in one turn, before the game ends against it."""

    async def start(self, task: Task) -> None:
        self._seat = int(task.metadata.get("seat", 0))
        self._num_players = await self._on_thread(self.open_game, task)
        self._heard: list[list[Message]] = [[] for _ in range(self._num_players)]
        self._forfeit: int | None = None
        self._shown = await self._others()

    async def _on_thread(self, function: Any, *args: Any) -> Any:
        return await self._hooks.call(function.__name__, function, *args)

    def prompt(self, task: Task) -> str:
        return "\n\n".join(part for part in (task.prompt, self._shown or "the game is over") if part)

    async def reply(self, task: Task, message: str) -> str | Submission:
        wrong = await self._on_thread(self.play, message)
        if wrong is not None:
            return wrong
        shown = await self._others()
        return Submission(value=None, message=self._last) if shown is None else shown

    async def _others(self) -> str | None:
        """The others play until it is the agent's turn: what the agent then sees. None: the game is over."""
        while True:
            move: Move = await self._on_thread(self.next_move)
            if move.over or self._forfeit is not None:
                self._last = move.shown or "the game is over"
                return None
            if move.player == self._seat:
                return move.shown
            await self._ask(move)

    async def _ask(self, move: Move) -> None:
        heard = self._heard[move.player]
        heard.append(Message(role="user", content=move.shown))
        for _ in range(self.most_attempts):
            said = await self.model(f"player_{move.player}").say(heard)
            heard.append(Message(role="assistant", content=said.content))
            wrong = await self._on_thread(self.play, said.content)
            if wrong is None:
                return
            heard.append(Message(role="user", content=wrong))
        self._forfeit = move.player

    async def score(self, task: Task, submission: Any) -> Score:
        low, high = self.reward_bounds
        if self._forfeit is not None:
            got = [low if player == self._forfeit else high for player in range(self._num_players)]
        else:
            got = [float(value) for value in await self._on_thread(self.results)]
        others = {f"player_{player}": value for player, value in enumerate(got) if player != self._seat}
        value = got[self._seat]
        return Score(
            value=value,
            passed=value >= high,
            breakdown={"result": value},
            detail=f"results {got}" + ("" if self._forfeit is None else f"; player {self._forfeit} made no legal move"),
            bounds=self.reward_bounds,
            others=others,
        )


def bracketed(text: str) -> str:
    """What stands last in square brackets, else the text: how players of many games are asked to move."""
    found = re.findall(r"\[([^\[\]]*)\]", text)
    return found[-1].strip() if found else text.strip()
