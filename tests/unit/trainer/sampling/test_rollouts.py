import asyncio
import threading
import time

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.task import Task
from verigym.model.chat.sampling import Completion, Sampling
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.objective.advantages import group_advantages
from verigym.trainer.recipe.algorithms import GRPOConfig
from verigym.trainer.sampling.rollouts import Collector, EpisodePlan, TaskStream

NINE, FOUR, SEVEN = (9, 0), (4, 0), (7, 0)


class ScriptedEngine:
    """Answers with given tokens, one turn after the other, once ``together`` have asked; None never answers."""

    policy_version = 3
    max_context = 64

    def __init__(self, turns, together=1):
        self.turns, self.together, self.met = list(turns), together, asyncio.Event()
        self.seeds, self.running, self.most_running = [], 0, 0

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        tokens = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        self.seeds.append(sampling.seed)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        if self.running == self.together:
            self.met.set()
        await asyncio.wait_for(self.met.wait(), 60)
        await asyncio.sleep(0.02 if tokens is not None else 60)
        self.running -= 1
        return Completion(
            token_ids=tokens,
            logprobs=(-0.5,) * len(tokens),
            policy_version=(self.policy_version,) * len(tokens),
            finish_reason="stop" if tokens[-1] == 0 else "length",
        )


def run(words, turns, faults=(), *, tasks=None, budget=None, sampling=None, together=1, **options):
    engine = ScriptedEngine(turns, together)
    faults = list(faults)
    plan = EpisodePlan(
        make_env=lambda: words.env(faults.pop(0) if faults else None),
        budget=budget or Budget(turns=2, tokens=64, seconds=60),
        turn_tokens=4,
    )
    settings = {"group_size": 3, "concurrency": 1, "retries": 0, **options}
    policy = TokenPolicy(engine, words.renderer(), words.parser())
    collector = Collector(lambda task: plan, policy, **settings)
    found = asyncio.run(collector.collect(tasks or [words.task], sampling or Sampling(seed=1)))
    assert words.env.open_count == 0
    return found, engine


