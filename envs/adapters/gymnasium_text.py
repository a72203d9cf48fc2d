"""A Gymnasium environment as ours: what it shows and takes becomes text, and its rewards are its turns'."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium

from ...errors import TaskError
from ...model.chat.messages import Message
from ...rewards.score import Score
from ..acting import Submission, said_of
from ..core import ToolEnv
from ..task import Task


def number_in(space: gymnasium.Space[Any]) -> Callable[[str], Any]:
    """Reads the last whole number of a text as an action of a discrete space; a space of texts takes the text.

    Raises:
        TypeError: the space is of another kind; an environment of it needs ``read``.
    """
    if isinstance(space, gymnasium.spaces.Text):
        return str
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise TypeError(f"actions are of {space}; say how a text becomes one: GymnasiumText(..., read=function)")
    first, count = int(space.start), int(space.n)

    def read(text: str) -> Any:
        found = re.findall(r"-?\d+", text)
        if not found or not first <= int(found[-1]) < first + count:
            raise ValueError(f"answer with a whole number from {first} to {first + count - 1}")
        return int(found[-1])

    return read


class GymnasiumText(ToolEnv):
    """Each message of the agent is an action; each observation is the next message.

    ``task.hidden["seed"]`` seeds the environment, ``task.hidden["options"]`` are those of its ``reset``. An action that
    cannot be read is answered with what is wrong, and the environment does not see it. Rewards are the turns', under
    the name "reward"; an episode passed where its last step's ``info`` says so (``is_success``), else where its rewards
    come to ``passing``.
    """

    family = "gymnasium"

    def __init__(
        self,
        env: str | Callable[[], gymnasium.Env[Any, Any]],
        *,
        render: Callable[[Any], str] = str,
        read: Callable[[str], Any] | None = None,
        about: str = "",
        bounds: tuple[float, float] = (0.0, 1.0),
        passing: float | None = None,
        num_tasks: int = 100,
        make_options: Mapping[str, Any] | None = None,
        gold: Callable[[Task], Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            env: id of a Gymnasium environment, or what makes one.
            render: observation -> the message that shows it.
            read: message -> action; raises ValueError with what is wrong. None: the last whole number, or the text.
            about: what the first message says before the first observation.
            bounds: the least and the most that rewards come to.
            passing: from which sum on an episode passed; None: the upper bound.
            num_tasks: tasks of its own: so many seeds.
            make_options: of ``gymnasium.make``, where ``env`` is an id.
            gold: the messages of a perfect episode.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self.reward_bounds = bounds
        self._make = (lambda: gymnasium.make(env, **(make_options or {}))) if isinstance(env, str) else env
        self._render, self._read, self._about = render, read, about
        self._passing, self._num_tasks, self._gold = passing, num_tasks, gold
        self._inner: gymnasium.Env[Any, Any] | None = None

    def load(self) -> Sequence[Task]:
        return [
            Task(id=f"seed-{seed}", family=self.family, prompt=self._about, hidden={"seed": seed})
            for seed in range(self._num_tasks)
        ]

    def start(self, task: Task) -> None:
        self._inner = self._make()
        self._take = self._read or number_in(self._inner.action_space)
        seed, options = task.hidden.get("seed"), task.hidden.get("options")
        observation, _ = self._inner.reset(seed=seed, options=options)
        self._shown = self._show_as_text(observation)

    def _show_as_text(self, observation: Any) -> str:
        return said_of(self._hooks.within("render", self._render, observation)).content

    def prompt(self, task: Task) -> str:
        return "\n\n".join(part for part in (task.prompt or self._about, self._shown) if part)

    def reply(self, task: Task, message: str) -> str | Submission:
        assert self._inner is not None
        try:
            action = self._take(message)
        except ValueError as error:
            return f"error: {error}"
        observation, reward, terminated, truncated, info = self._inner.step(action)
        self.reward(float(reward), "reward")
        shown = self._show_as_text(observation)
        return Submission(value=info, message=shown) if terminated or truncated else shown

    def score(self, task: Task, submission: Any) -> Any:
        passing = self.reward_bounds[1] if self._passing is None else self._passing
        succeeded = submission.get("is_success") if isinstance(submission, Mapping) else None
        passed = self.earned.total >= passing if succeeded is None else bool(succeeded)
        low, high = self.reward_bounds
        return Score(value=0.0, passed=passed, bounds=(min(0.0, low), max(0.0, high)))

    def stop(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def gold(self, task: Task) -> Sequence[Message]:
        if self._gold is None:
            raise TaskError(f"nobody says what a perfect episode of {task.id!r} is; GymnasiumText(..., gold=function)")
        return [Message(role="assistant", content=text) for text in self._gold(task)]
