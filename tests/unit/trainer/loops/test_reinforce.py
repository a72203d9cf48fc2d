import asyncio
import math
from types import SimpleNamespace

import pytest
import torch

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.task import Task
from verigym.errors import ConfigError, TrainingError
from verigym.model.attention import Documents
from verigym.model.chat.messages import Message
from verigym.model.engine.generator import Generator
from verigym.trainer.batching.documents import document_of
from verigym.trainer.batching.packs import pack
from verigym.trainer.learning.scores import score
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import ALGORITHMS, DAPOConfig, DrGRPOConfig, GRPOConfig, OPDConfig, PPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

ALL = tuple(range(16))

REWARDED = [name for name, kind in ALGORITHMS.items() if not issubclass(kind, OPDConfig)]  # those need a teacher


@pytest.fixture
def make_trainer(make_decoder, words):
    engines = []

    def make(*, stop=(0,), optim=None, turns=2, decoder=None, tasks=(), seed=0, config=None, faults=(), **changes):
        decoder = decoder or make_decoder(vocab_size=16, max_position_embeddings=64)
        config = config or GRPOConfig
        generator = Generator(decoder, max_context=48, seed=1)
        engines.append(generator)
        left = list(faults)
        plan = EpisodePlan(
            make_env=lambda: words.env(left.pop(0) if left else None),
            budget=Budget(turns=turns, tokens=64, seconds=30),
            turn_tokens=4,
        )
        return RL(
            decoder,
            generator,
            TokenPolicy(generator, words.renderer(stop), words.parser()),
            lambda task: plan,
            config=config(**{"num_tasks": 2, "group_size": 16, "microbatch_tokens": 256, **changes}),
            optim=optim or OptimConfig(lr=1e-2),
            tasks=TaskStream(tasks, seed=seed) if tasks else None,
            seed=seed,
        )

    yield make
    for engine in engines:
        engine.close()


def tasks(count):
    return [Task(id=str(number), family="guess", prompt=f"{number} please") for number in range(count)]


def logits_after_prompt(trainer, words, task):
    prompt = words.renderer().start([Message(role="user", content=task.prompt)], ()).token_ids
    with torch.no_grad():
        hidden = trainer.decoder(torch.tensor(prompt), Documents.from_lengths([len(prompt)]))
        return trainer.decoder.logits(hidden)[-1]


def last_sampled(segment):
    return [token for token, on in zip(segment.token_ids, segment.loss_mask, strict=True) if on][-1]


def test_bandit_only_the_logit_of_the_rewarded_token_rises(make_trainer, words):
    # Every token ends the turn, the gradient is not rescaled (a large eps), and only the head is trained.
    trainer = make_trainer(stop=ALL, turns=1, group_size=64, optim=OptimConfig(lr=10.0, eps=1.0, betas=(0.0, 0.0)))
    for name, parameter in trainer.decoder.named_parameters():
        parameter.requires_grad_(name == "head.weight")
    trainer.learning.optimizer.parameters[:] = [trainer.decoder.head.weight]
    [task] = tasks(1)
    before = logits_after_prompt(trainer, words, task)
    result = asyncio.run(trainer.step([task]))
    change = logits_after_prompt(trainer, words, task) - before
    sampled = {last_sampled(one.segments[0]) for one in result.trajectories}
    assert 9 in sampled
    assert len(sampled) > 8
    assert change[9] > 1e-4
    for token in ALL:
        if token != 9:
            # a token that was not sampled keeps its logit
            assert change[token] < (-1e-6 if token in sampled else 1e-6), token


def test_it_learns_to_say_nine_and_to_stop(make_trainer):
    trainer = make_trainer(group_size=32, tasks=tasks(4), optim=OptimConfig(lr=1e-2), num_tasks=2)
    rewards = []

    def watch(result):
        rewards.append(result.metrics["rollout/reward/mean"])
        if sum(rewards[-3:]) > 2.8:
            trainer.stop()

    asyncio.run(trainer.run(40, on_step=watch))
    assert rewards[0] < 0.2
    assert sum(rewards[-3:]) / 3 > 0.9


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_with_frozen_weights_every_ratio_is_one(make_trainer, make_decoder, temperature):
    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4.0)  # sharp distributions: a wrong temperature would show
    trainer = make_trainer(decoder=decoder, temperature=temperature, turns=3, stop=ALL[::2])
    rollouts = asyncio.run(trainer.collect(tasks(4)))
    assert max(one.num_turns for one in rollouts.trajectories) > 1
    documents = [document_of(part, sampled=True) for one in rollouts.trajectories for part in one.segments]
    for batch in pack(documents, max_tokens=200, temperature=temperature):
        with torch.no_grad():
            scores = score(decoder, batch)
        ratio = (scores.logprobs - batch.old_logprobs[scores.index]).exp()
        assert ratio.numel() > 0
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-5)
    if temperature != 1.0:
        [batch] = pack(documents, max_tokens=100_000, temperature=1.0)
        scores = score(decoder, batch)
        assert (scores.logprobs - batch.old_logprobs[scores.index]).abs().max() > 0.1


