"""What any environment must hold, as checks that its author can run on it: ``verigym envs check``."""

import asyncio
import json
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gymnasium.utils.env_checker import check_env

from ...errors import EnvironmentBug, GradingError, HookTimeout, SandboxError, TaskError
from ...model.chat.actions import encode_calls, encode_format_error
from ...model.chat.messages import Message, ToolCall, ToolSpec
from ...rewards.score import Score
from ..core import ToolEnv
from ..scripts import script_of
from ..task import Task
from ..tools.folder import num_changes
from .left import settled

NUM_TASKS = 5
"""Tasks that are tried, of those there are."""
NUM_AT_ONCE = 16
NUM_TURNS = 32
"""Turns of an episode that goes on doing nothing: what it earns must stay within the bounds."""
NUM_EPISODES = 50
"""Episodes after which nothing may be left."""
MIN_SECRET = 12
"""Characters of a hidden text from which on it is no word that a prompt may have by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check came to.

    Attributes:
        name: of the check.
        passed: None: it could not be made.
        told: what was found, for people.
    """

    name: str
    passed: bool | None
    told: str


class _Failed(Exception):
    """A check's own: what it found wrong."""


class _NotMade(Exception):
    """A check's own: why it could not be made."""


Check = Callable[[Callable[[], ToolEnv], Sequence[Task]], Awaitable[str]]


async def check_environment(
    make: Callable[[], ToolEnv], tasks: Sequence[Task], *, hook_timeout_s: float | None = None
) -> list[Finding]:
    """Every check, in order; one that fails keeps none from running, but for a hook that hangs: it would hang again.

    Args:
        make: a fresh environment.
        tasks: of it; the first few are tried.
        hook_timeout_s: of its hooks; None: as it says itself.
    """
    found: list[Finding] = []
    ended = "" if tasks else "there is no task"

    def limited() -> ToolEnv:
        env = make()
        if hook_timeout_s is not None:
            env.hook_timeout_s = hook_timeout_s
        return env

    for name, check in CHECKS.items():
        if ended and found:
            found.append(Finding(name=name, passed=None, told=f"not made: {ended}"))
            continue
        try:
            found.append(Finding(name=name, passed=True, told=await _in_place(check(limited, tasks))))
        except HookTimeout as error:
            ended = f"{error.environment}.{error.hook.removeprefix('tool ')} hangs"
            found.append(Finding(name=name, passed=False, told=str(error)))
        except _Failed as error:
            found.append(Finding(name=name, passed=False, told=str(error)))
        except (_NotMade, SandboxError, GradingError) as error:
            found.append(Finding(name=name, passed=None, told=f"not made: {error}"))
        except Exception as error:  # of the environment that is checked: that is the finding
            found.append(Finding(name=name, passed=False, told=" ".join(f"{type(error).__name__}: {error}".split())))
    return found


async def _in_place(check: Awaitable[str]) -> str:
    """The check, whose episodes must leave the process in the folder where it was."""
    here, before = os.getcwd(), num_changes()
    told = await check
    if num_changes() != before or os.getcwd() != here:
        os.chdir(here)
        raise _Failed("an episode changed the working folder of the process, which all share; use whole paths")
    return told


