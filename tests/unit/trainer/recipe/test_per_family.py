"""A family's own group size, temperature, clips and advantages, beside others in the same step."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.task import Task
from verigym.model.engine.generator import Generator
from verigym.trainer.batching.packs import join
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.learning.optim import Optimizer
from verigym.trainer.learning.step import TrainStep
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.objective.losses import PolicyLoss, TrainedTokens
from verigym.trainer.objective.surrogates import clipped_surrogate
from verigym.trainer.recipe.algorithms import GRPOConfig, PPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.recipe.per_family import FamilyAlgorithm
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

RUN = GRPOConfig(num_tasks=2, group_size=4, microbatch_tokens=256)


def test_what_is_left_out_is_the_runs_and_the_whole_is_checked():
    assert FamilyAlgorithm().applied_to(RUN) is RUN
    own = FamilyAlgorithm(group_size=16, scale="std", temperature=0.7, overlong="mask").applied_to(RUN)
    assert own == RUN.model_copy(update={"group_size": 16, "scale": "std", "temperature": 0.7, "overlong": "mask"})
    with pytest.raises(ValueError, match="a lone episode has no baseline"):
        FamilyAlgorithm(group_size=1).applied_to(RUN)
    with pytest.raises(ValueError, match="scale is no setting of ppo"):
        FamilyAlgorithm(scale="std").applied_to(PPOConfig())


def test_clips_of_each_token_are_its_familys():
    log_ratio, advantages = torch.tensor([0.5, 0.5, -0.9]), torch.tensor([1.0, 1.0, -1.0])
    low, high = torch.tensor([0.2, 0.2, 0.5]), torch.tensor([0.2, 0.4, 0.2])
    found = clipped_surrogate(log_ratio, advantages, clip_low=low, clip_high=high)
    for at in range(3):
        alone = clipped_surrogate(
            log_ratio[at : at + 1], advantages[at : at + 1], clip_low=float(low[at]), clip_high=float(high[at])
        )
        torch.testing.assert_close(found.components[at : at + 1], alone.components)
    tokens = TrainedTokens(old_logprobs=-log_ratio, advantages=advantages, clip_low=low, clip_high=high)
    loss = PolicyLoss(clip_low=0.9, clip_high=9.0)(torch.zeros(3), torch.zeros(3), tokens)
    torch.testing.assert_close(loss.components, found.components)


def group(make_trajectory, make_segment, family, name, rewards, sampled=3):
    return [
        replace(
            make_trajectory(
                make_segment([1, 2, *range(3, 3 + sampled)], [0, 0, *[1] * sampled]), reward=reward, group=name
            ),
            family=family,
        )
        for reward in rewards
    ]


def test_each_family_is_as_if_it_were_alone(make_trajectory, make_segment):
    own = {"a": RUN, "b": FamilyAlgorithm(scale="std", temperature=0.5, clip_high=0.4).applied_to(RUN)}
    a = group(make_trajectory, make_segment, "a", "a1", [1.0, 0.0, 0.0, 0.0])
    b = group(make_trajectory, make_segment, "b", "b1", [1.0, 0.0, 0.5, 0.0])
    uniform = group(make_trajectory, make_segment, "b", "b2", [1.0, 1.0])
    mixed = [a[0], *b[:2], *uniform, *a[1:], *b[2:]]
    found = experience_of(mixed, RUN, config_of=lambda family, task_id: own[family])
    assert (found.groups.num_groups, found.groups.num_uniform) == (3, 1)
    for family, config in own.items():
        alone = experience_of([one for one in mixed if one.family == family], config)
        together = [docs for one, docs in zip(mixed, found.documents) if one.family == family]
        assert [[doc.advantage for doc in docs] for docs in together] == [
            [doc.advantage for doc in docs] for docs in alone.documents
        ]
    (document,) = found.documents[1]
    np.testing.assert_array_equal(document.columns["temperature"], np.float32([1, 0.5, 0.5, 0.5]))
    np.testing.assert_array_equal(document.columns["clip_high"], np.full(4, 0.4, np.float32))
    (document,) = found.documents[0]
    np.testing.assert_array_equal(document.columns["clip_high"], np.full(4, 0.28, np.float32))


def test_two_temperatures_in_a_pack_are_two_packs_gradients(make_decoder, make_trajectory, make_segment):
    own = {"a": RUN, "b": FamilyAlgorithm(temperature=0.5).applied_to(RUN)}
    a = group(make_trajectory, make_segment, "a", "a1", [1.0, 0.0])
    b = group(make_trajectory, make_segment, "b", "b1", [1.0, 0.0], sampled=5)
    found = experience_of([*a, *b], RUN, config_of=lambda family, task_id: own[family])
    together = [join([doc for docs in found.documents for doc in docs])]
    plain = [experience_of(some, config) for some, config in ((a, RUN), (b, own["b"]))]
    apart = [
        join([doc for docs in one.documents for doc in docs], temperature=config.temperature)
        for one, config in zip(plain, own.values())
    ]
    gradients = []
    for packs in (together, apart):
        decoder = make_decoder()
        TrainStep(decoder, Optimizer(decoder, OptimConfig()), PolicyLoss()).accumulate(packs)
        gradients.append([parameter.grad.clone() for parameter in decoder.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_groups_are_sampled_as_their_family_says_and_every_ratio_is_one(make_decoder, words):
    class Guess(words.env):
        family = ""

    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    own = {"a": RUN, "b": FamilyAlgorithm(group_size=6, temperature=0.6).applied_to(RUN)}
    tasks = [Task(id=name, family=name, prompt=f"{name} please") for name in own]
    with Generator(decoder, max_context=48, seed=1) as generator:

        def plan_of(task):
            config = own[task.family]
            return EpisodePlan(
                make_env=Guess,
                budget=Budget(turns=2, tokens=64, seconds=30),
                turn_tokens=4,
                group_size=config.group_size,
                temperature=config.temperature,
            )

        trainer = RL(
            decoder,
            generator,
            TokenPolicy(generator, words.renderer(), words.parser()),
            plan_of,
            config=RUN.model_copy(update={"drop_uniform_groups": False}),
            optim=OptimConfig(),
            tasks=TaskStream(tasks),
            config_of=lambda family, task_id: own[family].model_copy(update={"drop_uniform_groups": False}),
        )
        result = asyncio.run(trainer.step(tasks))
    sizes = {family: sum(one.family == family for one in result.trajectories) for family in own}
    assert sizes == {"a": 4, "b": 6}
    assert result.metrics["trainer/mismatch/max"] < 1e-5
