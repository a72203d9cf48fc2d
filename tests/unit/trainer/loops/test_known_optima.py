"""Tasks whose best policy is known, from a model of random weights: copy a token of the prompt, add two of its digits.
Every algorithm gets there. (The third, a bandit, is in test_reinforce.)"""

import asyncio

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.model.engine.generator import Generator
from verigym.rewards.score import verdict
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import ALGORITHMS, OPDConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

FIRST = 3  # the token of the first letter of WordRenderer's alphabet of 13

REWARDED = [name for name, kind in ALGORITHMS.items() if not issubclass(kind, OPDConfig)]  # those need a teacher


class OneToken(ToolEnv):
    """The answer is one token."""

    family = "one"

    def score(self, task, submission):
        return verdict(submission == task.hidden["token"])


class SaysToken:
    def parse(self, text, tools):
        return Message(role="assistant", content=text), text


def copying():
    return [(letter, FIRST + ord(letter) % 13) for letter in "adgj"]


def adding():
    return [(f"{x}{y}", FIRST + x + y) for x in range(3) for y in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", [copying, adding])
@pytest.mark.parametrize("name", REWARDED)
def test_every_algorithm_reaches_the_optimum(make_decoder, words, name, rule, seed):
    tasks = [Task(id=prompt, family="one", prompt=prompt, hidden={"token": str(token)}) for prompt, token in rule()]
    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    config = ALGORITHMS[name](
        num_tasks=len(tasks),
        group_size=32,
        microbatch_tokens=2048,
        concurrency=256,
        max_useless_steps=50,
        entropy_coef=0.02,  # without it a group may agree on a wrong answer, and has nothing more to learn from
    )
    plan = EpisodePlan(make_env=OneToken, budget=Budget(turns=1, tokens=64, seconds=120), turn_tokens=1)
    with Generator(decoder, max_context=48, max_batch=256, seed=seed) as engine:
        trainer = RL(
            decoder,
            engine,
            TokenPolicy(engine, words.renderer(tuple(range(16))), SaysToken()),
            lambda task: plan,
            config=config,
            optim=OptimConfig(lr=5e-3),
            tasks=TaskStream(tasks, seed=seed),
            seed=seed,
        )
        rewards = []

        def watch(result):
            rewards.append(result.metrics["rollout/reward/mean"])
            if sum(rewards[-3:]) > 2.85:
                trainer.stop()

        asyncio.run(trainer.run(150, on_step=watch))
    assert rewards[0] < 0.3
    assert sum(rewards[-3:]) / 3 > 0.9, rewards
