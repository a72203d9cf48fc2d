"""Tokens that are kept to look at: what is written of each is what the model and the loss say of it."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import torch

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.task import Task
from verigym.model.engine.generator import Generator
from verigym.trainer.batching.documents import document_of
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.scores import score
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import GRPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan


@pytest.fixture
def make_trainer(make_decoder, words):
    engines = []

    def make(**changes):
        decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
        engines.append(generator := Generator(decoder, max_context=48, seed=1))
        plan = EpisodePlan(make_env=words.env, budget=Budget(turns=3, tokens=64, seconds=30), turn_tokens=4)
        policy = TokenPolicy(generator, words.renderer((0, 2, 4, 6)), words.parser())
        config = GRPOConfig(**{"num_tasks": 3, "group_size": 24, "microbatch_tokens": 256, **changes})
        return RL(decoder, generator, policy, lambda task: plan, config=config, optim=OptimConfig(lr=3e-2))

    yield make
    for engine in engines:
        engine.close()


def tasks(count):
    return [Task(id=str(number), family="guess", prompt=f"{number} please") for number in range(count)]


def only(group):
    return lambda step, groups: [one for one in groups if one == group]


def test_what_is_kept_of_a_token_is_what_the_model_says_of_it(make_trainer):
    trainer = make_trainer(temperature=0.8)
    trainer.keeps = only("1/1")
    rollouts = asyncio.run(trainer.collect(tasks(3)))
    chosen = [index for index, one in enumerate(rollouts.trajectories) if one.group_id == "1/1"]
    expected = {}
    for index in chosen:
        for number, segment in enumerate(rollouts.trajectories[index].segments):
            document = document_of(segment, sampled=True)
            assert document is not None
            [batch] = pack([document], max_tokens=256, temperature=0.8)
            with torch.no_grad():
                found = score(trainer.decoder, batch)
            expected[index, number] = found.logprobs.numpy(), found.entropy.numpy()
    update = trainer.learn(rollouts.trajectories)
    assert {one.episode for one in update.kept} == set(chosen)
    assert {(one.episode, one.segment) for one in update.kept} == expected.keys()
    for one in update.kept:
        segment = rollouts.trajectories[one.episode].segments[one.segment]
        mask = np.asarray(segment.loss_mask, dtype=bool)
        logprobs, entropy = expected[one.episode, one.segment]
        np.testing.assert_allclose(one.columns["trainer_logprobs"][mask], logprobs, atol=1e-5)
        np.testing.assert_allclose(one.columns["entropy"][mask], entropy, atol=1e-5)
        np.testing.assert_allclose(one.columns["trainer_logprobs"][mask], np.asarray(segment.logprobs)[mask], atol=1e-4)
        np.testing.assert_allclose(one.columns["ratio"][mask], 1.0, atol=1e-4)
        assert (one.columns["clipped"][mask] == 0).all()
        assert (one.columns["advantage"][mask] == np.float32(update.advantages[one.episode])).all()
        for values in one.columns.values():
            assert len(values) == len(segment.token_ids)
            assert np.isnan(values[~mask]).all()


def test_ratios_and_clips_are_of_the_last_update_that_used_the_token(make_trainer):
    trainer = make_trainer(num_epochs=3, clip_low=0.01, clip_high=0.01)
    trainer.keeps = lambda step, groups: groups
    result = asyncio.run(trainer.step(tasks(3)))
    ratios = np.concatenate([one.columns["ratio"] for one in result.kept])
    clipped = np.concatenate([one.columns["clipped"] for one in result.kept])
    advantage = np.concatenate([one.columns["advantage"] for one in result.kept])
    known = np.isfinite(ratios)
    assert np.abs(ratios[known] - 1).max() > 0.05
    wanted = ((ratios < 0.99) & (advantage < 0)) | ((ratios > 1.01) & (advantage > 0))
    assert wanted[known].any()
    np.testing.assert_array_equal(clipped[known].astype(bool), wanted[known])


def test_keeping_changes_nothing_that_is_learned(make_trainer):
    rollouts = asyncio.run(make_trainer().collect(tasks(3)))
    metrics, weights = [], []
    for keeps in (None, only("0/0"), lambda step, groups: groups):
        trainer = make_trainer()
        trainer.keeps = keeps
        update = trainer.learn(rollouts.trajectories)
        assert bool(update.kept) == (keeps is not None)
        metrics.append({name: value for name, value in update.metrics.items() if "seconds" not in name})
        weights.append([parameter.detach().clone() for parameter in trainer.decoder.parameters()])
        assert trainer.learning.take_kept() == []
    assert metrics[0] == metrics[1] == metrics[2]
    assert all(torch.equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other, strict=True))


def test_what_is_left_out_of_training_is_kept_without_the_trainers_numbers(make_trainer):
    trainer = make_trainer(drop_uniform_groups=True)
    trainer.keeps = lambda step, groups: groups
    rollouts = asyncio.run(trainer.collect(tasks(3)))
    flat = [replace(one, reward=0.0) if one.group_id == "0/0" else one for one in rollouts.trajectories]
    update = trainer.learn(flat)
    for one in update.kept:
        lost = flat[one.episode].group_id == "0/0"
        assert np.isnan(one.columns["trainer_logprobs"]).all() == lost
        assert (update.advantages[one.episode] is None) == lost