# what ended the episode -> turns, fault, ending, reward, trained tokens, advantages of (it, a success, a failure)
ENDINGS = {
    "stop": ([NINE], None, "answered", 1.0, 2, (1 / 3, 1 / 3, -2 / 3)),
    "length": ([(9, 4, 4, 4)], None, "token_limit", 0.0, 4, (-1 / 3, 2 / 3, -1 / 3)),
    "turn limit": ([SEVEN, SEVEN], None, "turn_limit", 0.0, 4, (-1 / 3, 2 / 3, -1 / 3)),
    "wall clock": ([None], None, "wall_clock", 0.0, 0, (-1 / 3, 2 / 3, -1 / 3)),
    "sandbox crash": ([], "sandbox", "sandbox_failure", None, 0, (None, 0.5, -0.5)),
    "grader crash": ([NINE], "grader", "grader_failure", None, 0, (None, 0.5, -0.5)),
    "format error": ([SEVEN, NINE], None, "answered", 1.0, 4, (1 / 3, 1 / 3, -2 / 3)),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(words, name):
    turns, fault, ending, reward, num_trained, advantages = ENDINGS[name]
    budget = Budget(turns=2, tokens=64, seconds=2.0) if name == "wall clock" else None
    found, _ = run(words, [*turns, NINE, FOUR], [fault], budget=budget)
    first, success, failure = found.trajectories
    assert (first.ending, first.reward) == (ending, reward)
    assert (success.reward, failure.reward) == (1.0, 0.0)
    assert first.num_format_errors == (1 if name == "format error" else 2 if name == "turn limit" else 0)
    groups = group_advantages(found.trajectories)
    assert groups.values == pytest.approx(advantages)
    made = experience_of(found.trajectories, GRPOConfig())
    assert made.groups == groups
    trained = made.documents[0]
    assert all(one.advantage == pytest.approx(advantages[0]) for one in trained)
    assert sum(int(one.loss_mask.sum()) for one in trained) == num_trained
    sampled = [token for turn in turns if turn is not None for token in turn]
    assert [int(t) for one in trained for t in one.targets[one.loss_mask]] == (sampled if num_trained else [])
    assert found.num_failed == (reward is None)


def test_a_failed_episode_is_tried_again_and_counted(words):
    found, _ = run(words, [NINE], ["sandbox", "grader", None], group_size=1, retries=2)
    assert [one.reward for one in found.trajectories] == [1.0]
    assert (found.num_retries, found.num_failed) == (2, 0)
    found, _ = run(words, [NINE], ["sandbox"] * 3, group_size=2, retries=2)
    assert [one.reward for one in found.trajectories] == [None, 1.0]
    assert (found.num_retries, found.num_failed) == (2, 1)


def test_results_are_in_order_groups_distinct_and_episodes_bounded(words):
    tasks = [words.task, Task(id="other", family="guess", prompt="x"), words.task]
    found, engine = run(words, [NINE], tasks=tasks, group_size=4, concurrency=5, together=5)
    assert [one.group_id for one in found.trajectories] == ["0/nine"] * 4 + ["1/other"] * 4 + ["2/nine"] * 4
    assert engine.most_running == 5
    assert len(set(engine.seeds)) == 12


def test_every_turn_draws_with_a_seed_of_its_own(words):
    def seeds(seed):
        _, engine = run(words, [SEVEN, NINE, SEVEN, NINE], group_size=2, sampling=Sampling(seed=seed))
        return engine.seeds

    first = seeds(1)
    assert len(set(first)) == 4
    assert first == seeds(1) != seeds(2)


def test_a_cancelled_collection_closes_its_environments(words):
    async def main():
        policy = TokenPolicy(ScriptedEngine([None]), words.renderer(), words.parser())
        plan = EpisodePlan(make_env=words.env, budget=Budget(seconds=60))
        task = asyncio.create_task(
            Collector(lambda task: plan, policy, group_size=4, concurrency=3).collect([words.task], Sampling())
        )
        while words.env.open_count < 3:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert words.env.open_count == 0


def test_an_environment_that_is_cancelled_while_it_starts_is_closed_when_it_has(words):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(words.env):
        def start(self, task):
            begun.set()
            go_on.wait(60)
            super().start(task)

    async def main():
        policy = TokenPolicy(ScriptedEngine([None]), words.renderer(), words.parser())
        plan = EpisodePlan(make_env=Slow, budget=Budget(seconds=60))
        collector = Collector(lambda task: plan, policy, group_size=2)
        running = asyncio.create_task(collector.collect([words.task], Sampling()))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        running.cancel()
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await running
        assert Slow.open_count == words.env.open_count == 0

    asyncio.run(main())
    time.sleep(0.3)
    assert Slow.open_count == 0


def test_a_straggler_is_cut_at_the_deadline_and_the_group_stands_if_a_quorum_has_ended(words):
    long = {"budget": Budget(turns=2, tokens=64, seconds=60), "concurrency": 8, "deadline": 3.0}
    turns = [NINE, None, FOUR, NINE]
    found, _ = run(words, turns, quorum=2, **long)
    assert sorted(one.reward for one in found.trajectories) == [0.0, 1.0]  # who asks first gets the first turn
    assert (found.num_cut, found.num_late) == (1, 0)
    found, _ = run(words, turns, **long)
    assert found.trajectories == ()
    assert (found.num_cut, found.num_late) == (1, 1)


def test_each_task_comes_once_an_epoch_also_after_a_resume():
    tasks = [Task(id=str(number), family="guess", prompt="") for number in range(7)]
    stream = TaskStream(tasks, seed=4)
    taken = [task.id for _ in range(4) for task in stream.take(5)]
    epochs = [taken[:7], taken[7:14]]
    assert [sorted(epoch) for epoch in epochs] == [sorted(task.id for task in tasks)] * 2
    assert epochs[0] != epochs[1]
    resumed = TaskStream(tasks, seed=4)
    resumed.load_state_dict(stream.state_dict())
    assert resumed.take(9) == stream.take(9)
    with pytest.raises(ValueError, match="resume with the same"):
        TaskStream(tasks[:3]).load_state_dict(stream.state_dict())
