"""Other speakers of a group's episodes: who they are, whose tokens are trained, and comparisons within a group."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false

import asyncio
import itertools

import pytest
from pydantic import ValidationError

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy, Turn
from verigym.agent.speakers import Seat
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.judge import Judge
from verigym.envs.speakers import other_side
from verigym.envs.task import Task
from verigym.errors import ConfigError
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Completion, Sampling
from verigym.rewards.rubric import Rubric, part
from verigym.rewards.score import Score
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.loops.metrics import rollout_metrics
from verigym.trainer.recipe.algorithms import GRPOConfig
from verigym.trainer.recipe.family import FamilyConfig
from verigym.trainer.sampling.rollouts import Collector, EpisodePlan
from verigym.trainer.sampling.seats import open_seats

TASK = Task(id="t", family="duel", prompt="go")


class Counting:
    """Says 4, 5, 6, 8 in turn, and remembers the prompts."""

    policy_version, max_context = 3, 64

    def __init__(self):
        self.prompts, self.words = [], itertools.cycle((4, 5, 6, 8))

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        self.prompts.append(tuple(prompt_ids))
        tokens = (next(self.words), 0)
        return Completion(token_ids=tokens, logprobs=(-0.5, -0.25), policy_version=(3, 3), finish_reason="stop")


class Duel(ToolEnv):
    """Three words each; who says the larger last one wins."""

    reward_bounds = (-1.0, 1.0)

    def start(self, task):
        self.said = 0

    async def reply(self, task, message):
        self.said += 1
        other = (await self.model("rival").say(other_side(self.transcript))).content
        if self.said == 2:
            return Submission(value=(int(message.split()[0]), int(other.split()[0])))
        return other

    def score(self, task, submission):
        won = 1.0 if submission[0] > submission[1] else -1.0
        return Score(value=won, passed=won > 0, others={"rival": -won}, bounds=(-1.0, 1.0))


def collect(words, seats, env=Duel, size=2, **changes):
    engine = Counting()
    plan = EpisodePlan(make_env=env, budget=Budget(turns=4, tokens=64), turn_tokens=4, seats=seats, **changes)
    policy = TokenPolicy(engine, words.renderer(), words.parser())
    collector = Collector(lambda task: plan, policy, group_size=size, concurrency=1)
    return asyncio.run(collector.collect([TASK], Sampling(seed=1))), engine


def test_the_rivals_tokens_are_not_trained_unless_asked(words):
    found, engine = collect(words, {"rival": Seat()})
    assert [one.speaker for one in found.trajectories] == ["", ""]
    (segment,) = found.trajectories[0].segments
    sampled = [token for token, on in zip(segment.token_ids, segment.loss_mask, strict=True) if on]
    assert sampled == [4, 0, 6, 0]  # the rival said 5 and 8
    assert len(engine.prompts) == 8


def test_a_rival_that_is_trained_has_an_episode_of_its_own(words):
    found, engine = collect(words, {"rival": Seat(train=True)}, unit=True)
    assert [one.speaker for one in found.trajectories] == ["", "", "rival", "rival"]
    own, rival = found.trajectories[0], found.trajectories[2]
    assert (own.reward, rival.reward) == (0.0, 1.0)
    assert (rival.passed, rival.group_id, rival.num_turns, rival.turn_tokens) == (True, "0/t/rival", 2, (2, 2))
    (segment,) = rival.segments
    assert [t for t, on in zip(segment.token_ids, segment.loss_mask, strict=True) if on] == [5, 0, 8, 0]
    # Its second turn goes on from the tokens of the first: nothing is encoded again.
    assert engine.prompts[3][: len(engine.prompts[1]) + 2] == (*engine.prompts[1], 5, 0)
    metrics = rollout_metrics(found)
    assert metrics["rollout/episodes/count"] == 2
    assert (metrics["rollout/reward/mean"], metrics["rollout/reward_duel_rival/mean"]) == (0.0, 1.0)
    assert experience_of(found.trajectories, GRPOConfig()).groups.num_groups == 2


# Comparisons.


def right(submission):
    return submission.split()[0] == "4"


def larger(episodes):
    said = [int(one.messages[-1].content.split()[0]) for one in episodes]
    return [float(value == max(said)) for value in said]


class Compared(ToolEnv):
    rubric = Rubric(right, compare=[part(larger, 3.0)])


def test_a_group_is_compared_once_it_has_ended(words):
    found, _ = collect(words, {}, Compared, size=3, compares=True)
    assert [one.reward for one in found.trajectories] == [0.25, 0.0, 0.75]
    assert found.trajectories[2].breakdown == {"right": 0.0, "larger": 0.75}
    metrics = rollout_metrics(found)
    assert metrics["rollout/part_duel.larger/mean"] == pytest.approx(0.25)
    assert metrics["rollout/part_duel.right/mean"] == pytest.approx(1 / 3)


class Fair:
    async def respond(self, conversation, tools, sampling):
        text = "yes" if conversation[0].content == "Is 5 good?" else "no"
        return Turn(message=Message(role="assistant", content=text), action=text)


def test_a_comparison_may_ask_a_judge_whose_words_are_kept(words):
    good = Judge("Is {said} good?")

    async def judged(episodes, env):
        return [await good(env, said=one.messages[-1].content.split()[0]) for one in episodes]

    env = type("Judged", (ToolEnv,), {"rubric": Rubric(right, compare=[judged])})
    found, _ = collect(words, {"judge": Seat(policy=Fair(), spec="fair")}, env, compares=True)
    assert [one.reward for one in found.trajectories] == [0.5, 0.5]
    (told,) = {tuple(one["answered"] for one in x.evidence["compared"]["judged"]) for x in found.trajectories}
    assert told == ("no", "yes")


def test_a_comparison_that_fails_leaves_no_reward(words, caplog):
    def broken(episodes):
        raise KeyError("which")

    env = type("Broken", (ToolEnv,), {"rubric": Rubric(right, compare=[broken])})
    found, _ = collect(words, {}, env, compares=True)
    assert [(one.ending, one.reward, one.failed_in) for one in found.trajectories] == [
        ("environment_failure", None, "part broken")
    ] * 2
    assert found.num_failed == 2


# What a recipe says.


def family(**fields):
    return FamilyConfig(name="f", env="x/X-v0", **fields)


def test_a_recipe_names_who_has_a_seat():
    models = family(models={"user": "openai:http://h/v1#m", "rival": {"policy": "self", "train": True}}).models
    assert (models["user"].policy, models["user"].train) == ("openai:http://h/v1#m", False)
    seats, close = open_seats(models)
    assert (seats["rival"].policy, seats["rival"].train) == (None, True)
    assert seats["user"].spec == "openai:http://h/v1#m"
    asyncio.run(close())
    with pytest.raises(ValidationError, match="train is of the policy that is trained"):
        family(models={"user": {"policy": "openai:http://h/v1#m", "train": True}})
    with pytest.raises(ConfigError, match="a script plays the agent of one task"):
        open_seats(family(models={"user": "gold"}).models)
    with pytest.raises(ConfigError, match="no policy 'nonsense'"):
        open_seats(family(models={"user": "nonsense"}).models)
