"""Sampling ahead: every prompt is accounted for once, groups are atomic, the lag stays under its cap."""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.task import Task
from verigym.errors import PolicyError, TrainingError
from verigym.model.chat.sampling import Completion
from verigym.trainer.loops import groups
from verigym.trainer.loops.asynchronous import AsyncRL
from verigym.trainer.loops.groups import Group
from verigym.trainer.recipe.algorithms import AsyncConfig, DAPOConfig, GRPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.sampling.rollouts import EpisodePlan, Rollouts, TaskStream


class SlowEngine:
    """Answers after a random time with a 9 or a 4, a token of each version that it lived through; now and then it
    fails."""

    max_context = 48

    def __init__(self, seed, failures=0.0, slow=0.02):
        self.policy_version, self.failures, self.slow = 0, failures, slow
        self.rng = random.Random(seed)
        self.modes = []

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        first = self.rng.choice((9, 4))
        versions = [self.policy_version]
        await asyncio.sleep(self.rng.random() * self.slow)
        if self.rng.random() < self.failures:
            raise PolicyError("the server is gone")
        versions.append(self.policy_version)
        return Completion(
            token_ids=(first, 0), logprobs=(-2.7, -2.7), policy_version=tuple(versions), finish_reason="stop"
        )

    def update_weights(self, version, load=None, *, on_weight_update=None):
        assert version >= self.policy_version
        self.modes.append(on_weight_update)
        self.policy_version = version


class FirstIsLast(SlowEngine):
    """Keeps its first answer back until the weights are another version: the first group ends after an update."""

    def __init__(self, seed):
        super().__init__(seed)
        self.updated = None

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        if self.updated is None:
            self.updated = asyncio.Event()
            await self.updated.wait()
        return await super().generate(prompt_ids, sampling, stop_token_ids)

    def update_weights(self, version, load=None, *, on_weight_update=None):
        super().update_weights(version, load, on_weight_update=on_weight_update)
        self.updated.set()


