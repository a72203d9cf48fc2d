"""The loop: every ending, every budget, and that nothing stays open whatever happens."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportCallIssue=false

import asyncio
import logging
from dataclasses import replace

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, TokenPolicy, Turn, play
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ChatFormatError, PolicyError, TaskError
from verigym.model.chat.actions import encode_calls, encode_format_error
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import Score

BUDGET = Budget(turns=3, tokens=1000, seconds=30)


def say(content):
    return Message(role="assistant", content=content)


def use(name, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def run(env, policy, task, *, budget=BUDGET, sampling=None, **kwargs):
    if not hasattr(policy, "respond"):
        policy = ScriptedPolicy(play(policy))
    return asyncio.run(rollout(env, policy, task, budget=budget, sampling=sampling or Sampling(), **kwargs))


class Aborted:
    async def respond(self, conversation, tools, sampling):
        return Turn(message=say("go"), action="go", finish_reason="abort")


class Cut:
    """Its first turn keeps something good, the second is cut off by its length."""

    async def respond(self, conversation, tools, sampling):
        first = not any(isinstance(entry, Turn) for entry in conversation)
        action = encode_calls([ToolCall(name="keep", arguments={"what": "good"})])
        return Turn(message=say("..."), action=action, finish_reason="stop" if first else "length")


def tool_that(error):
    @tool
    def keep(self, what: str) -> str:
        """Keeps something."""
        raise error

    return keep


KEEP = use("keep", what="good")
# what the environment is like, the policy, the ending, the reward, turns
ENDINGS = {
    "answered": ({}, [say("good")], "answered", 1.0, 1),
    "answered wrongly": ({}, [say("bad")], "answered", 0.0, 1),
    "submitted": ({}, [KEEP, use("submit")], "submitted", 1.0, 2),
    "the budget's turns": ({}, [use("keep", what="x")] * 9, "turn_limit", 0.0, 3),
    "the environment's turns": ({"max_turns": 2}, [KEEP] * 9, "turn_limit", 1.0, 2),
    "a turn cut off": ({}, Cut(), "token_limit", 1.0, 2),
    "time in a tool": ({"slow": "tool"}, [KEEP], "wall_clock", 1.0, 1),
    "time at the start": ({"slow": "start"}, [say("good")], "wall_clock", 0.0, 0),
    "start fails": ({"fault": "start"}, [say("good")], "sandbox_failure", None, 0),
    "a tool fails": ({"fault": "tool"}, [KEEP], "sandbox_failure", None, 1),
    "grading fails": ({"fault": "score"}, [say("good")], "grader_failure", None, 1),
    "grading of what is unfinished fails": ({"fault": "score"}, [KEEP] * 9, "grader_failure", None, 3),
    "an aborted turn": ({}, Aborted(), "policy_failure", None, 1),
    "a script too short": ({}, [KEEP], "policy_failure", None, 1),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(box, task, name):
    """Trap 7. A failure of the infrastructure carries no reward; all that a budget ends is scored."""
    options, policy, ending, reward, num_turns = ENDINGS[name]
    budget = replace(BUDGET, seconds=2.0) if "slow" in options else BUDGET
    found = run(box(**options), policy, task, budget=budget)
    assert (found.ending, found.reward, found.num_turns) == (ending, reward, num_turns)
    assert found.passed is (None if reward is None else reward == 1.0)
    assert found.breakdown == ({} if reward is None else {"passed": reward})
    assert found.is_infrastructure_failure is (reward is None)
    assert found.detail


def test_a_trajectory_says_what_happened(box, task):
    policy = TurnByTurn(
        [encode_format_error("no"), encode_calls([ToolCall(name="keep", arguments={"what": "x"})]), "x"]
    )
    found = run(box(), policy, task, group_id="g")
    assert (found.task_id, found.family, found.group_id) == ("b1", "box", "g")
    assert (found.num_turns, found.num_format_errors, found.detail) == (3, 1, "it is 'x'")
    assert [message.role for message in found.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [message.content for message in found.messages][2::2] == ["format error: no", "kept x"]
    assert set(found.timings) == {"policy", "environment", "grading", "total"}
    assert found.timings["total"] >= sum(found.timings[stage] for stage in ("policy", "environment", "grading"))
    assert run(box(), [say("good")], task).group_id == "b1"


class TurnByTurn:
    def __init__(self, actions):
        self.actions = list(actions)

    async def respond(self, conversation, tools, sampling):
        action = self.actions.pop(0)
        return Turn(message=say(action), action=action)


def test_grading_is_not_on_the_episodes_clock(box, task):
    found = run(box(slow="score", seconds=2.2), [say("good")], task, budget=replace(BUDGET, seconds=2.0))
    assert (found.ending, found.reward) == ("answered", 1.0)
    assert found.timings["grading"] > 2.0


def test_time_that_is_cut_off_counts(box, task):
    found = run(box(slow="tool"), [KEEP], task, budget=replace(BUDGET, seconds=1.5))
    assert found.timings["environment"] > 0.2


def test_a_slow_policy_meets_the_wall_clock(box, task):
    class Slow:
        async def respond(self, conversation, tools, sampling):
            await asyncio.sleep(60)

    found = run(box(), Slow(), task, budget=replace(BUDGET, seconds=1.0))
    assert (found.ending, found.reward, found.num_turns) == ("wall_clock", 0.0, 0)
    assert found.timings["policy"] > 0.1


@pytest.mark.parametrize(
    ("tokens", "ending", "num_turns"), [(8, "answered", 2), (7, "token_limit", 2), (5, "token_limit", 1)]
)
def test_no_context_has_more_tokens_than_the_budget(box, task, letters, tokens, ending, num_turns):
    """BEGIN a b HEADER, "?" STOP, then "format error: no question, please" HEADER and "good" STOP."""
    renderer, parser, engine = letters
    observation = len("format error: no question, please")
    tokens += observation + 4 if tokens > 5 else 0
    policy = TokenPolicy(engine("?.", "good."), renderer(), parser())
    found = run(box(), policy, task, budget=replace(BUDGET, tokens=tokens), sampling=Sampling(max_tokens=50))
    assert found.ending == ending
    assert max(len(segment.token_ids) for segment in found.segments) <= tokens
    assert found.num_turns == num_turns


def test_tokens_and_their_log_probabilities(box, task, letters):
    renderer, parser, engine = letters
    found = run(box(), TokenPolicy(engine("good."), renderer(), parser()), task)
    (segment,) = found.segments
    assert segment.token_ids == (2, 97, 98, 1, *map(ord, "good"), 0)
    assert segment.loss_mask == (False,) * 4 + (True,) * 5
    assert segment.logprobs[4:] == (-0.25, -0.5, -0.75, -1.0, -1.25)
    assert segment.policy_version == (-1,) * 4 + (5,) * 5
    assert segment.roles == ("template", "user", "user", "template", *["assistant"] * 5)
    assert found.reward == 1.0


def test_a_failing_stop_is_recorded_and_never_raised(box, task, caplog):
    with caplog.at_level(logging.WARNING):
        found = run(box(fault="stop"), [say("good")], task)
    box.open = 0  # stop was tried again
    assert (found.ending, found.reward) == ("sandbox_failure", None)
    assert "stop failed" in caplog.text


def test_a_cancelled_episode_closes_its_environment(box, task):
    async def cancel():
        running = asyncio.create_task(
            rollout(box(slow="tool"), ScriptedPolicy(play([KEEP])), task, budget=BUDGET, sampling=Sampling())
        )
        while not box.open:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert box.open == 0

    asyncio.run(cancel())


def raises(error):
    def hook(*_):
        raise error

    return hook


async def not_in_utf8(env, task, submission):
    "\ud83d".encode()


UNFORESEEN = {
    "a policy divides by zero": ({}, raises(ZeroDivisionError("by what")), "policy_failure", "ZeroDivisionError: by"),
    "a format cannot go on": ({}, raises(ChatFormatError("no")), "policy_failure", "no"),
    "a prompt looks up": ({"prompt": raises(KeyError("k"))}, [say("x")], "environment_failure", "KeyError: 'k'"),
    "a tool asserts": ({"keep": tool_that(AssertionError("two\nlines"))}, [KEEP], "environment_failure", "two lines"),
    "a tool exits": ({"keep": tool_that(SystemExit(3))}, [KEEP], "environment_failure", "SystemExit: 3"),
    "a tool's own time-out": ({"keep": tool_that(TimeoutError("own"))}, [KEEP], "environment_failure", "own"),
    "a score encodes": ({"score": not_in_utf8}, [say("x")], "environment_failure", "UnicodeEncodeError"),
    "a score is no number": (
        {"score": lambda *_: Score(value=float("nan"), passed=True)},
        [say("x")],
        "environment_failure",
        "nan",
    ),
    "a score is no score": (
        {"score": lambda *_: float("nan")},
        [say("x")],
        "environment_failure",
        "a finite number is expected",
    ),
    "what is unfinished recurses": (
        {"unfinished": raises(RecursionError("deep"))},
        [KEEP] * 9,
        "environment_failure",
        "dee",
    ),
}


@pytest.mark.parametrize("name", UNFORESEEN)
def test_what_nobody_foresaw_ends_its_episode_alone(box, task, name):
    hooks, policy, ending, told = UNFORESEEN[name]
    broken = type("Broken", (box,), hooks)
    if name == "a format cannot go on":  # after a turn: before it the task itself would be at fault

        def policy(conversation, fails=policy):
            return KEEP if len(conversation) == 1 else fails()

    found = run(broken(), ScriptedPolicy(policy) if callable(policy) else policy, task)
    assert (found.ending, found.reward, found.passed) == (ending, None, None)
    assert told in found.detail
    assert found.is_infrastructure_failure
    assert "\n" not in found.detail
    assert (box.open, broken.open) == (0, 0)


def test_a_close_that_fails_leaves_the_ending(box, task):
    class Stuck(box):
        async def stop(self):
            await super().stop()
            raise AssertionError("stuck")

    assert run(Stuck(), [say("good")], task).ending == "environment_failure"  # it closes before the score counts
    assert run(Stuck(fault="tool"), [KEEP], task).ending == "sandbox_failure"


def test_log_probabilities_that_are_none_are_the_engines_failure(box, task, letters):
    renderer, parser, engine = letters

    class Odd(engine):
        async def generate(self, prompt_ids, sampling, stop_token_ids):
            found = await super().generate(prompt_ids, sampling, stop_token_ids)
            return replace(found, logprobs=(float("nan"),) * len(found.token_ids))

    found = run(box(), TokenPolicy(Odd("good."), renderer(), parser()), task)
    assert (found.ending, found.reward, found.segments) == ("policy_failure", None, ())
    assert "log-probability nan" in found.detail


def test_a_parser_that_raises_has_met_a_format_error(box, task, letters):
    renderer, _, engine = letters

    class Broken:
        def parse(self, text, tools):
            raise RecursionError("too deep")

    found = run(box(), TokenPolicy(engine("x.", "y.", "z."), renderer(), Broken()), task)
    assert (found.ending, found.reward, found.num_format_errors) == ("turn_limit", 0.0, 3)


def test_a_task_that_cannot_be_used_is_raised_and_closes_too(box, task):
    with pytest.raises(TaskError, match="takes 'box'"):
        run(box(), [say("good")], Task(id="m", family="math", prompt=""))
    with pytest.raises(ChatFormatError, match="no system"):
        run(box(), ScriptedPolicy(raises(ChatFormatError("no system message"))), task)
    with pytest.raises(KeyboardInterrupt):
        run(box(), ScriptedPolicy(raises(KeyboardInterrupt())), task)
    assert box.open == 0


def test_a_policy_that_fails_later_keeps_what_was_said(box, task):
    class Gone(TurnByTurn):
        async def respond(self, conversation, tools, sampling):
            if not self.actions:
                raise PolicyError("the server is gone")
            return await super().respond(conversation, tools, sampling)

    found = run(box(), Gone([encode_format_error("x")]), task)
    assert (found.ending, found.detail, found.num_turns, found.reward) == (
        "policy_failure",
        "the server is gone",
        1,
        None,
    )
