"""How long a run will take on this machine, from seconds of measuring: what an update costs, and an episode."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ...agent.harness.open import scripted
from ...agent.trajectory import Segment, Trajectory
from ...envs.task import Task
from ...model.chat.sampling import Sampling
from ...model.decoder import Decoder
from ...model.engine.generator import Generator
from ..loops.loop import SFT
from ..recipe.config import OptimConfig, SFTConfig
from ..recipe.layouts import model_config
from ..recipe.recipe import Recipe
from ..recipe.stages import RLStage
from ..sampling.families import Family

UPDATES = 2
EPISODES = 16
"""Measured at once, after some that only warm up."""
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
        episode_s: by family, of an episode that a script plays, graded, where many run at once.
        played_s: the same of a demonstration, which is not graded.
    """

    token_s: float
    sampled_s: float
    episode_s: dict[str, float]
    played_s: dict[str, float]


async def measure(recipe: Recipe, families: Sequence[Family]) -> Costs:
    """Some seconds of work of each kind, with random weights of the recipe's shape."""
    decoder = Decoder(model_config(recipe), seed=0)
    return Costs(
        token_s=_seconds_of_training(decoder, recipe),
        sampled_s=await _seconds_of_sampling(decoder),
        episode_s={family.config.name: await _seconds_of(_graded, family) for family in families},
        played_s={family.config.name: await _seconds_of(_played, family) for family in families},
    )


def estimate(recipe: Recipe, costs: Costs) -> list[tuple[str, float]]:
    """(part of the run, seconds), in order. Rough: of what runs side by side, sampling ahead and what waits for the
    control alone count as if they took no time from the other."""

    def sampled(name: str) -> float:
        config = next(one for one in recipe.families if one.name == name)
        written = min(SHARE_SAMPLED * SHARE_FILLED * recipe.model.max_context, config.turns * config.turn_tokens / 2)
        return costs.episode_s[name] + written * costs.sampled_s

    demonstrations = sum(one.num_demonstrations * costs.played_s[one.name] for one in recipe.families)
    shown = ("demonstrations", demonstrations if recipe.uses_demonstrations else 0.0)
    scripted = sum(one.num_held_out * costs.episode_s[one.name] for one in recipe.families) * len(recipe.eval.controls)
    scripts = ("scripts on the held-out tasks", scripted)
    worth = sum(one.num_held_out * sampled(one.name) for one in recipe.families)
    worth *= recipe.eval.samples + recipe.eval.greedy
    steps = None if recipe.sft is None else recipe.sft.train.max_steps
    updates = 0.0
    if recipe.sft is not None and steps is not None:
        updates = steps * recipe.sft.train.batch_tokens * costs.token_s
    imitation, before = (f"imitation, up to {steps} updates", updates), ("evaluation before rewards", worth)

    def learning(stage: RLStage) -> tuple[str, float]:
        train, shares = stage.train, sum(one.weight for one in recipe.families)
        count = train.num_tasks * train.group_size
        sampling = sum(count * one.weight / shares * sampled(one.name) for one in recipe.families)
        updating = count * SHARE_FILLED * recipe.model.max_context * train.num_epochs * costs.token_s
        step = max(sampling, updating) if stage.asynchronous is not None else sampling + updating
        what = "reinforcement" if stage.name == "rl" else "distillation"
        return f"{what}, {stage.steps} steps of {count} episodes", stage.steps * step

    learned = [learning(stage) for stage in recipe.sampled_stages]
    if not learned:
        return _longer_than_nothing([shown, scripts, imitation, before])
    as_long = sum(seconds for _, seconds in learned)
    worth_after, last = len(learned) * worth, ("evaluation of the control", worth)
    after = ("evaluation after it" if recipe.rl is None else "evaluation after rewards", worth_after)
    if recipe.has_control and recipe.overlap:
        control = ("control, and evaluations and scripts beside it", max(as_long, scripted + worth + worth_after))
        return _longer_than_nothing([shown, imitation, *learned, control, last])
    control = [("control", as_long), last] if recipe.has_control else []
    return _longer_than_nothing([shown, scripts, imitation, before, *learned, after, *control])


def _longer_than_nothing(parts: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
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


async def _seconds_of(play: Callable[[Family, str, Task], Awaitable[object]], family: Family) -> float:
    """Of one episode among EPISODES at once, by experts as the family draws them."""
    config, rng = family.config, random.Random(0)
    names = rng.choices(list(config.experts), list(config.experts.values()), k=EPISODES)

    pairs = list(zip(family.train, names))

    async def all_of(some: Sequence[tuple[Task, str]]) -> None:
        await asyncio.gather(*(play(family, name, task) for task, name in some))

    await all_of(pairs[: EPISODES // 4])
    started = time.perf_counter()
    await all_of(pairs)
    return (time.perf_counter() - started) / len(pairs)


async def _graded(family: Family, name: str, task: Task) -> object:
    policy = scripted(family.config.agent.name, family.experts[name](task))
    return await family.act(family.make_env(), policy, task, budget=family.plan(1 << 20).budget, sampling=Sampling())


async def _played(family: Family, name: str, task: Task) -> object:
    script, budget = family.experts[name](task), family.plan(1 << 20).budget
    return await family.demonstrate(family.make_env(), script, task, budget=budget, seats=family.seats)