def until(holds, seconds=60.0):
    """Wait on a thread of its own, while the loop goes on."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def tasks(count):
    return [Task(id=str(number), family="guess", prompt=f"{number} please") for number in range(count)]


@pytest.fixture
def make(make_decoder, words):
    def make(engine, *, count=9, config=GRPOConfig, max_lag=1, seed=0, order="started", **changes):
        plan = EpisodePlan(make_env=words.env, budget=Budget(turns=2, tokens=64, seconds=30), turn_tokens=4)
        options = {"num_tasks": 2, "group_size": 4, "microbatch_tokens": 256, "concurrency": 12, **changes}
        return AsyncRL(
            make_decoder(vocab_size=16, max_position_embeddings=64),
            engine,
            TokenPolicy(engine, words.renderer(), words.parser()),
            lambda task: plan,
            config=config(**options),
            asynchronous=AsyncConfig.model_validate({"max_lag": max_lag, "order": order}),
            optim=OptimConfig(lr=1e-3),
            tasks=TaskStream(tasks(count), seed=seed),
            seed=seed,
        )

    return make


def check(steps, group_size, max_lag):
    """Groups are whole, no lag is above the cap, and a group is trained once."""
    seen, current = Counter(), 0
    for result in steps:
        groups = Counter(one.group_id for one in result.trajectories)
        assert set(groups.values()) == {group_size}
        seen.update(groups.keys())
        assert result.metrics["trainer/lag/max"] <= max_lag
        for one in result.trajectories:
            for segment in one.segments:
                sampled = [version for version in segment.policy_version if version >= 0]
                assert all(current - max_lag <= version <= current for version in sampled)
        current += result.metrics["trainer/updates/count"] > 0
    assert set(seen.values()) <= {1}
    return seen


@given(
    seed=st.integers(0, 2**31),
    max_lag=st.integers(1, 3),
    failures=st.sampled_from([0.0, 0.2]),
    stops=st.lists(st.integers(1, 4), max_size=3),
    order=st.sampled_from(["started", "ended"]),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_every_prompt_is_accounted_for_through_failures_and_resumes(make, words, seed, max_lag, failures, stops, order):
    engine = SlowEngine(seed, failures)
    trainer = make(engine, max_lag=max_lag, seed=seed, order=order)
    steps, done = [], 0
    for more in [*stops, 9 - sum(stops) if sum(stops) < 9 else 1]:
        done += more

        def watch(result, done=done, trainer=trainer):
            steps.append(result)
            if result.step == done:
                trainer.stop()

        asyncio.run(trainer.run(20, on_step=watch))
        assert words.env.open_count == 0
        assert trainer.num_steps == done
        state = trainer.state_dict()
        trainer = make(engine, max_lag=max_lag, seed=seed, order=order)
        trainer.load_state_dict(state)
    trained = check(steps, 4, max_lag)
    counts = trainer.counts
    assert counts["trained"] == len(trained) == 2 * done
    # Every task that the stream gave out was trained, was dropped with a reason, waits ended, or is to be run again.
    num_taken = trainer._source.position
    dropped = sum(number for name, number in counts.items() if name.startswith("dropped"))
    assert num_taken == counts["trained"] + dropped + len(trainer._ready) + len(trainer._again)
    # Each comes once an epoch: of any task at most one more group than of any other was begun.
    begun = Counter(group.split("/")[1] for group in trained)
    if not dropped:
        begun.update(group.task.id for group in trainer._ready)
        begun.update(task.id for task in trainer._again)
        assert max(begun.values()) - min(begun.get(str(number), 0) for number in range(9)) <= 1


def test_sampling_goes_on_while_an_update_runs_but_not_beyond_the_cap(make):
    engine = SlowEngine(1, slow=0.001)
    trainer = make(engine, max_lag=2, concurrency=64)
    # In the first update: 2 groups are trained on, and 2 x 2 more wait for the two steps after it.
    ahead, expected = [], [6, 6, 6, 4, 2]

    async def main():
        original = trainer.learn

        def learn(trajectories, said):
            until(lambda: trainer._num_open >= expected[len(ahead)] and not trainer._running)
            time.sleep(0.05)  # for one more to begin that may not
            ahead.append(trainer._num_open)
            return original(trajectories, said)

        trainer.learn = learn
        steps = []
        await trainer.run(5, on_step=steps.append)
        return steps

    steps = asyncio.run(main())
    check(steps, 4, 2)
    assert ahead == expected
    assert max(result.metrics["trainer/lag/max"] for result in steps) == 2
    assert engine.modes[0] == "keep"


def test_groups_are_trained_in_the_order_of_their_starts_unless_asked_otherwise(make):
    def numbers(order, engine):
        steps = []
        asyncio.run(make(engine, max_lag=3, order=order).run(8, on_step=steps.append))
        return [int(one.group_id.split("/")[0]) for result in steps for one in result.trajectories[::4]]

    assert numbers("started", SlowEngine(4)) == list(range(16))
    ended = numbers("ended", FirstIsLast(4))
    assert 0 in ended[2:]
    assert sorted(ended) != ended


@pytest.mark.parametrize(
    ("version", "late", "reason"), [(3, 0, None), (2, 0, None), (1, 0, "stale"), (None, 0, None), (3, 1, "late")]
)
def test_why_a_group_is_dropped(make, make_segment, make_trajectory, version, late, reason):
    trainer = make(SlowEngine(0), max_lag=1)
    trainer._engine.policy_version = 3
    sampled = [1, 1] if version is not None else [0, 0]
    segment = make_segment([1, 2], sampled, [-1.0, -1.0], version=-1 if version is None else version)
    rollouts = Rollouts(trajectories=(make_trajectory(segment),), num_late=late)
    assert trainer._reason_to_drop(Group(number=0, task=tasks(1)[0], rollouts=rollouts)) == reason


def test_what_has_become_too_old_is_dropped_and_replaced(make):
    engine = SlowEngine(1, slow=0.001)
    trainer = make(engine)
    first = asyncio.run(_one(trainer))
    assert first.metrics["trainer/lag/max"] == 0
    engine.policy_version += 5  # as if many updates had come from elsewhere
    asyncio.run(_one(trainer))
    assert trainer.counts["dropped_stale"] > 0
    assert trainer.counts["trained"] == 4


async def _one(trainer):
    steps = []

    def watch(result):
        steps.append(result)
        until(lambda: trainer._ready)  # a group has ended that the next step would take
        trainer.stop()

    await trainer.run(99, on_step=watch)
    trainer.stopping = False
    return steps[0]


def test_uniform_groups_are_replaced_with_dynamic_sampling(make):
    trainer = make(SlowEngine(2, slow=0.001), config=DAPOConfig, group_size=2, count=40)
    steps = []
    asyncio.run(trainer.run(8, on_step=steps.append))
    assert trainer.counts["dropped_uniform"] > 0
    assert all(result.metrics["trainer/groups_uniform/count"] == 0 for result in steps)


def test_a_run_whose_environment_always_fails_ends_with_the_reason(make, words):
    trainer = make(SlowEngine(3, failures=1.0), retries=0, max_useless_steps=2)
    with pytest.raises(TrainingError, match=r"all 8 episodes failed .*the server is gone"):
        asyncio.run(trainer.run(9))
    assert words.env.open_count == 0


def test_a_group_that_something_within_cancels_ends_the_run(make):
    class Cancelled(SlowEngine):
        async def generate(self, prompt_ids, sampling, stop_token_ids):
            waited = asyncio.get_running_loop().create_future()
            waited.cancel()
            await waited

    with pytest.raises(TrainingError, match="was cancelled from within"):
        asyncio.run(asyncio.wait_for(make(Cancelled(0)).run(3), 60))


def test_a_run_all_of_whose_groups_are_dropped_ends_with_the_reason(make, words):
    class Same(SlowEngine):
        async def generate(self, prompt_ids, sampling, stop_token_ids):
            found = await super().generate(prompt_ids, sampling, stop_token_ids)
            return replace(found, token_ids=(4, 0))

    # Groups that end together are dropped together, so that there can be a few more than 12.
    trainer = make(Same(3, slow=0.001), config=DAPOConfig, max_useless_steps=2, sampling_rounds=3)
    with pytest.raises(
        TrainingError, match=r"no step after (1[2-9]) dropped groups.*max_useless_steps = 2 .*\1 dropped_unif"
    ):
        asyncio.run(asyncio.wait_for(trainer.run(9), timeout=120))
    assert words.env.open_count == 0


def test_stop_ends_a_wait_for_episodes(make, words):
    trainer = make(SlowEngine(3, slow=600.0))

    async def main():
        run = asyncio.create_task(trainer.run(9))
        await asyncio.sleep(0.05)
        trainer.stop()
        await asyncio.wait_for(run, timeout=60)

    asyncio.run(main())
    assert words.env.open_count == 0
    assert len(trainer._again) > 0


def test_what_is_written_of_a_step_keeps_no_episode_waiting(make, monkeypatch):
    """Metrics, episodes and the state are written on another thread than the one that all episodes share; the state
    is that of the step's end, whatever goes on meanwhile; and a group's tokens are gone through once."""
    engine = SlowEngine(3, slow=0.001)
    trainer = make(engine, max_lag=2, concurrency=64)
    written, looked = [], Counter()

    def to_json(group, before=Group.to_json):
        written.append(threading.get_ident())
        return before(group)

    def oldest(trajectories, before=groups._oldest):
        looked[trajectories[0].group_id] += 1
        return before(trajectories)

    monkeypatch.setattr(Group, "to_json", to_json)
    monkeypatch.setattr(groups, "_oldest", oldest)

    def on_step(result):
        written.append(threading.get_ident())
        sampled = trainer.counts["sampled"]
        while trainer.counts["sampled"] == sampled and trainer._running:
            time.sleep(0.001)  # until a group has ended while this is written
        state = trainer.state_dict()
        gone = [count for name, count in state["counts"].items() if name == "trained" or name.startswith("dropped")]
        assert state["num_started"] == len(state["again"]) + len(state["ready"]) + sum(gone)
        assert state["cursor"]["position"] == state["num_started"]

    asyncio.run(trainer.run(3, on_step=on_step))
    assert threading.get_ident() not in written
    assert len(written) >= 3
    assert set(looked.values()) == {1}
    saved = trainer.state_dict()
    again = make(engine, max_lag=2, concurrency=64)
    again.load_state_dict(saved)
    assert again._ready == trainer._ready
    for row in saved["ready"]:  # as 0.1 saved them
        row["trajectories"] = [json.loads(one) for one in row["trajectories"]]
    again.load_state_dict(saved)
    assert again._ready == trainer._ready
