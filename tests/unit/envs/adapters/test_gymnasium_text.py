"""Plain Gymnasium environments as ours, and Gymnasium's wrappers around ours."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

import asyncio

import gymnasium
import numpy as np
import pytest

import verigym.envs  # noqa: F401
from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.adapters.gymnasium_text import GymnasiumText, number_in
from verigym.envs.adapters.wrapped import wrapped
from verigym.envs.core import CutOff, ToolEnv
from verigym.envs.registry.check import check_environment
from verigym.envs.registry.ids import make_env
from verigym.envs.sandbox.background import run_sync
from verigym.envs.task import Task
from verigym.errors import ConfigError
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.rewards.rubric import Rubric, part
from verigym.rewards.score import Score

WAY = ("2", "2", "1", "1", "1", "2")  # right, right, down, down, down, right


def lake(**kwargs):
    """FrozenLake without slipping, as a game of numbers."""
    return GymnasiumText(
        "FrozenLake-v1",
        make_options={"is_slippery": False},
        render=lambda square: f"You are on square {square} of a 4 x 4 lake.",
        about="Reach square 15. 0 is left, 1 down, 2 right, 3 up.",
        num_tasks=3,
        gold=lambda task: WAY,
        **kwargs,
    )


def episode(env, texts, task=None):
    policy = ScriptedPolicy(play([Message(role="assistant", content=text) for text in texts]))
    task = task or env.load()[0]
    return asyncio.run(rollout(env, policy, task, budget=Budget(), sampling=Sampling()))


def test_each_message_is_an_action_and_rewards_are_those_of_the_environment():
    found = episode(lake(), WAY)
    assert (found.reward, found.passed, found.ending) == (1.0, True, "answered")
    assert found.turn_rewards == (0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    assert found.messages[0].content.startswith("Reach square 15.")
    assert found.messages[2].content == "You are on square 1 of a 4 x 4 lake."
    own = gymnasium.make("FrozenLake-v1", is_slippery=False)
    own.reset(seed=0)
    assert sum(own.step(int(text))[1] for text in WAY) == found.reward


def test_a_wrong_way_fails_and_what_cannot_be_read_is_answered():
    found = episode(lake(), ("east", "9", "I go 2, then 1"))
    assert found.messages[2].content == found.messages[4].content == "error: answer with a whole number from 0 to 3"
    assert found.messages[6].content == "You are on square 4 of a 4 x 4 lake."  # the last number counts
    found = episode(lake(), ("2", "1"))  # into a hole
    assert (found.reward, found.passed, found.ending) == (0.0, False, "answered")


def test_it_holds_what_every_environment_must(monkeypatch):
    from verigym.envs.registry import check

    monkeypatch.setattr(check, "NUM_EPISODES", 5)
    findings = asyncio.run(check_environment(lake, lake().load()))
    assert [one for one in findings if not one.passed] == []


def test_spaces_that_no_text_names_need_a_reader():
    assert number_in(gymnasium.spaces.Text(10))("a 3") == "a 3"
    assert number_in(gymnasium.spaces.Discrete(3, start=-1))("-1") == -1
    with pytest.raises(TypeError, match="read=function"):
        number_in(gymnasium.spaces.Box(0, 1))

    class Continuous(gymnasium.Env):
        action_space = gymnasium.spaces.Box(0.0, 1.0)
        observation_space = gymnasium.spaces.Box(0.0, 1.0)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.float32(0.5), {}

        def step(self, action):
            return action, 0.5, True, False, {"is_success": bool(action > 0.5)}

    env = GymnasiumText(Continuous, read=lambda text: np.float32(float(text)))
    found = episode(env, ["0.75"], Task(id="t", family="gymnasium", prompt="", hidden={}))
    assert (found.reward, found.passed) == (0.5, True)
    found = episode(env, ["much", "0.25"], Task(id="t", family="gymnasium", prompt="", hidden={}))
    assert (found.passed, found.messages[2].content) == (False, "error: could not convert string to float: 'much'")


# Wrappers.


class Shout(gymnasium.ObservationWrapper):
    def observation(self, observation):
        return observation.upper()


class Half(gymnasium.RewardWrapper):
    def reward(self, reward):
        return reward / 2


def test_wrappers_change_what_is_seen_and_what_is_earned():
    env = wrapped(make_env("verigym/Math-v0"), [gymnasium_name(Shout), {"wrapper": gymnasium_name(Half)}])
    task = env.load()[0]
    found = episode(env, ["\\boxed{42}"], task)
    assert (found.reward, found.passed, found.ending) == (0.5, True, "answered")
    assert found.messages[1].content == "WHAT IS $17 + 25$?"
    turns = wrapped(lake(), [gymnasium_name(Half)])
    found = episode(turns, WAY)
    assert (found.reward, found.turn_rewards) == (0.5, ())  # all of it at the end


def gymnasium_name(cls):
    """MODULE:CLASS of a class of this file, which no import system knows."""
    setattr(gymnasium.wrappers, cls.__name__, cls)
    return f"gymnasium.wrappers:{cls.__name__}"


@pytest.fixture(autouse=True)
def forget():
    yield
    for cls in (Shout, Half, Broken):
        if hasattr(gymnasium.wrappers, cls.__name__):
            delattr(gymnasium.wrappers, cls.__name__)


def test_a_wrapper_may_end_an_episode():
    env = wrapped(lake(), [{"wrapper": "gymnasium.wrappers:TimeLimit", "max_episode_steps": 2}])
    found = episode(env, WAY)
    assert (found.ending, found.reward, found.num_turns) == ("turn_limit", 0.0, 2)


class Broken(gymnasium.RewardWrapper):
    def reward(self, reward):
        return float("nan")


@pytest.mark.parametrize("env", [lake, lambda: make_env("verigym/Math-v0")])
def test_a_reward_of_a_wrapper_that_is_none_is_a_bug_of_the_step(env):
    found = episode(wrapped(env(), [gymnasium_name(Broken)]), ("2",))
    assert (found.ending, found.reward, found.failed_in) == ("environment_failure", None, "step")


def test_what_a_wrapped_environment_says_of_others_is_kept():
    class Duel(ToolEnv):
        reward_bounds = (-1.0, 1.0)
        rubric = Rubric(lambda submission: True, compare=[part(lambda episodes: [1.0] * len(episodes), name="alike")])

        def score(self, task, submission):
            return Score(value=0.5, passed=True, bounds=(-1.0, 1.0), others={"rival": -0.5})

        def unfinished(self, task):
            return self.cut_off

    task = Task(id="t", family="duel", prompt="?")
    env = wrapped(Duel(), [gymnasium_name(Shout)])
    env.reset(options={"task": task})
    assert env.step("x")[4]["score"].others == {"rival": -0.5}
    assert env.compares
    assert asyncio.run(wrapped(Duel(), [gymnasium_name(Shout)]).acompare(task, [1, 2])) == [{"alike": 0.5}] * 2
    env.reset(options={"task": task})
    env.cut_off = CutOff("half a wo")
    assert run_sync(env.afinish()).value == 0.5  # what was cut off is handed in
    env.reset(options={"task": task})
    assert run_sync(env.afinish()).value == 0.0


def test_a_wrapper_that_is_none_is_said():
    env = make_env("verigym/Math-v0")
    assert wrapped(env, []) is env
    for name, told in (
        ("gymnasium.wrappers:None_", "no wrapper"),
        ("nonsense", "no wrapper"),
        ("gymnasium:Env", "is no gymnasium.Wrapper"),
    ):
        with pytest.raises(ConfigError, match=told):
            wrapped(env, [name])
    with pytest.raises(ConfigError, match="cannot be made with"):
        wrapped(env, [{"wrapper": "gymnasium.wrappers:TimeLimit", "most": 3}])


def test_vectors_take_every_environment_of_ours():
    class Word(ToolEnv):
        def load(self):
            return [Task(id=str(n), family="w", prompt=f"word {n}") for n in range(9)]

        def reply(self, task, message):
            self.reward(0.25, "said")
            from verigym.envs.core import Submission

            return Submission(value=message) if message == "end" else "go on"

        def score(self, task, submission):
            return 0.5

    gymnasium.register(id="test/Word-v0", entry_point=Word, disable_env_checker=True, order_enforce=False)
    try:
        env = gymnasium.make_vec("test/Word-v0", num_envs=3, vectorization_mode="sync")
        first, _ = env.reset(seed=[1, 1, 2])
        assert first[0] == first[1]
        _, rewards, terminated, _, _ = env.step(("a", "end", "b"))
        assert (list(rewards), list(terminated)) == ([0.25, 0.75, 0.25], [False, True, False])
        env.close()
    finally:
        del gymnasium.registry["test/Word-v0"]