async def _tasks(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    if not tasks:
        raise _Failed("there is no task; return some from load(), or give --data FILE")
    ids = [task.id for task in tasks]
    if len(set(ids)) < len(ids):
        raise _Failed(f"{len(ids) - len(set(ids))} ids occur twice; ids must be distinct")
    family = make().family
    for task in tasks:
        if family and task.family != family:
            raise _Failed(f"task {task.id!r} is of family {task.family!r}, the environment of {family!r}")
        try:
            again = Task.from_json(json.loads(json.dumps(task.to_json())))
        except (TypeError, ValueError) as error:
            raise _Failed(f"task {task.id!r} cannot be written as JSON ({error}); a recipe keeps tasks so") from None
        if again != task:
            raise _Failed(f"task {task.id!r} is another after JSON (tuples become lists, keys strings)")
    return f"{len(tasks)} with distinct ids, the same after JSON"


async def _tools(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    specs = make().tool_specs
    bare = []
    for spec in specs:
        _check_schema(spec)
        bare += [
            f"{spec.name}({name})" for name, one in spec.parameters["properties"].items() if "description" not in one
        ]
    told = f"{len(specs)} with a schema: {', '.join(spec.name for spec in specs) or 'none'}"
    return told + (f"; without a description under Args: {', '.join(bare)}" if bare else "")


def _check_schema(spec: ToolSpec) -> None:
    """What models are trained on: a JSON schema of an object whose required parameters it has."""
    try:
        json.dumps(dict(spec.parameters))
    except (TypeError, ValueError) as error:
        raise _Failed(f"the schema of tool {spec.name!r} is not JSON ({error})") from None
    properties, needed = spec.parameters.get("properties"), spec.parameters.get("required", [])
    if spec.parameters.get("type") != "object" or not isinstance(properties, dict):
        raise _Failed(f"the schema of tool {spec.name!r} is of no object with properties: {spec.parameters}")
    if not set(needed) <= properties.keys():
        raise _Failed(f"tool {spec.name!r} requires {sorted(set(needed) - properties.keys())}, which it does not have")
    if not spec.description:
        raise _Failed(f"tool {spec.name!r} has no description; the policy needs one")


async def _gymnasium(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    def check() -> None:
        env = make()
        env._tasks = tuple(tasks)  # also those of a file
        try:
            check_env(env, skip_render_check=True)
        finally:
            env.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            await asyncio.to_thread(check)
        except (AssertionError, UserWarning) as error:
            raise _Failed(str(error)) from None
    return "check_env finds nothing"


async def _gold(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    most, least = 0.0, math.inf
    for task in tasks[:NUM_TASKS]:
        env = make()
        score, _ = await play(env, task, _script(env, "gold", task))
        most, least = env.reward_bounds[1], min(least, score.value)
        detail = f"; {score.detail}" if score.detail else ""
        if not score.passed:
            raise _Failed(f"gold of task {task.id!r} does not pass, it scores {score.value:g}{detail}")
        if score.value < most and not env.earned.parts():
            raise _Failed(
                f"gold of task {task.id!r} passes with {score.value:g} of {most:g}{detail}; score it {most:g}, or "
                "state in reward_bounds the most that there is"
            )
    told = "with the most there is" if least >= most else f"with {least:g} or more of {most:g}, some of it by turns"
    return f"passes {told}, in {len(tasks[:NUM_TASKS])} tasks"


async def _empty(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    for task in tasks[:NUM_TASKS]:
        env = make()
        score, _ = await play(env, task, _script(env, "empty", task), turns=NUM_TURNS)
        if score.passed or score.value > max(0.0, env.reward_bounds[0]):
            raise _Failed(f"doing nothing in task {task.id!r} scores {score.value:g}, passed {score.passed}")
    return f"scores nothing, in {len(tasks[:NUM_TASKS])} tasks"


def _script(env: ToolEnv, hook: Literal["gold", "empty"], task: Task) -> Sequence[Message]:
    try:
        return script_of(env, hook, task)
    except TaskError as error:
        raise _NotMade(str(error)) from None


async def play(env: ToolEnv, task: Task, messages: Sequence[Message], turns: int = 0) -> tuple[Score, list[str]]:
    """An episode in which these are the assistant's messages, the last one again and again up to ``turns`` in all: its
    score, and every observation. What does not end with them is ended as by a limit."""
    messages = [*messages, *list(messages[-1:]) * (turns - len(messages))]
    seen = []
    try:
        observation, _ = await env.areset(seed=7, options={"task": task})
        seen.append(observation)
        for message in messages:
            action = encode_calls(message.calls) if message.calls else message.content
            observation, _, terminated, truncated, info = await env.astep(action)
            seen.append(observation)
            if terminated or truncated:
                return info["score"], seen
        return await env.afinish(), seen
    finally:
        await env.aclose()


async def _garbage(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    calls = [
        ToolCall(name="no such tool"),
        *(ToolCall(name=spec.name, arguments={"?": []}) for spec in make().tool_specs),
    ]
    actions = [encode_format_error("not closed"), *(encode_calls([one]) for one in calls)]
    for text in ("", "\x00\ud800", "{" * 2000, "x" * 20_000):
        env = make()
        try:
            await env.areset(seed=7, options={"task": tasks[0]})
            for action in actions:
                _, _, terminated, truncated, _ = await env.astep(action)
                if terminated or truncated:
                    break
            else:
                await env.astep(text)
        finally:
            await env.aclose()
    return "format errors, unknown tools, wrong arguments and odd texts are answered"


async def _secrets(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    for task in tasks[:NUM_TASKS]:
        env = make()
        try:
            _, info = await env.areset(seed=7, options={"task": task})
        finally:
            await env.aclose()
        seen = "\n".join(message.content for message in info["messages"])
        for key, value in task.hidden.items():
            if isinstance(value, str) and len(value) >= MIN_SECRET and value in seen:
                raise _Failed(f"task {task.id!r}: hidden[{key!r}] stands in what the agent is told first")
    return "nothing of task.hidden is in the first messages"


async def _repeats(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    for task in tasks[:NUM_TASKS]:
        messages = _some_script(make(), task)
        (first, one), (second, other) = [await play(make(), task, messages) for _ in range(2)]
        if one != other:
            raise _Failed(f"task {task.id!r}: the same actions under the same seed were answered in two ways")
        if (first.value, first.passed) != (second.value, second.passed):
            raise _Failed(f"task {task.id!r}: the same episode scored {first.value:g} and {second.value:g}")
    return "the same seed and actions: the same answers and score"


async def _at_once(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    chosen = [tasks[number % len(tasks)] for number in range(NUM_AT_ONCE)]
    alone = {
        task.id: (await play(make(), task, _some_script(make(), task))) for task in {t.id: t for t in chosen}.values()
    }
    together = await asyncio.gather(*(play(make(), task, _some_script(make(), task)) for task in chosen))
    for task, (score, seen) in zip(chosen, together, strict=True):
        known, said = alone[task.id]
        if (score.value, seen) != (known.value, said):
            raise _Failed(f"task {task.id!r} went otherwise among {NUM_AT_ONCE} episodes at once than alone")
    return f"{NUM_AT_ONCE} episodes go as each goes alone"


async def _leaks(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    async def some(count: int) -> None:
        for number in range(count):
            task = tasks[number % len(tasks)]
            await play(make(), task, _some_script(make(), task))

    elsewhere = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="verigym-check-") as folder:
        tempfile.tempdir = folder  # others' files come and go in the common one
        try:
            await some(3)  # what is opened once stays open
            before = await settled(None)
            await some(NUM_EPISODES)
            after = await settled(before)
        finally:
            tempfile.tempdir = elsewhere
    grown = [f"{after[name] - count} {name}" for name, count in before.items() if after[name] > count]
    if grown:
        raise _Failed(f"after {NUM_EPISODES} episodes there are {', '.join(grown)} more; free them in stop()")
    return f"{NUM_EPISODES} episodes leave no thread, process, open file or temporary file"


async def _speed(make: Callable[[], ToolEnv], tasks: Sequence[Task]) -> str:
    resets, steps = [], []
    for task in tasks[:NUM_TASKS]:
        env = make()
        try:
            started = time.perf_counter()
            await env.areset(seed=7, options={"task": task})
            resets.append(time.perf_counter() - started)
            for message in _some_script(make(), task):
                started = time.perf_counter()
                _, _, terminated, truncated, _ = await env.astep(
                    encode_calls(message.calls) if message.calls else message.content
                )
                steps.append(time.perf_counter() - started)
                if terminated or truncated:
                    break
        finally:
            await env.aclose()
    return f"median {statistics.median(steps) * 1e3:.2f} ms a step, {statistics.median(resets) * 1e3:.2f} ms a reset"


def _some_script(env: ToolEnv, task: Task) -> Sequence[Message]:
    """The gold episode, where there is one."""
    try:
        return script_of(env, "gold", task)
    except (TaskError, EnvironmentBug):
        return script_of(env, "empty", task)


CHECKS: dict[str, Check] = {
    "tasks": _tasks,
    "tools": _tools,
    "gymnasium": _gymnasium,
    "gold": _gold,
    "empty": _empty,
    "garbage": _garbage,
    "secrets": _secrets,
    "the same again": _repeats,
    "at once": _at_once,
    "leaks": _leaks,
    "speed": _speed,
}
"""Name -> check, in the order in which they run."""


def told_of(finding: Finding) -> dict[str, Any]:
    """As JSON."""
    return {"check": finding.name, "passed": finding.passed, "told": finding.told}
