"""What a critic is for: at a fixed policy, on episodes of several turns that each earn a part of the reward, PPO's
advantages make the gradient vary less than REINFORCE's do, around the same mean."""

import asyncio

import pytest
import torch

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.core import Acted, ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.model.engine.generator import Generator
from verigym.rewards.score import Score
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.experience import Scorer, experience_of
from verigym.trainer.learning.scores import score
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import GRPOConfig, PPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

TURNS = 6
EPISODES = 256


class CreditEnv(ToolEnv):
    """Every turn that says 8 or more earns its share."""

    family = "credit"

    def start(self, task):
        self.good, self.turns = 0, 0

    async def aact(self, action):
        self.turns += 1
        self.good += int(action) >= 8
        over = self.turns == TURNS
        return Acted(
            messages=() if over else (Message(role="user", content="go on"),),
            format_error=False,
            submission=self.good if over else None,
            ending="submitted" if over else None,
            truncated=False,
        )

    def score(self, task, submission):
        return Score(value=submission / TURNS, passed=submission == TURNS, breakdown={"good": submission / TURNS})


class SaysToken:
    def parse(self, text, tools):
        return Message(role="assistant", content=text), text or "0"


def gradients(decoder, experience):
    """[N, P]: of each episode, the sum over its tokens of advantage times the gradient of the log-probability."""
    rows = []
    for documents in experience.documents:
        decoder.zero_grad()
        for batch in pack(documents, max_tokens=256):
            scores = score(decoder, batch)
            torch.dot(scores.logprobs, batch.advantages[scores.index]).backward()
        rows.append(torch.cat([parameter.grad.reshape(-1) for parameter in decoder.parameters()]))
    return torch.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_critic_lowers_the_variance_of_the_gradient(make_decoder, words, seed):
    decoder = make_decoder(vocab_size=16, max_position_embeddings=128)
    settings = {"num_tasks": 1, "group_size": EPISODES, "microbatch_tokens": 2048, "concurrency": EPISODES}
    ppo = PPOConfig(
        **settings,
        whiten=False,
        num_epochs=3,
        critic_warmup_steps=1000,
        critic={"kind": "model", "clip": None, "optim": {"lr": 3e-3}},
    )
    plan = EpisodePlan(make_env=CreditEnv, budget=Budget(turns=TURNS, tokens=128, seconds=120), turn_tokens=1)
    [task] = tasks = [Task(id="one", family="credit", prompt="begin")]
    with Generator(decoder, max_context=100, max_batch=EPISODES, seed=seed) as engine:
        trainer = RL(
            decoder,
            engine,
            TokenPolicy(engine, words.renderer(tuple(range(16))), SaysToken()),
            lambda task: plan,
            config=ppo,
            optim=OptimConfig(lr=1e-3),
            tasks=TaskStream(tasks),
            seed=seed,
        )
        rows = []
        asyncio.run(trainer.run(25, on_step=rows.append))
        rollouts = asyncio.run(trainer.collect([task], first=99))
    # A perfect critic knows what came before a turn: (0 + 1 + ... + 5) / 6 of 6 equal shares, which is 0.42.
    assert rows[-1].metrics["trainer/explained_variance/mean"] > 0.25
    trajectories = rollouts.trajectories
    assert len(trajectories) == EPISODES
    assert {one.num_turns for one in trajectories} == {TURNS}
    plain = gradients(decoder, experience_of(trajectories, GRPOConfig(**settings, scale="none")))
    found = {"reinforce": plain.var(0).sum()}
    for gae_lambda in (1.0, 0.5):
        config = ppo.model_copy(update={"gae_lambda": gae_lambda})
        annotate = Scorer(decoder, config, critic=trainer.learning.critic)
        mine = gradients(decoder, experience_of(trajectories, config, annotate))
        found[gae_lambda] = mine.var(0).sum()
        # Both are estimates of one mean, from the same episodes.
        assert torch.cosine_similarity(mine.mean(0), plain.mean(0), dim=0) > 0.7
    # Left over with a perfect critic: of a turn's own share and, at 1.0, of those still to come; REINFORCE has all.
    assert found[1.0] < 0.8 * found["reinforce"], found
    assert found[0.5] < 0.6 * found["reinforce"], found