def test_log_probabilities_equal_a_forward_of_each_prefix(make_trainer):
    trainer = make_trainer(turns=3, temperature=0.8)
    rollouts = asyncio.run(trainer.collect(tasks(3)))
    num_checked = 0
    for trajectory in rollouts.trajectories[::5]:
        for segment in trajectory.segments:
            for t in [t for t, trained in enumerate(segment.loss_mask) if trained]:
                ids = torch.tensor(segment.token_ids[:t])
                with torch.no_grad():
                    logits = trainer.decoder.logits(trainer.decoder(ids, Documents.from_lengths([t]))[-1:])
                expected = (logits[0] / 0.8).log_softmax(-1)[segment.token_ids[t]]
                assert segment.logprobs[t] == pytest.approx(float(expected), abs=1e-5)
                num_checked += 1
    assert num_checked > 10


def test_the_mismatch_is_measured_before_the_weights_move(make_trainer):
    trainer = make_trainer(num_epochs=2, num_minibatches=2, num_tasks=4, group_size=64)
    result = asyncio.run(trainer.step(tasks(4)))
    assert result.metrics["trainer/updates/count"] == 4
    assert abs(result.metrics["trainer/mismatch_kl/mean"]) < 1e-6
    assert result.metrics["trainer/mismatch/max"] < 1e-5
    assert result.metrics["trainer/approx_kl/mean"] > 1e-4  # later updates are off policy


def test_a_step_that_teaches_nothing_changes_nothing(make_trainer):
    trainer = make_trainer(turns=1)
    before = [parameter.detach().clone() for parameter in trainer.decoder.parameters()]
    rollouts = asyncio.run(trainer.collect(tasks(2)))
    uniform = [one for one in rollouts.trajectories if one.reward == 0.0]
    metrics = trainer.update(uniform)
    assert metrics["trainer/updates/count"] == 0
    assert trainer.num_steps == 1
    assert trainer._generator.policy_version == 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.decoder.parameters(), strict=True))


def test_new_weights_carry_a_new_version(make_trainer):
    trainer = make_trainer(group_size=64)
    for version in range(2):
        result = asyncio.run(trainer.step(tasks(2)))
        versions = {v for one in result.trajectories for s in one.segments for v in s.policy_version}
        assert versions == {-1, version}
        assert result.metrics["trainer/updates/count"] == 1


def test_masked_overlong_episodes_count_in_the_baseline_only(make_trainer):
    keep, mask = make_trainer(group_size=64), make_trainer(group_size=64, overlong="mask")
    rollouts = asyncio.run(keep.collect(tasks(1)))
    cut = [one for one in rollouts.trajectories if one.ending == "token_limit"]
    assert cut
    all_tokens = keep.update(rollouts.trajectories)
    without = mask.update(rollouts.trajectories)
    lost = sum(one.num_sampled for one in cut)
    assert all_tokens["trainer/trained_tokens/count"] - without["trainer/trained_tokens/count"] == lost
    assert all_tokens["trainer/advantage_abs/mean"] == without["trainer/advantage_abs/mean"]


def test_a_resumed_run_repeats_the_rewards_and_losses(make_trainer, make_decoder):
    names = ("rollout/reward/mean", "trainer/loss/mean", "trainer/grad_norm/mean")

    def run(trainer, until):
        rows = []
        asyncio.run(
            trainer.run(until, on_step=lambda result: rows.append([result.metrics.get(n, math.nan) for n in names]))
        )
        return rows

    settings = {"tasks": tasks(5), "group_size": 40, "seed": 7, "num_minibatches": 2}
    whole = make_trainer(**settings)
    expected = run(whole, 6)
    assert sum(math.isfinite(loss) for _, loss, _ in expected) > 3
    first = make_trainer(**settings)
    rows = run(first, 3)
    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    decoder.load_state_dict(first.decoder.state_dict())
    second = make_trainer(decoder=decoder, **settings)
    second.load_state_dict(first.state_dict())
    rows += run(second, 6)
    assert rows == [pytest.approx(row, rel=1e-4, abs=1e-6, nan_ok=True) for row in expected]
    assert second._generator.policy_version == whole._generator.policy_version > 0


def test_stop_ends_it_between_steps_and_bad_input_is_refused(make_trainer):
    trainer = make_trainer(tasks=tasks(2))
    asyncio.run(trainer.run(9, on_step=lambda result: trainer.stop()))
    assert trainer.num_steps == 1
    with pytest.raises(ConfigError, match="raise microbatch_tokens"):
        asyncio.run(make_trainer(microbatch_tokens=32).step(tasks(2)))
    with pytest.raises(ConfigError, match=r"pass tasks=TaskStream\(\[...\]\)"):
        asyncio.run(make_trainer().run(1))


