"""How long a run will take on this machine, from seconds of measuring: what an update costs, and an episode."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ...agent.loop import rollout
from ...agent.policy import ScriptedPolicy
from ...agent.trajectory import Segment, Trajectory
from ...envs.task import Task
from ...model.chat.sampling import Sampling
from ...model.decoder import Decoder
from ...model.engine.generator import Generator
from ..loops.loop import SFT
from ..recipe.config import OptimConfig, SFTConfig
from ..recipe.layouts import model_config
from ..recipe.recipe import Recipe
from ..sampling.families import Family

UPDATES = 2
EPISODES = 4
"""Measured at once, after one that only warms up."""
SAMPLES, SAMPLED_TOKENS = 32, 24
SHARE_SAMPLED = 0.4
"""Of an episode's context, about as much as the demonstrations' assistants write."""
SHARE_FILLED = 0.5
"""Of the most that an episode may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What things cost here.

    Attributes:
        token_s: seconds of training, a token; sampled_s: of sampling, a token.
        episode_s: by family, of an episode that a script plays, graded, among others.
    """

    token_s: float
    sampled_s: float
    episode_s: dict[str, float]


async def measure(recipe: Recipe, families: Sequence[Family]) -> Costs:
    """Some seconds of work of each kind, with random weights of the recipe's shape."""
    decoder = Decoder(model_config(recipe), seed=0)
    return Costs(
        token_s=_seconds_of_training(decoder, recipe),
        sampled_s=await _seconds_of_sampling(decoder),
        episode_s={family.config.name: await _seconds_of_episodes(family) for family in families},
    )


def estimate(recipe: Recipe, costs: Costs) -> list[tuple[str, float]]:
    """(part of the run, seconds), in order. Rough: what runs side by side counts as if one waited for the other."""

    def episode(name: str, *, scripted: bool) -> float:
        config = next(one for one in recipe.families if one.name == name)
        written = min(SHARE_SAMPLED * SHARE_FILLED * recipe.model.max_context, config.turns * config.turn_tokens / 2)
        return costs.episode_s[name] + (0.0 if scripted else written * costs.sampled_s)

    parts: list[tuple[str, float]] = []
    demonstrations = sum(one.num_demonstrations * episode(one.name, scripted=True) for one in recipe.families)
    parts.append(("demonstrations", demonstrations if recipe.uses_demonstrations else 0.0))
    controls = sum(one.num_held_out * episode(one.name, scripted=True) for one in recipe.families)
    parts.append(("scripts on the held-out tasks", controls * len(recipe.eval.controls)))
    steps = None if recipe.sft is None else recipe.sft.train.max_steps
    if recipe.sft is not None and steps is not None:
        parts.append((f"imitation, up to {steps} updates", steps * recipe.sft.train.batch_tokens * costs.token_s))
    worth = sum(one.num_held_out * episode(one.name, scripted=False) for one in recipe.families)
    worth *= recipe.eval.samples + recipe.eval.greedy
    parts.append(("evaluation before rewards", worth))
    if recipe.rl is not None:
        train, shares = recipe.rl.train, sum(one.weight for one in recipe.families)
        count = train.num_tasks * train.group_size
        sampling = sum(count * one.weight / shares * episode(one.name, scripted=False) for one in recipe.families)
        learning = count * SHARE_FILLED * recipe.model.max_context * train.num_epochs * costs.token_s
        step = max(sampling, learning) if recipe.rl.asynchronous is not None else sampling + learning
        parts.append((f"reinforcement, {recipe.rl.steps} steps of {count} episodes", recipe.rl.steps * step))
        parts.append(("evaluation after rewards", worth))
        if recipe.control and recipe.sft is not None:
            parts += [("control", recipe.rl.steps * step), ("evaluation of the control", worth)]
    return [(name, seconds) for name, seconds in parts if seconds]


def told(parts: Sequence[tuple[str, float]], costs: Costs) -> list[str]:
    """The estimate, as lines for people."""
    whole = sum(seconds for _, seconds in parts)
    episodes = ", ".join(f"{name} {seconds:.2f}" for name, seconds in costs.episode_s.items())
    return [
        f"plan: about {whole / 60:.0f} minutes on this machine as it is now (training {1 / costs.token_s:,.0f} tokens "
        f"a second, sampling {1 / costs.sampled_s:,.0f}; seconds an episode: {episodes})",
        *(f"  {seconds / 60:5.1f}  {name}" for name, seconds in parts),
    ]


def _seconds_of_training(decoder: Decoder, recipe: Recipe) -> float:
    train = recipe.sft.train if recipe.sft is not None else SFTConfig(max_steps=UPDATES, patience=0)
    length = min(recipe.model.max_context // 2, train.microbatch_tokens)
    config = train.model_copy(update={"patience": 0})
    optim = recipe.sft.optim if recipe.sft is not None else OptimConfig()
    rng, size = random.Random(0), decoder.config.vocab_size
    episodes = [
        Trajectory(task_id=str(number), family="", ending="submitted", segments=(_random_segment(rng, size, length),))
        for number in range(-(-config.batch_tokens // length))
    ]
    loop = SFT(decoder, episodes, config=config, optim=optim)
    loop.step()
    started = time.perf_counter()
    tokens = sum(loop.step().metrics["trainer/tokens/count"] for _ in range(UPDATES))
    return (time.perf_counter() - started) / tokens


def _random_segment(rng: random.Random, vocab_size: int, length: int) -> Segment:
    return Segment(
        token_ids=tuple(rng.choices(range(vocab_size), k=length)),
        loss_mask=(False, *(True,) * (length - 1)),
        logprobs=(float("nan"),) * length,
        policy_version=(-1,) * length,
        roles=("assistant",) * length,
    )


async def _seconds_of_sampling(decoder: Decoder) -> float:
    rng, size = random.Random(0), decoder.config.vocab_size
    prompts = [tuple(rng.choices(range(size), k=SAMPLED_TOKENS)) for _ in range(SAMPLES)]
    async with Generator(decoder, max_batch=SAMPLES, max_context=3 * SAMPLED_TOKENS) as engine:
        started = time.perf_counter()
        sampling = Sampling(max_tokens=SAMPLED_TOKENS, temperature=1.0, seed=0)
        found = await asyncio.gather(*(engine.generate(prompt, sampling, ()) for prompt in prompts))
        return (time.perf_counter() - started) / sum(len(one.token_ids) for one in found)


async def _seconds_of_episodes(family: Family) -> float:
    name = max(family.config.experts, key=lambda one: family.config.experts[one])

    async def play(task: Task) -> None:
        policy = ScriptedPolicy(family.experts[name](task))
        await rollout(family.make_env(), policy, task, budget=family.plan(1 << 20).budget, sampling=Sampling())

    first, *others = family.train[: EPISODES + 1]
    await play(first)
    started = time.perf_counter()
    await asyncio.gather(*(play(task) for task in others))
    return (time.perf_counter() - started) / max(1, len(others))
