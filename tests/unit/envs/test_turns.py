"""Environments that answer messages, reward turns, ask other speakers and compare episodes."""

# Stand-ins, and what no type allows.
# pyright: reportOptionalMemberAccess=false

import asyncio
import json

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.agent.speakers import Answers, Seat
from verigym.agent.trajectory import Trajectory
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.judge import Judge
from verigym.envs.speakers import other_side
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError, EnvironmentBug, PolicyError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.rubric import Rubric, part
from verigym.rewards.score import Score, verdict

TASK = Task(id="t", family="hunt", prompt="Find 5.", hidden={"number": 5})


def say(content):
    return Message(role="assistant", content=content)


def calls(name, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


class Hunt(ToolEnv):
    """Guess a number: warmer earns 0.1, looking costs 0.1."""

    reward_bounds = (-1.0, 2.0)

    def start(self, task):
        self.best = 10

    def reply(self, task, message):
        guess = int(message)
        off = abs(guess - task.hidden["number"])
        if off == 0:
            return Submission(value=guess, message="found")
        if off < self.best:
            self.best = off
            self.reward(0.1, "warmer")
        return "higher" if guess < task.hidden["number"] else "lower"

    @tool
    def look(self) -> str:
        """Looks."""
        self.reward(-0.1, "look")
        return "it is odd"

    def score(self, task, submission):
        return 1.0


def run(env, messages, **options):
    options = {"budget": Budget(), "sampling": Sampling(seed=1), **options}
    policy = messages if hasattr(messages, "respond") else ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, TASK, **options))


HUNT = [say("9"), calls("look"), say("2"), say("5")]


def test_an_environment_answers_messages_until_it_ends():
    found = run(Hunt(), HUNT)
    assert [(one.role, one.content) for one in found.messages] == [
        ("user", "Find 5."),
        ("assistant", "9"),
        ("user", "lower"),
        ("assistant", ""),
        ("tool", "it is odd"),
        ("assistant", "2"),
        ("user", "higher"),
        ("assistant", "5"),
        ("user", "found"),
    ]
    assert (found.ending, found.passed) == ("answered", False)
    assert found.reward == pytest.approx(1.1)
    assert found.turn_rewards == pytest.approx((0.1, -0.1, 0.1, 1.0))
    assert found.breakdown == pytest.approx({"score": 1.0, "warmer": 0.2, "look": -0.1})


def test_steps_earn_what_the_episode_comes_to():
    env = Hunt()
    env.reset(options={"task": TASK})
    given = [env.step(one)[1] for one in ("9", encode_calls(HUNT[1].calls), "2")]
    observation, reward, terminated, _, info = env.step("5")
    assert [*given, reward] == pytest.approx([0.1, -0.1, 0.1, 1.0])
    assert info["score"].value == pytest.approx(1.1)
    assert (observation, terminated) == ("found", True)


def test_rewards_are_mapped_to_unit_where_asked_and_still_add_up():
    found = run(Hunt(), HUNT, unit=True)
    assert found.reward == pytest.approx(2.1 / 3)
    assert sum(found.turn_rewards) == pytest.approx(found.reward)
    assert found.turn_rewards[:3] == pytest.approx((0.1 / 3, -0.1 / 3, 0.1 / 3))
    plain = run(type("Plain", (Hunt,), {"reply": ToolEnv.reply, "score": lambda *_: -0.5})(), [say("5")], unit=True)
    assert (plain.reward, plain.turn_rewards) == (pytest.approx(0.5 / 3), ())


def test_what_turns_earned_stays_when_a_limit_ends_the_episode():
    found = run(Hunt(), HUNT[:3], budget=Budget(turns=3))
    assert (found.ending, found.reward) == ("turn_limit", pytest.approx(0.1))
    assert found.turn_rewards == pytest.approx((0.1, -0.1, 0.1))


