"""Our environments as a taskset and an environment of verifiers 0.4; imported where verifiers is.

``verifiers`` looks for tasksets in modules without a dot in their name: see docs/adapters.md for the file of two lines
that makes this one known.
"""

import json
from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf  # pyright: ignore[reportMissingImports]
from pydantic import Field

from ..core import ToolEnv
from ..registry.ids import make_env
from ..registry.opening import own_tasks
from ..task import Task

__all__ = ["VerigymEnv", "VerigymTaskset"]

CALLING = (
    "To call tools, answer with one JSON object and nothing else: "
    '{"calls": [{"name": NAME, "arguments": {...}}]}. Any other answer is a message. The tools are:\n'
)


class VerigymTasksetConfig(vf.TasksetConfig):
    env: str = ""
    """Id of the environment: "verigym/Math-v0", or "MODULE:CLASS"."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor."""


class VerigymData(vf.TaskData):
    task: dict[str, Any]
    """Ours, as ``Task.to_json`` writes it. What is hidden stays here and is shown to no agent."""
    env: str
    options: dict[str, Any]


class VerigymTask(vf.Task[VerigymData, vf.State, vf.TaskConfig]):
    """Scored by the environment itself, at the end of the exchange."""


class VerigymTaskset(vf.Taskset[VerigymTask, VerigymTasksetConfig]):
    def load(self) -> Iterator[VerigymTask]:
        config = self.config
        for task in own_tasks(make_env(config.env, **config.options)):
            data = VerigymData(name=task.id, task=task.to_json(), env=config.env, options=config.options)
            yield VerigymTask(data, config.task)


class VerigymEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class VerigymEnv(vf.Env[VerigymEnvConfig]):
    """The environment speaks as the user; tools are called in text, so that any harness can play."""

    async def run(self, task: Any, agents: Any) -> None:
        data = task.data
        env = make_env(data.env, **data.options)
        try:
            await exchange(env, Task.from_json(data.task), task, agents.player)
        finally:
            await env.aclose()


async def exchange(env: ToolEnv, own: Task, task: Any, player: Any) -> None:
    """One episode: the reward is recorded on the player's trace, its parts as metrics."""
    _, info = await env.areset(options={"task": own})
    opening = [message.content for message in info["messages"]]
    if info["tools"]:
        opening.append(CALLING + "\n".join(json.dumps(spec.to_openai()["function"]) for spec in info["tools"]))
    async with player.interaction(task) as interaction:
        segment = await interaction.turn("\n\n".join(opening))
        while True:
            if segment.terminated:
                if interaction.trace.errors:  # of verifiers' own infrastructure: no reward is learned from it
                    return
                score = await env.afinish()
                break
            observation, _, terminated, truncated, step = await env.astep(segment.last_reply)
            if terminated or truncated:
                score = step["score"]
                break
            segment = await interaction.turn(observation)
        interaction.trace.record_reward("score", score.value, 1.0)
        interaction.trace.record_metric("passed", float(score.passed))
        for name, value in score.breakdown.items():
            if name != "passed":
                interaction.trace.record_metric(name, value)