@pytest.mark.parametrize("name", REWARDED)
def test_every_algorithm_steps_and_teaches(make_trainer, name):
    trainer = make_trainer(config=ALGORITHMS[name], group_size=64, num_epochs=2, num_minibatches=2)
    before = trainer.decoder.head.weight.detach().clone()
    result = asyncio.run(trainer.step(tasks(2)))
    assert result.metrics["trainer/updates/count"] >= 2
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert not torch.equal(before, trainer.decoder.head.weight)
    assert trainer._generator.policy_version == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", REWARDED)
def test_every_algorithm_learns_to_say_nine_and_to_stop(make_trainer, name, seed):
    # GSPO's clips are for small steps; a product of ratios (RLOO) is clipped after one of them.
    trainer = make_trainer(
        config=ALGORITHMS[name], group_size=64, tasks=tasks(4), num_tasks=2, seed=seed, max_useless_steps=50
    )
    rewards = []

    def watch(result):
        rewards.append(result.metrics["rollout/reward/mean"])
        if sum(rewards[-3:]) > 2.85:
            trainer.stop()

    asyncio.run(trainer.run(80, on_step=watch))
    assert rewards[0] < 0.3
    assert sum(rewards[-3:]) / 3 > 0.9, rewards


def test_new_tasks_replace_uniform_groups(make_trainer):
    """Dynamic sampling: with episodes of one token, some groups of 4 see no success, and others take their place."""
    settings = {"config": DAPOConfig, "num_tasks": 8, "group_size": 4, "tasks": tasks(64), "stop": ALL, "turns": 1}
    few = make_trainer(sampling_rounds=1, **settings)
    many = make_trainer(sampling_rounds=60, **settings)
    counts = {}
    for name, trainer in (("few", few), ("many", many)):
        result = asyncio.run(trainer.step(trainer._tasks.take(8)))
        groups = len({one.group_id for one in result.trajectories})
        assert groups * 4 == len(result.trajectories)
        counts[name] = groups, groups - result.metrics["trainer/groups_uniform/count"]
    assert counts["few"][0] == 8 > counts["few"][1]
    assert counts["many"][0] > 8 == counts["many"][1]


def test_a_run_with_nothing_to_learn_stops_and_says_why(make_trainer):
    failing = make_trainer(faults=["sandbox"] * 999, retries=0, tasks=tasks(2), max_useless_steps=2, group_size=2)
    with pytest.raises(
        TrainingError, match=r"2 steps in a row .*all 4 episodes failed \(sandbox_failure: the box is gone"
    ):
        asyncio.run(failing.run(9))
    assert failing.num_steps == 2
    hopeless = make_trainer(turns=1, tasks=tasks(2), max_useless_steps=3, group_size=2, stop=ALL[10:])
    with torch.no_grad():
        hopeless.decoder.head.weight.zero_()
        hopeless.decoder.head.weight[10:] += 1.0
        hopeless.decoder.norm.weight.fill_(100.0)
    with pytest.raises(TrainingError, match=r"every reward was 0 .*take easier or harder tasks"):
        asyncio.run(hopeless.run(9))


@pytest.mark.parametrize("kind", ["head", "shared", "model"])
def test_a_critic_learns_what_is_to_come_and_a_run_with_one_resumes(make_trainer, make_decoder, kind):
    settings = {
        **{"config": PPOConfig, "tasks": tasks(4), "group_size": 16, "kl": {"coef": 0.01}, "stop": ALL, "turns": 1},
        **{"critic": {"kind": kind, "optim": {"lr": 1e-2}}, "seed": 5},
    }

    def run(trainer, until):
        rows = []
        asyncio.run(trainer.run(until, on_step=rows.append))
        return [row.metrics for row in rows]

    whole = make_trainer(**settings)
    expected = run(whole, 5)
    assert expected[0]["trainer/value/mean"] == 0.0
    assert expected[0]["trainer/return/mean"] > 0.02
    assert expected[-1]["trainer/value/mean"] > 0.02
    first = make_trainer(**settings)
    rows = run(first, 2)
    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    decoder.load_state_dict(first.decoder.state_dict())
    second = make_trainer(decoder=decoder, **settings)
    second.load_state_dict(first.state_dict())
    rows += run(second, 5)
    names = ("rollout/reward/mean", "trainer/loss/mean", "trainer/value/mean", "trainer/kl/mean")
    for row, wanted in zip(rows, expected, strict=True):
        assert [row[n] for n in names] == pytest.approx([wanted[n] for n in names], rel=1e-4, abs=1e-6)