BAD = {
    "not finite": ({"score": lambda *_: float("nan")}, "returned nan"),
    "infinite": ({"score": lambda *_: float("inf")}, "returned inf"),
    "out of bounds": ({"score": lambda *_: 2.5}, "outside [-1, 2]; state what it can be in reward_bounds"),
    "no number": ({"score": lambda *_: "1"}, "returned a str"),
    "a reward that is none": (
        {"start": lambda self, task: None, "score": lambda self, *_: self.reward(float("nan"), "x")},
        "reward 'x' is nan",
    ),
    "a reward before a turn": ({"start": lambda self, task: self.reward(1, "early")}, "before the first turn"),
    "a reward without a name": ({"reply": lambda self, *_: self.reward(1, "")}, "needs a name"),
    "a reply that is none": ({"reply": lambda *_: 3}, "reply failed in task 't': it returned a int"),
    "nothing": ({"reply": ToolEnv.reply, "score": ToolEnv.score}, "define score(), or set rubric"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_reward_is_a_failure_and_never_one(name):
    hooks, told = BAD[name]
    hooks = {"reply": ToolEnv.reply, **hooks}
    found = run(type("Bad", (Hunt,), hooks)(), [say("5")])
    assert (found.ending, found.reward) == ("environment_failure", None)
    assert told in found.detail


def test_a_score_has_the_bounds_that_are_stated():
    assert Score(value=-0.5, passed=False, bounds=(-1.0, 1.0)).value == -0.5
    for bounds, value in (((-1.0, 1.0), 1.5), ((0.0, 1.0), -0.5), ((-1.0, 1.0), float("nan"))):
        with pytest.raises(ValueError, match="outside"):
            Score(value=value, passed=False, bounds=bounds)


# Rubrics.


def right(task, submission):
    return submission == str(task.hidden["number"])


async def short(submission):
    return 1.0 / len(submission)


def polite(messages, env):
    return env.manners


def longest(task, episodes):
    sizes = [len(one.messages[-1].content) for one in episodes]
    return [float(size == max(sizes)) for size in sizes]


class Rated(ToolEnv):
    rubric = Rubric(right, part(short, 0.5), part(polite, 0.0), compare=[part(longest, 0.5)])
    manners = 0.25


def test_a_rubric_is_the_weighted_mean_of_its_parts():
    found = run(Rated(), [say("5")])
    assert found.reward == pytest.approx((1.0 + 0.5 * 1.0) / 2.0)
    assert found.passed is True
    assert found.breakdown == {"right": 1.0, "short": 1.0, "polite": 0.25}
    found = run(Rated(), [say("five")])
    assert (found.reward, found.passed) == (pytest.approx(0.5 * 0.25 / 2.0), False)


def test_a_rubric_compares_a_group():
    episodes = [run(Rated(), [say(text)]) for text in ("5", "five!")]
    env = Rated()
    assert asyncio.run(env.acompare(TASK, episodes)) == [{"longest": 0.0}, {"longest": 0.25}]
    assert env.compares
    assert not Hunt().compares


def test_a_rubric_says_what_is_wrong_with_it():
    for wrong, told in (
        (lambda: Rubric(), "a function of one episode"),
        (lambda: Rubric(right, right), "give each its own"),
        (lambda: Rubric(part(right, 0.0)), "every weight is 0"),
        (lambda: Rubric(right, passed="short"), "must be one of right"),
    ):
        with pytest.raises(ValueError, match=told):
            wrong()
    out = type("Out", (Rated,), {"manners": 1.5})
    assert "part 'polite' is 1.5; a number within [0, 1]" in run(out(), [say("5")]).detail
    broken = type("Broken", (ToolEnv,), {"rubric": Rubric(part(lambda submission: 1 / 0, name="quotient"))})
    assert run(broken(), [say("5")]).failed_in == "part quotient"
    few = type("Few", (Rated,), {"rubric": Rubric(right, compare=[part(lambda episodes: [1.0], name="few")])})
    with pytest.raises(EnvironmentBug, match="must return a number for each"):
        asyncio.run(few().acompare(TASK, [None, None]))


def test_a_penalty_needs_its_bounds_stated():
    penalized = type("Penalized", (ToolEnv,), {"rubric": Rubric(right, part(short, -1.0))})
    assert penalized.rubric.bounds == (-0.5, 0.5)
    found = run(penalized(), [say("x")])
    assert "outside [0, 1]; state what it can be in reward_bounds" in found.detail
    penalized.reward_bounds = (-0.5, 0.5)
    assert run(penalized(), [say("x")]).reward == -0.5


# Other speakers.


class Echoing:
    """Says what it was asked last, and remembers what it saw."""

    def __init__(self, *answers):
        self.answers, self.seen, self.samplings = list(answers), [], []

    async def respond(self, conversation, tools, sampling):
        from verigym.agent.policy import Turn

        self.seen.append([(one.message if isinstance(one, Turn) else one).content for one in conversation])
        self.samplings.append(sampling)
        answer = self.answers.pop(0) if self.answers else f"user {len(self.seen)}"
        if isinstance(answer, Exception):
            raise answer
        message = Message(role="assistant", content=answer)
        return Turn(message=message, action=answer)


class Talk(ToolEnv):
    """A simulated user, who ends the talk with STOP."""

    async def reply(self, task, message):
        said = await self.model("user").say(other_side(self.transcript, "You want a refund."))
        return Submission(value=message) if "STOP" in said.content else said.content

    def score(self, task, submission):
        return verdict(submission == "done")


def test_a_simulated_user_speaks_through_a_policy():
    user = Echoing("my order is 7", "STOP")
    found = run(Talk(), [say("which order?"), say("done")], seats={"user": Seat(policy=user, temperature=0.5)})
    assert (found.reward, found.ending) == (1.0, "answered")
    assert [one.content for one in found.messages] == ["Find 5.", "which order?", "my order is 7", "done"]
    assert user.seen[1] == ["You want a refund.", "Find 5.", "which order?", "my order is 7", "done"]
    assert user.samplings[0].temperature == 0.5
    assert user.samplings[0].seed != user.samplings[1].seed
    assert found.companions == ()


def test_a_speaker_that_fails_is_the_infrastructure():
    found = run(Talk(), [say("hello")], seats={"user": Seat(policy=Echoing(PolicyError("the server is gone")))})
    assert (found.ending, found.reward) == ("policy_failure", None)


def test_an_empty_seat_is_said_with_its_remedy_or_filled_by_a_stand_in():
    with pytest.raises(ConfigError, match=r"Talk asks the model 'user'.*--model user=SPEC"):
        run(Talk(), [say("hello")])
    filled = type("Filled", (Talk,), {"stand_in": lambda self, name, messages: f"STOP {name}"})
    assert run(filled(), [say("done")]).reward == 1.0


class Judged(ToolEnv):
    kind = Judge("Is <answer>{answer}</answer> kind? Say yes or no. {unknown}")

    async def score(self, task, submission):
        return await self.kind(self, answer=submission)


def test_a_judges_answer_is_kept_with_the_episode_and_asked_once(tmp_path):
    judge = Echoing("I would say no, but then: Yes.", "no")
    seats = {"judge": Seat(policy=judge, spec="openai:x#y", answers=Answers(tmp_path / "answers.jsonl"))}
    found = run(Judged(), [say("{answer} yes")], seats=seats)
    asked = "Is <answer>{answer} yes</answer> kind? Say yes or no. {unknown}"
    told = {"judge": "judge", "asked": asked, "answered": "I would say no, but then: Yes.", "worth": 1.0}
    assert found.evidence == {"judged": [told]}
    assert Trajectory.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert judge.samplings[0].temperature == 0.0
    again = run(
        Judged(),
        [say("{answer} yes")],
        seats={"judge": Seat(policy=judge, spec="openai:x#y", answers=Answers(tmp_path / "answers.jsonl"))},
    )
    assert (again.reward, len(judge.seen)) == (1.0, 1)
    assert run(Judged(), [say("{answer} yes")], seats={"judge": Seat(policy=judge, spec="another")}).reward == 0.0


@pytest.mark.parametrize("cut", [1, 20])
def test_a_file_of_answers_that_a_kill_cut_off_is_gone_on_with(tmp_path, cut):
    """The answer that was being written is asked for again where half of it is there; the others are not."""
    file, judge = tmp_path / "answers.jsonl", Echoing("yes", "no", "no", "no")

    def rewards(*submissions):
        seats = {"judge": Seat(policy=judge, answers=Answers(file))}
        return [run(Judged(), [say(one)], seats=seats).reward for one in submissions]

    assert rewards("a", "b") == [1.0, 0.0]
    file.write_bytes(file.read_bytes()[:-cut])
    assert rewards("a", "b", "c") == [1.0, 0.0, 0.0]
    assert len(judge.seen) == (4 if cut > 1 else 3)
    judge.answers = []
    assert rewards("a", "b", "c") == [1.0, 0.0, 0.0]


def test_a_judge_that_does_not_answer_is_no_score():
    judge = Echoing("perhaps", "it is nothing", "yes")
    found = run(Judged(), [say("hm")], seats={"judge": Seat(policy=judge)})
    assert (found.ending, found.reward) == ("grader_failure", None)
    assert "said none of yes, no in 2 answers" in found.detail
    assert len(judge.seen) == 2
    # Of what said nothing nothing is kept: the next attempt asks anew.
    seats = {"judge": Seat(policy=Echoing("perhaps", "it is nothing", "yes"))}
    assert [run(Judged(), [say("hm")], seats=seats).reward for _ in range(2)] == [None, 1.0]


def test_a_question_that_is_asked_twice_at_once_is_asked_once():
    class Slow(Echoing):
        async def respond(self, conversation, tools, sampling):
            await asyncio.sleep(0.01)
            return await super().respond(conversation, tools, sampling)

    judge = Slow("yes", "no", "no", "no")
    seats = {"judge": Seat(policy=judge)}
    episode = {"budget": Budget(), "sampling": Sampling(), "seats": seats}

    async def both():
        return await asyncio.gather(
            *(rollout(Judged(), ScriptedPolicy(play([say("hm")])), TASK, **episode) for _ in range(4))
        )

    assert [one.reward for one in asyncio.run(both())] == [1.0] * 4
    assert len(judge.seen) == 1
