"""Gymnasium wrappers around one of our environments, driven as the environment itself is."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium

from ...errors import ConfigError, VerigymError
from ...model.chat.messages import Message
from ...rewards.score import Score
from ..acting import Acted
from ..core import ToolEnv
from ..importing import import_named
from ..task import Task
from ..tools.hooks import Hooks, text_of


class Wrapped(ToolEnv):
    """What wrappers make of an environment's observations, actions and rewards counts: here and in training alike.

    A wrapper that ends an episode by truncation ends it as ``max_turns`` does, with what had been handed in.
    """

    def __init__(self, env: ToolEnv, wrap: Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]) -> None:
        super().__init__(tasks=env._tasks, max_turns=None, render_mode=env.render_mode)
        self.inner = env
        self._outer = wrap(env)
        self.family = env.family  # type: ignore[misc]  # of a class elsewhere
        self.system_prompt = env.system_prompt  # type: ignore[misc]  # likewise
        self.reward_bounds = getattr(self._outer, "reward_bounds", env.reward_bounds)
        self._tools = env._tools
        self._hooks = Hooks(env)
        self._score: Score | None = None

    def load(self) -> Sequence[Task]:
        return self.inner.load()

    def gold(self, task: Task) -> Any:
        return self.inner.gold(task)

    def empty(self, task: Task) -> Any:
        return self.inner.empty(task)

    def seat(self, models: Mapping[str, Any]) -> None:
        self.inner.seat(models)

    @property
    def compares(self) -> bool:
        return self.inner.compares

    async def acompare(self, task: Task, episodes: Sequence[Any], *, unit: bool = False) -> list[Mapping[str, float]]:
        """As the environment compares: wrappers change steps, and this is none."""
        self.inner.reward_bounds = self.reward_bounds
        try:
            return await self.inner.acompare(task, episodes, unit=unit)
        finally:
            self.evidence = self.inner.evidence

    async def areset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._score, self._over = None, False
        self.cut_off = self.context_tokens = None
        self._num_turns = 0
        self.earned = type(self.earned)()
        found = await self._hooks.call("reset", self._outer.reset, seed=seed, options=options)
        self.evidence = self.inner.evidence
        self._task, self._started = self.inner._task, False
        observation, info = self._hooks.read("reset", self._begun, found)
        return observation, info

    def _begun(self, found: Any) -> tuple[str, dict[str, Any]]:
        observation, info = found
        messages = tuple(info["messages"])
        if messages[-1].content != observation:
            messages = (*messages[:-1], _as(messages[-1], observation))
        self._transcript = list(messages)
        return observation, {**info, "messages": messages}

    async def aact(self, action: str) -> Acted:
        if self._over or self._task is None:
            raise gymnasium.error.ResetNeeded("the episode has ended or not begun; call reset()")
        self._num_turns += 1
        self.inner.context_tokens = self.context_tokens
        return self._hooks.read("step", self._acted, await self._hooks.call("step", self._outer.step, action))

    def _acted(self, found: Any) -> Acted:
        observation, reward, terminated, truncated, info = found
        messages = tuple(info.get("messages", ()))
        if "\n".join(message.content for message in messages) != observation:
            messages = (_as(messages[-1], observation),) if messages else ()
        if terminated or truncated:
            self._score = self._last(reward, info.get("score"))
        elif reward:
            self.earned.give(self._num_turns - 1, "steps", reward)
        ending = info.get("ending", "answered") if terminated else None
        return Acted(
            messages=messages,
            format_error=bool(info.get("format_error")),
            submission=None,
            ending=ending if ending in ("submitted", "answered", None) else "answered",
            truncated=bool(truncated and not terminated),
        )

    def _last(self, reward: float, known: Score | None) -> Score:
        """The score of the step that ended the episode: what the wrappers made of it, and what else was said."""
        low, high = self.reward_bounds
        known = known or Score(value=min(max(0.0, low), high), passed=False, bounds=self.reward_bounds)
        return replace(known, value=reward, bounds=(min(low, reward), max(high, reward)))

    async def ascore(self, submission: Any) -> Score:
        assert self._score is not None
        await self.aclose()
        return self._whole(self._score)

    async def afinish(self) -> Score:
        if self._score is not None:
            return await self.ascore(None)
        self.inner.cut_off, self.inner.context_tokens = self.cut_off, self.context_tokens
        found = await self.inner.afinish()
        await self.aclose()
        given = self.inner.earned.total
        return self._whole(Score(value=found.value - given, passed=found.passed, bounds=(-1e9, 1e9)))

    async def aclose(self) -> None:
        self._over = True
        self.patch = self.inner.patch
        await self.inner.aclose()
        self._hooks.close()


def _as(message: Message, content: Any) -> Message:
    """The message as an observation shows it. Raises TypeError: that is no text."""
    if not isinstance(content, str):
        raise TypeError(f"the observation is a {type(content).__name__}; a str is expected")
    return replace(message, content=content)


def wrapped(env: ToolEnv, wrappers: Sequence[str | Mapping[str, Any]]) -> ToolEnv:
    """The environment inside wrappers, the first of them innermost.

    Args:
        wrappers: "MODULE:CLASS" of each, or a mapping with "wrapper" and the arguments of its constructor.
    Raises:
        ConfigError: there is no such wrapper, or it cannot be made with these arguments.
    """
    if not wrappers:
        return env

    def wrap(inner: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        for one in wrappers:
            options = dict(one) if isinstance(one, Mapping) else {"wrapper": one}
            inner = _made(str(options.pop("wrapper", "")), inner, options)
        return inner

    return Wrapped(env, wrap)


def _made(name: str, inner: gymnasium.Env[Any, Any], options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    module, _, attribute = name.rpartition(":")
    try:
        found = getattr(import_named(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"no wrapper {name!r} ({error}); write MODULE:CLASS") from None
    if not (inspect.isclass(found) and issubclass(found, gymnasium.Wrapper)):
        raise ConfigError(f"{name!r} is no gymnasium.Wrapper")
    try:
        return found(inner, **options)
    except VerigymError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{name!r} cannot be made with {options} ({type(error).__name__}: {text_of(error)})"
        ) from error