def test_the_critic_warms_up_alone(make_trainer):
    trainer = make_trainer(config=PPOConfig, critic_warmup_steps=1, group_size=32)
    before = [parameter.detach().clone() for parameter in trainer.decoder.parameters()]
    asyncio.run(trainer.step(tasks(2)))
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.decoder.parameters(), strict=True))
    assert trainer._generator.policy_version == 0
    assert trainer.learning.critic.value.weight.abs().max() > 0
    asyncio.run(trainer.step(tasks(2)))
    assert trainer._generator.policy_version == 1


def test_minibatches_are_whole_groups_in_an_order_of_each_epoch(make_trainer):
    trainer = make_trainer(num_minibatches=3, num_tasks=6, group_size=4)
    rollouts = asyncio.run(trainer.collect(tasks(6)))
    experience = SimpleNamespace(documents=[(object(),)] * len(rollouts.trajectories))
    orders = [trainer._minibatches(rollouts.trajectories, experience, epoch) for epoch in range(3)]
    for parts in orders:
        assert sorted(index for part in parts for index in part) == list(range(24))
        assert [len(part) for part in parts] == [8, 8, 8]
        groups = [{rollouts.trajectories[index].group_id for index in part} for part in parts]
        assert sum(len(one) for one in groups) == 6  # no group is in two of them
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == trainer._minibatches(rollouts.trajectories, experience, 0)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_an_update_scores_at_the_temperature_of_sampling(make_trainer, make_decoder, temperature):
    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    with torch.no_grad():
        decoder.head.weight.mul_(4.0)  # a sharp distribution: a wrong temperature would show
    correction = {"kind": "truncate"}
    trainer = make_trainer(decoder=decoder, temperature=temperature, group_size=64, correction=correction)
    metrics = asyncio.run(trainer.step(tasks(2))).metrics
    assert metrics["trainer/mismatch/max"] < 1e-4  # of the weights before the step
    assert metrics["trainer/ratio/mean"] == pytest.approx(1.0, abs=1e-4)  # and of the step itself


def test_what_a_step_learns_from_is_scored_once_before_its_first_update(make_trainer):
    trainer = make_trainer(num_epochs=2, num_minibatches=2, num_tasks=4, group_size=64, correction={"kind": "truncate"})
    rollouts = asyncio.run(trainer.collect(tasks(4)))
    asked = []
    columns = trainer.learning.columns
    trainer.learning.columns = lambda packs: asked.append(trainer.learning.optimizer.num_updates) or columns(packs)
    assert trainer.update(rollouts.trajectories)["trainer/updates/count"] == 4
    assert asked == [0]


def test_the_divisor_of_dr_grpo_is_of_the_minibatchs_own_episodes(make_trainer):
    trainer = make_trainer(config=DrGRPOConfig, num_minibatches=2, num_tasks=4, group_size=64, length=10)
    rollouts = asyncio.run(trainer.collect(tasks(4)))
    seen = []
    step = trainer.learning.step
    trainer.learning.step = lambda packs, **more: seen.append(more["divisor"]) or step(packs, **more)
    metrics = trainer.update(rollouts.trajectories)
    num_trained = 64 * (4 - metrics["trainer/groups_uniform/count"])
    assert len(seen) == 2
    assert sum(seen) == 10.0 * num_trained  # over its minibatches, each episode once
    assert all(divisor < 10.0 * num_trained for divisor in seen)


def test_a_critic_learns_by_its_own_settings(make_trainer):
    critic = {"kind": "head", "optim": {"lr": 0.25}}
    trainer = make_trainer(config=PPOConfig, critic=critic, optim=OptimConfig(lr=1e-5))
    assert trainer.learning.critic_optimizer.config.lr == 0.25
    assert trainer.learning.optimizer.config.lr == 1e-5


def test_steps_that_taught_nothing_count_on_after_a_resume(make_trainer):
    first = make_trainer(tasks=tasks(2), max_useless_steps=3, faults=["sandbox"] * 999, retries=0, group_size=2)
    asyncio.run(first.run(2))
    second = make_trainer(tasks=tasks(2), max_useless_steps=3, faults=["sandbox"] * 999, retries=0, group_size=2)
    second.load_state_dict(first.state_dict())
    with pytest.raises(TrainingError, match="3 steps in a row"):
        asyncio.run(second.run(9))
    assert second.num_steps == 3


def test_the_reference_stays_what_it_was(make_trainer):
    trainer = make_trainer(kl={"coef": 0.1}, group_size=64)
    before = {name: weight.clone() for name, weight in trainer.learning.reference.state_dict().items()}
    asyncio.run(trainer.step(tasks(2)))
    assert trainer._generator.policy_version == 1
    after = trainer.learning.reference.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = trainer.decoder.state_dict()
    assert any(not torch.equal(before[name], moved[name]) for name in before)
