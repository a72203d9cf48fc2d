"""What an environment defines: its hooks, and what each does where it is left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from ..errors import TaskError
from ..model.chat.messages import Message
from ..rewards.rubric import Rubric
from ..rewards.score import Score
from .acting import Submission
from .speakers import nobody
from .task import Task
from .tools.hooks import TIMEOUT_S, Hooks

T = TypeVar("T")


class Definition:
    """The part of ``ToolEnv`` that environments override. Hooks may be synchronous or ``async``."""

    family: ClassVar[str] = ""
    system_prompt: ClassVar[str] = ""
    shots: Sequence[tuple[str, str]] = ()
    """(question, answer) pairs that stand before the prompt as earlier turns: a policy may learn from them."""
    on_error: ClassVar[Literal["fail", "tell"]] = "fail"
    """What an exception in a tool does, other than ToolError: "fail" ends the episode without a reward, "tell" answers
    the call with it; ``@tool(on_error=...)`` says it of one tool."""
    hook_timeout_s: float | None = TIMEOUT_S
    """Seconds that one call of a hook or a tool may take, without the time of models that it asks and of hooks that it
    calls; beyond them the episode ends as one that met a bug. None: as long as it takes."""
    reward_bounds: tuple[float, float] = (0.0, 1.0)
    """The least and the most that an episode's whole reward can be."""
    _hooks: Hooks
    transcript: Any
    rubric: ClassVar[Rubric | None] = None
    """What ``score`` is made of, where the environment does not define it."""

    def load(self) -> Sequence[Task]:
        """The environment's own tasks, used where none are given."""
        raise TaskError(f"{type(self).__name__} has no tasks of its own; pass tasks=[...] or options={{'task': task}}")

    def prompt(self, task: Task) -> Any:
        """The user's message that opens the episode: a str, or a Message, where it has attachments, or a sequence of
        Messages, where a conversation has begun. May be async."""
        return task.prompt

    def check(self, task: Task) -> Any:
        """Raise TaskError where the task cannot be scored: before an episode begins, and before a text is graded
        without one. May be async."""

    def start(self, task: Task) -> Any:
        """Make ready what the tools need. May be async."""

    def reply(self, task: Task, message: str) -> Any:
        """What a message without a call means: a str (or a Message) is the other side's next message, and the episode
        goes on; a Submission ends it. A ToolError is what is wrong with the message, and answers it. Without this hook
        the message is the answer. May be async."""
        return Submission(value=message, message="")

    def score(self, task: Task, submission: Any) -> Any:
        """The Score of a submission (a final message's text, or what was submitted), or a number within
        ``reward_bounds``, or a bool. Without this hook ``rubric`` says it. May be async."""
        return self._score_by_rubric(task, submission)

    def compare(self, task: Task, episodes: Sequence[Any]) -> Any:
        """What a group's episodes earn by comparison, by name, to be added to the reward of each; called once they have
        ended, on an environment without an episode. Without this hook ``rubric`` says it. May be async."""
        return self._compare_by_rubric(task, episodes)

    @property
    def compares(self) -> bool:
        """Whether ``compare`` has anything to say."""
        own = type(self).compare is not Definition.compare
        return own or (self.rubric is not None and bool(self.rubric.comparisons))

    def stand_in(self, name: str, messages: Sequence[Message]) -> Any:
        """What the model of a seat says where no policy has it (gold episodes, demonstrations, checks): a str or a
        Message. May be async."""
        raise nobody(name, type(self).__name__)

    def stop(self) -> Any:
        """Free what ``start`` took. May be async; called after every ``start``, also a failed one."""

    def unfinished(self, task: Task) -> Any:
        """The submission of a truncated episode; None: there is none, and the score is 0. May be async."""
        return None

    def feedback(self, task: Task, score: Any) -> str | None:
        """What somebody who knows the hidden checks would say of the episode that was just scored, for a teacher's eyes
        (``hindsight``); no policy is shown it. None: nothing. May be async."""
        return None

    def gold(self, task: Task) -> Sequence[Message]:
        """The assistant messages of a perfect episode; ``validate`` and ``--policy gold`` play them."""
        raise TaskError(f"{type(self).__name__} states no gold answer for task {task.id!r}")

    def empty(self, task: Task) -> Sequence[Message]:
        """The assistant messages of an episode that does nothing; must score 0."""
        return [Message(role="assistant", content="")]

    async def _score_by_rubric(self, task: Task, submission: Any) -> Score:
        if self.rubric is None:
            raise NotImplementedError("define score(), or set rubric")
        evidence = {"task": task, "submission": submission, "messages": self.transcript, "env": self}
        return await self.rubric.score(self._part, **evidence)

    async def _compare_by_rubric(self, task: Task, episodes: Sequence[Any]) -> Sequence[Mapping[str, float]]:
        if self.rubric is None:
            return [{} for _ in episodes]
        return await self.rubric.compare(self._part, task=task, episodes=episodes, env=self)

    async def _part(self, name: str, function: Callable[..., Any], reader: Callable[..., T], **evidence: Any) -> T:
        hook = f"part {name}"
        return self._hooks.read(hook, reader, await self._hooks.call(hook, function, **evidence))
