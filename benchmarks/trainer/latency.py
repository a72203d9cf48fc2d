"""Synchronous and asynchronous GRPO where tools are slow: wall clock until the agent has learned to use one.

    python benchmarks/trainer/latency.py                          tool calls of 0.5 to 5 s, three seeds
    python benchmarks/trainer/latency.py --latency 0 0.1 --seeds 1

The task is to tell a digit that only a tool knows; each call of the tool waits as long as ``--latency`` says, drawn
anew. A tiny model imitates experts that ask in a quarter of the episodes and guess in the others, then learns from
reward. Both ways begin from the same weights; a run ends when the mean reward of three steps in a row reaches --goal.
"""

import argparse
import asyncio
import copy
import json
import os
import platform
import random
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from verigym.agent.demonstrations import demonstrate, texts_of, tokenize
from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy, play
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.tokenizer import Tokenizer, train_tokenizer
from verigym.rewards.score import verdict
from verigym.trainer.loops.asynchronous import AsyncRL
from verigym.trainer.loops.loop import SFT, StepResult
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import AsyncConfig, GRPOConfig
from verigym.trainer.recipe.config import OptimConfig, SFTConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

ASK = Message(role="assistant", content="", calls=(ToolCall(name="ask", arguments={}),))


class SlowDigitEnv(ToolEnv):
    """Tell a digit; ``ask`` knows it and takes its time."""

    family = "digit"

    def __init__(self, *, latency: tuple[float, float] = (0.0, 0.0), **kwargs: Any) -> None:
        """
        Args:
            latency: shortest and longest wait of a call, in seconds.
        """
        super().__init__(**kwargs)
        self._latency = latency

    @tool
    async def ask(self) -> str:
        """Tells the digit."""
        await asyncio.sleep(random.uniform(*self._latency))
        assert self._task is not None
        return f"it is {self._task.hidden['digit']}"

    def score(self, task: Task, submission: Any) -> Any:
        return verdict(str(submission).strip() == str(task.hidden["digit"]))


def tasks(count: int) -> list[Task]:
    return [
        Task(id=f"{n}", family="digit", prompt=f"Digit of {n}?", hidden={"digit": (n * 7 + n // 3) % 10})
        for n in range(count)
    ]


async def imitate(some: list[Task], seed: int) -> tuple[Decoder, Tokenizer]:
    """A model that asks in about a quarter of its episodes."""
    rng, parser = random.Random(seed), CwmParser()
    episodes = []
    for task in some * 3:
        guess = Message(role="assistant", content=str(rng.randrange(10)))
        gold = Message(role="assistant", content=str(task.hidden["digit"]))
        script = [ASK, gold] if rng.random() < 0.25 else [guess]
        episodes.append(await demonstrate(SlowDigitEnv(), play(script), task, max_turns=3))
    tools = SlowDigitEnv().tool_specs
    tokenizer = train_tokenizer([text for one in episodes for text in texts_of(one, tools, parser)], 320)
    renderer = CwmRenderer(tokenizer, announce_tools=False)
    decoder = Decoder(preset("cwm-tiny", vocab_size=tokenizer.vocab_size), seed=seed)
    loop = SFT(
        decoder,
        [tokenize(one, tools, renderer, parser) for one in episodes],
        config=SFTConfig(max_steps=200, patience=0, batch_tokens=2048, microbatch_tokens=2048, observation_weight=1.0),
        optim=OptimConfig(matrices="muon", muon_lr=2e-3, lr=6e-3, warmup_steps=10),
        seed=seed,
    )
    loop.run()
    return decoder, tokenizer


async def learn(
    decoder: Decoder, tokenizer: Tokenizer, some: list[Task], args: argparse.Namespace, seed: int, max_lag: int
) -> dict[str, Any]:
    """Reinforce until the goal; ``max_lag`` 0 samples and trains in turn."""
    trained = copy.deepcopy(decoder)
    sampled = copy.deepcopy(decoder) if max_lag else trained
    plan = EpisodePlan(
        make_env=lambda: SlowDigitEnv(latency=tuple(args.latency)),
        budget=Budget(turns=3, tokens=128, seconds=60),
        turn_tokens=24,
    )
    rewards: list[float] = []
    lags: list[float] = []
    started = time.perf_counter()
    async with Generator(sampled, max_context=128, max_batch=192, seed=seed, num_threads=1) as generator:
        policy = TokenPolicy(generator, CwmRenderer(tokenizer, announce_tools=False), CwmParser())
        common: dict[str, Any] = {
            "config": GRPOConfig(num_tasks=8, group_size=8, microbatch_tokens=8192, concurrency=192),
            "optim": OptimConfig(lr=3e-4),
            "tasks": TaskStream(some, seed=seed),
            "seed": seed,
        }
        loop: RL
        if max_lag:
            ahead = AsyncConfig(max_lag=max_lag)
            loop = AsyncRL(trained, generator, policy, lambda task: plan, asynchronous=ahead, **common)
        else:
            loop = RL(trained, generator, policy, lambda task: plan, **common)

        def on_step(result: StepResult) -> None:
            rewards.append(result.metrics["rollout/reward/mean"])
            lags.append(result.metrics.get("trainer/lag/mean", 0.0))
            if len(rewards) >= 3 and statistics.mean(rewards[-3:]) >= args.goal:
                loop.stop()

        await loop.run(args.steps, on_step=on_step)
    seconds = time.perf_counter() - started
    reached = len(rewards) >= 3 and statistics.mean(rewards[-3:]) >= args.goal
    return {"seconds": seconds, "steps": len(rewards), "reached": reached, "rewards": rewards, "lags": lags}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--latency", type=float, nargs=2, default=(0.5, 5.0))
    parser.add_argument("--goal", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lags", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    some, runs = tasks(40), []
    for seed in range(args.seeds):
        decoder, tokenizer = asyncio.run(imitate(some, seed))
        for max_lag in args.lags:
            found = asyncio.run(learn(decoder, tokenizer, some, args, seed, max_lag))
            runs.append({"seed": seed, "max_lag": max_lag, **found})
            name = f"asynchronous, lag <= {max_lag}" if max_lag else "synchronous"
            note = "" if found["reached"] else "goal not reached"
            print(
                f"seed {seed}  {name:24} {found['seconds']:6.1f} s  {found['steps']:3} steps  reward "
                f"{found['rewards'][0]:.2f} to {found['rewards'][-1]:.2f}  {note}",
                flush=True,
            )
    for max_lag in args.lags:
        spent = [run["seconds"] for run in runs if run["max_lag"] == max_lag]
        print(f"max_lag {max_lag}: median {statistics.median(spent):.1f} s ({min(spent):.1f} to {max(spent):.1f})")
    if args.json:
        facts = {"latency_s": list(args.latency), "goal": args.goal, "torch": version("torch")}
        facts |= {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
        args.json.write_text(json.dumps({**facts, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
