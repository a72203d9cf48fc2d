"""Our environments inside TRL's ``GRPOTrainer``: its ``environment_factory``, its reward function and its rows.

TRL samples, parses calls by the tokenizer's own template, and calls an environment's methods. Here each tool is such a
method, with the signature and docstring that TRL makes its specification of, and what is scored is what our episode
loop would score: what a tool handed in, or the last message. Three things are TRL's: it goes on sampling after a tool
ended the episode (more calls are answered with an error), a call that it cannot parse is a final message to it, and
``max_tool_calling_iterations`` and ``max_completion_length`` are the only budgets.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..agent.policy import action_of
from ..envs.core import ToolEnv
from ..envs.registry.opening import open_env, own_tasks
from ..envs.sandbox.background import run_sync
from ..envs.task import Task
from ..errors import ConfigError, EnvironmentBug, GradingError, SandboxError
from ..model.chat.actions import encode_calls
from ..model.chat.messages import Message, ToolCall
from ..rewards.score import Score

if TYPE_CHECKING:
    from datasets import Dataset

_OVER = "error: the episode has ended"


class TrlEnvironments:
    """A factory of environments for TRL, their rewards, and the rows that TRL trains on. A context manager."""

    def __init__(self, env_id: str, tasks: Sequence[Task] | None = None, **options: Any) -> None:
        """
        Args:
            env_id: Gymnasium id, such as "verigym/Math-v0"; "MODULE:ID" imports the module first.
            tasks: to train on; None for the environment's own.
            options: arguments of the environment.
        Raises:
            ConfigError: no such environment. TaskError: it has no tasks of its own.
        """
        self._make = lambda: open_env(env_id, {}, options)
        env = self._make()
        self._env = env
        self.tasks = tuple(own_tasks(env) if tasks is None else tasks)
        self._by_id = {task.id: task for task in self.tasks}
        if len(self._by_id) < len(self.tasks):
            raise ConfigError("two tasks have one id, by which TRL's rows name them; give each its own")
        self._class = _class_of(env)
        self._made: list[TrlEnvironment] = []

    def __call__(self) -> "TrlEnvironment":
        """One environment; TRL asks for as many as it has episodes at once, and resets them."""
        made = self._class(self._make(), self._by_id)
        self._made.append(made)
        return made

    def dataset(self) -> "Dataset":
        """TRL's ``train_dataset``: a row a task, with the opening messages and the task's id."""
        from datasets import Dataset

        system = [{"role": "system", "content": self._env.system_prompt}] if self._env.system_prompt else []
        return Dataset.from_list(
            [
                {"prompt": [*system, {"role": "user", "content": self._env.prompt(task)}], "task": task.id}
                for task in self.tasks
            ]
        )

    def reward(
        self, completions: Sequence[Sequence[Mapping[str, Any]]], environments: Sequence["TrlEnvironment"], **_: Any
    ) -> list[float | None]:
        """TRL's reward function: the score of each episode; None where the infrastructure failed, which TRL leaves out
        of the group's baseline, and out of the gradient."""

        async def every() -> list[float | None]:
            pairs = zip(environments, completions, strict=True)
            return list(await asyncio.gather(*(one._finish(messages) for one, messages in pairs)))

        return run_sync(every())

    def close(self) -> None:
        """End all episodes and free their sandboxes."""
        for one in self._made:
            one._env.close()

    def __enter__(self) -> "TrlEnvironments":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class TrlEnvironment:
    """One environment as TRL wants it: every public method but ``reset`` is a tool. Subclasses are made by
    ``TrlEnvironments``."""

    def __init__(self, env: ToolEnv, tasks: Mapping[str, Task]) -> None:
        self._env, self._tasks = env, tasks
        self._score: Score | None = None
        self._failure: Exception | None = None
        self._over = True

    def reset(self, *, task: str, **_: Any) -> None:
        """Begin an episode of a row."""
        self._score, self._failure, self._over = None, None, False
        try:
            self._env.reset(options={"task": self._tasks[task]})
        except (SandboxError, EnvironmentBug) as error:
            self._failure, self._over = error, True

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a tool answers."""
        if self._failure is not None:
            return f"error: {self._failure}"
        if self._over:
            return _OVER
        try:
            return run_sync(self._act(name, arguments))
        except (SandboxError, GradingError, EnvironmentBug) as error:
            self._failure, self._over = error, True
            return f"error: {error}"

    async def _act(self, name: str, arguments: Mapping[str, Any]) -> str:
        acted = await self._env.aact(encode_calls((ToolCall(name=name, arguments=arguments),)))
        if acted.ending is not None:
            self._over = True
            self._score = await self._env.ascore(acted.submission)
        elif acted.truncated:
            self._over = True
            self._score = await self._env.afinish()
        return "\n".join(message.content for message in acted.messages)

    async def _finish(self, completion: Sequence[Mapping[str, Any]]) -> float | None:
        try:
            if not self._over:
                self._over = True
                self._score = await self._conclude(completion)
        except (SandboxError, GradingError, EnvironmentBug) as error:
            self._failure = error
        return None if self._failure is not None or self._score is None else self._score.value

    async def _conclude(self, completion: Sequence[Mapping[str, Any]]) -> Score:
        """The last message is the answer, unless it is a call or answers one: then a budget ended the episode."""
        last = completion[-1] if completion else {}
        if last.get("role") != "assistant" or last.get("tool_calls"):
            return await self._env.afinish()
        said = Message(role="assistant", content=str(last.get("content") or ""))
        acted = await self._env.aact(action_of(said))
        return await (self._env.ascore(acted.submission) if acted.ending is not None else self._env.afinish())


def _class_of(env: ToolEnv) -> type[TrlEnvironment]:
    """A class with a method for each of the environment's tools."""
    methods = {name: _method_of(name, bound.method, bound.spec.parameters) for name, bound in env._tools.items()}
    clash = methods.keys() & {"reset", "get_reward"}
    if clash:
        raise ConfigError(f"the tool {min(clash)!r} has a name that TRL means something else by; rename it")
    return type(f"Trl{type(env).__name__}", (TrlEnvironment,), methods)


def _method_of(name: str, tool: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., str]:
    """A method with the tool's signature, types and documentation, in the form that transformers reads."""
    function = getattr(tool, "__func__", tool)
    signature = inspect.signature(function, eval_str=True)

    def method(self: TrlEnvironment, **arguments: Any) -> str:
        return self._call(name, arguments)

    method.__name__ = method.__qualname__ = name
    method.__signature__ = signature.replace(return_annotation=str)  # type: ignore[attr-defined]
    method.__annotations__ = {p.name: p.annotation for p in list(signature.parameters.values())[1:]} | {"return": str}
    head = " ".join((inspect.getdoc(function) or "").partition("Args:\n")[0].split("\n\n")[0].split())
    about = {key: entry.get("description") or f"the {key}" for key, entry in parameters["properties"].items()}
    lines = [f"    {key}: {text}" for key, text in about.items()]
    method.__doc__ = "\n".join(
        [head, "", *(["Args:", *lines, ""] if lines else []), "Returns:", "    What it answers."]
    )
    return method
