"""The simulator of ``verigym plan --rollouts`` against the loop that it stands for.

The loop, its groups, their order and their ledger are real (``AsyncRL``, ``RL``); engine, tools and update take their
time by sleeping, so that the machine's own speed matters little. What is compared is the mean time of a step.

    python -m benchmarks.trainer.rollouts --out rollouts.json
"""

import argparse
import asyncio
import json
import platform
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from verigym.agent.segments import Segment
from verigym.agent.trajectory import Trajectory
from verigym.envs.task import Task
from verigym.model.config import DecoderConfig
from verigym.model.decoder import Decoder
from verigym.trainer.loops.asynchronous import AsyncRL
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import AsyncConfig, GRPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream
from verigym.trainer.simulation.run import Shape, simulate
from verigym.trainer.simulation.workload import Episode, Speed, Trainer, Turn, Workload

SPEED = Speed(token_seconds=0.04, crowd_seconds=0.002)
UPDATE_SECONDS, PUBLISH_SECONDS = 3.0, 0.5


def episodes(seed: int) -> tuple[Episode, ...]:
    draw = random.Random(seed)
    return tuple(
        Episode(
            turns=tuple(
                Turn(
                    prompt_tokens=0, sampled_tokens=draw.choice((5, 10, 20)), tool_seconds=draw.choice((0.2, 0.5, 2.0))
                )
                for _ in range(draw.choice((1, 2, 4)))
            ),
            grading_seconds=0.3,
        )
        for _ in range(400)
    )


class SleepingEngine:
    """Rounds that take their time; every sequence in work gets a token of each."""

    max_context = 128

    def __init__(self) -> None:
        self.policy_version = 0
        self._waiting: dict[asyncio.Event, int] = {}
        self._runs: asyncio.Task[None] | None = None
        self._paused_until = 0.0

    async def sample(self, tokens: int) -> None:
        ended = asyncio.Event()
        self._waiting[ended] = tokens
        if self._runs is None or self._runs.done():
            self._runs = asyncio.ensure_future(self._rounds())
        await ended.wait()

    async def _rounds(self) -> None:
        due = time.monotonic()
        while self._waiting:
            count = len(self._waiting)
            due = max(due, self._paused_until) + SPEED.token_seconds + count * SPEED.crowd_seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            for event in list(self._waiting)[:count]:
                self._waiting[event] -= 1
                if not self._waiting[event]:
                    del self._waiting[event]
                    event.set()

    def update_weights(self, version: int, load: Any = None, *, on_weight_update: Any = None) -> None:
        self._paused_until = time.monotonic() + PUBLISH_SECONDS
        time.sleep(PUBLISH_SECONDS)  # on the thread of the update
        self.policy_version = version


class SleepingLearning:
    """An update that takes its time, in proportion to the episodes' tokens."""

    ways = 1
    share: Literal["off"] = "off"

    def __init__(self, seconds_a_token: float) -> None:
        self._seconds = seconds_a_token
        self.tokens = 0

    def step(self, packs: Sequence[Any], **options: Any) -> dict[str, float]:
        time.sleep(self._seconds * self.tokens)
        return defaultdict(lambda: 1.0, loss=1.0)  # whatever the loop reports of it

    def columns(self, packs: Sequence[Any]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def take_kept(self) -> list[dict[str, Any]]:
        return []

    def sync(self) -> None:
        """Nothing is learned."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing is kept."""


def measured(shape: Shape, drawn: Sequence[Episode], per_token: float, steps: int) -> float:
    """Mean seconds of a step of the real loop, without the first quarter."""
    engine, learning, draw = SleepingEngine(), SleepingLearning(per_token), random.Random(1)

    async def act(env: Any, policy: Any, task: Task, *, group_id: str = "", **options: Any) -> Trajectory:
        episode = draw.choice(drawn)
        version = engine.policy_version
        for turn in episode.turns:
            await engine.sample(turn.sampled_tokens)
            await asyncio.sleep(turn.tool_seconds)
        await asyncio.sleep(episode.grading_seconds)
        segment = Segment(
            token_ids=(3, 4),
            loss_mask=(False, True),
            logprobs=(float("nan"), -1.0),
            policy_version=(-1, version),
            roles=("user", "assistant"),
        )
        return Trajectory(
            task_id=task.id,
            family="f",
            group_id=group_id,
            ending="answered",
            segments=(segment,),
            reward=draw.random(),
            passed=True,
            turn_tokens=(episode.num_tokens,),
            num_turns=1,
        )

    plan = EpisodePlan(make_env=lambda: None, budget=None, act=act)  # type: ignore[arg-type, return-value]
    config = GRPOConfig(
        num_tasks=shape.num_tasks, group_size=shape.group_size, concurrency=shape.concurrency, microbatch_tokens=256
    )
    fields: dict[str, Any] = {
        "vocab_size": 16,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_layers": 1,
        "num_heads": 2,
    }
    fields |= {"num_kv_heads": 2, "head_dim": 8, "layer_types": ("full_attention",), "sliding_window": 4}
    decoder = Decoder(DecoderConfig(**fields, max_position_embeddings=128))
    common: dict[str, Any] = {
        "config": config,
        "optim": OptimConfig(),
        "tasks": TaskStream([Task(id=str(n), family="f", prompt="") for n in range(1000)]),
        "learning": learning,
    }
    arguments = (decoder, engine, None, lambda task: plan)

    class Counted:
        """Tells the learning how many tokens the step's episodes have."""

        def learn(self, trajectories: Sequence[Trajectory]) -> Any:
            learning.tokens = sum(sum(one.turn_tokens) for one in trajectories)
            return super().learn(trajectories)  # type: ignore[misc]

        def _check_length(self, task: Task) -> None:
            """No budget is real here."""

    if shape.max_lag is None:
        loop: RL = type("Loop", (Counted, RL), {})(*arguments, **common)
    else:
        lag = AsyncConfig(max_lag=shape.max_lag)
        loop = type("Loop", (Counted, AsyncRL), {})(*arguments, asynchronous=lag, **common)
    ends: list[float] = []
    asyncio.run(loop.run(steps, on_step=lambda result: ends.append(time.monotonic())))
    first = steps // 4
    return (ends[-1] - ends[first - 1]) / (steps - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    drawn = episodes(0)
    base = {"num_tasks": 4, "group_size": 4, "engines": 1}
    per_step = base["num_tasks"] * base["group_size"] * sum(one.num_tokens for one in drawn) / len(drawn)
    trainer = Trainer(step_seconds=UPDATE_SECONDS, step_tokens=round(per_step), publish_seconds=PUBLISH_SECONDS)
    workload = Workload(episodes=drawn, engine=SPEED, trainer=trainer)
    rows = []
    for lag, concurrency in ((None, 16), (None, 6), (1, 32), (1, 10), (3, 32)):
        shape = Shape(max_lag=lag, concurrency=concurrency, **base)
        predicted = simulate(workload, shape, steps=200).step_seconds
        found = measured(shape, drawn, UPDATE_SECONDS / per_step, args.steps)
        rows.append({"shape": asdict(shape), "predicted": predicted, "measured": found, "error": predicted / found - 1})
        print(f"lag {lag}, {concurrency} at once: {predicted:.2f} s predicted, {found:.2f} s measured", flush=True)
    worst = max(abs(row["error"]) for row in rows)
    print(f"largest error {worst:.1%}")
    if args.out:
        facts = {"machine": platform.platform(), "python": platform.python_version(), "steps": args.steps}
        args.out.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
