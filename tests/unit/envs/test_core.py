"""ToolEnv: tools from signatures, how calls are answered, how episodes end, and both of its faces."""

# Stand-ins, and what no type allows.
# pyright: reportAssignmentType=false

import asyncio
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import ToolError, tool
from verigym.errors import EnvironmentBug, GradingError, SandboxError, TaskError
from verigym.model.chat.actions import encode_calls, encode_format_error
from verigym.model.chat.messages import Message, ToolCall
from verigym.rewards.score import Score, verdict

TASK = Task(id="t", family="ledger", prompt="Make it 3.")


class Ledger(ToolEnv):
    """Adds up numbers; the sum must be 3. ``log`` says what was called, ``rented`` what is not given back."""

    family = "ledger"
    system_prompt = "You add."
    rented = 0

    def __init__(self, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.fault = fault
        self.log = []

    def load(self):
        return [TASK, Task(id="u", family="ledger", prompt="Make it 3, too.")]

    async def start(self, task):
        self.log.append(f"start {task.id}")
        type(self).rented += 1
        self.total = 0
        if self.fault == "start":
            raise SandboxError("no room")

    def stop(self):
        self.log.append("stop")
        type(self).rented -= 1

    @tool
    def add(self, number: int, times: int = 1, how: Literal["up", "down"] = "up") -> str:
        """Adds a number
        to the sum.

        More about it.

        Args:
            number: what to add,
                in units: whole ones
            times: how often
        Returns:
            the sum.
        """
        self.total += number * times * (1 if how == "up" else -1)
        return str(self.total)

    @tool
    async def wait(self, seconds: float) -> str:
        """Waits."""
        await asyncio.sleep(seconds)
        return threading.current_thread().name

    @tool
    def where(self) -> str:
        """Says which thread this is."""
        if self.fault == "tool":
            raise ToolError("ask again")
        if self.fault == "sandbox":
            raise SandboxError("the box is gone")
        return threading.current_thread().name

    @tool
    def submit(self, note: str = "") -> Submission:
        """Hands in the sum."""
        return Submission(value=self.total, message=f"handed in{note}")

    def score(self, task, submission):
        if self.fault == "grader":
            raise GradingError("no verdict")
        if self.fault == "type":
            return "1.0"
        return verdict(submission == 3 or submission == "3", f"sum {submission}")

    def unfinished(self, task):
        return self.total or None


@pytest.fixture(autouse=True)
def _nothing_stays_rented():
    Ledger.rented = 0
    yield
    assert Ledger.rented == 0


def call(name, **arguments):
    return encode_calls([ToolCall(name=name, arguments=arguments)])


@pytest.fixture
def env():
    env = Ledger(render_mode="ansi")
    env.reset(options={"task": TASK})
    yield env
    env.close()


# Specifications.


def test_the_specification_is_the_signature_and_the_docstring():
    spec = Ledger().tool_specs[0]
    assert (spec.name, spec.description) == ("add", "Adds a number to the sum.")
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "number": {"type": "integer", "description": "what to add, in units: whole ones"},
            "times": {"type": "integer", "default": 1, "description": "how often"},
            "how": {"type": "string", "enum": ["up", "down"], "default": "up"},
        },
        "required": ["number"],
    }


def test_tools_are_in_order_and_a_subclass_changes_or_drops_them():
    class Other(Ledger):
        wait = None

        @tool
        def add(self, amount: float) -> str:
            """Adds any amount."""
            return ""

        @tool
        def extra(self) -> str:
            """More."""
            return ""

    assert [spec.name for spec in Ledger().tool_specs] == ["add", "wait", "where", "submit"]
    assert [spec.name for spec in Other().tool_specs] == ["add", "where", "submit", "extra"]
    assert list(Other().tool_specs[0].parameters["properties"]) == ["amount"]


def test_parameters_may_have_any_name():
    class Names(ToolEnv):
        @tool
        def echo(self, json: str, _x: int, model_name: str = "m") -> str:
            """Echoes."""
            return f"{json} {_x} {model_name}"

        def score(self, task, submission):
            return verdict(True)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = Names()
    assert list(env.tool_specs[0].parameters["properties"]) == ["json", "_x", "model_name"]
    env.reset(options={"task": TASK})
    assert env.step(call("echo", json="j", _x=1))[0] == "j 1 m"
    assert "json: Field required" in env.step(call("echo", _x=1))[0]


def test_methods_that_cannot_be_tools_are_refused():
    def untyped(self, path):
        """Doc."""

    def undocumented(self, path: str): ...

    def many(self, *paths: str):
        """Doc."""

    for method, told in ((untyped, "'path' has no type"), (undocumented, "no docstring"), (many, "by its name")):
        with pytest.raises(TypeError, match=told):
            tool(method)


# One step.


def test_calls_are_answered_by_the_tools(env):
    observation, reward, terminated, truncated, info = env.step(call("add", number="2", times=1))
    assert (observation, reward, terminated, truncated) == ("2", 0.0, False, False)
    assert info == {"messages": (Message(role="tool", name="add", content="2"),), "format_error": False}
    assert env.step(call("add", number=3, how="down"))[0] == "-1"


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (call("add"), "error: add: number: Field required"),
        (call("add", number="two"), "error: add: number: Input should be a valid integer"),
        (call("add", number=1, how="sideways"), "error: add: how: Input should be 'up' or 'down'"),
        (call("add", number=1, nmber=2), "error: add: nmber: Extra inputs are not permitted"),
        (call("fly"), "error: there is no tool 'fly'; the tools are add, wait, where, submit"),
        (encode_format_error("no closing tag"), "format error: no closing tag"),
    ],
)
def test_a_mistake_is_answered_and_ends_nothing(env, action, told):
    observation, reward, terminated, truncated, info = env.step(action)
    assert observation.startswith(told)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["format_error"] is (told.startswith("format"))
    assert env.step(call("add", number=1))[0] == "1"


def test_several_calls_in_one_action_are_answered_in_order_up_to_a_submission(env):
    calls = [
        ToolCall(name="add", arguments={"number": 1}),
        ToolCall(name="fly"),
        ToolCall(name="add", arguments={"number": 2}),
        ToolCall(name="submit", arguments={"note": "!"}),
        ToolCall(name="add", arguments={"number": 5}),
    ]
    observation, reward, terminated, _, info = env.step(encode_calls(calls))
    assert [message.name for message in info["messages"]] == ["add", "fly", "add", "submit"]
    assert observation.splitlines()[-2:] == ["3", "handed in!"]
    assert (reward, terminated, info["ending"]) == (1.0, True, "submitted")
    assert env.total == 3


def test_a_tool_says_how_it_failed():
    env = Ledger(fault="tool")
    env.reset(options={"task": TASK})
    assert env.step(call("where"))[0] == "error: ask again"
    env.close()


def test_synchronous_tools_run_beside_the_loop_and_asynchronous_ones_on_it(env):
    assert env.step(call("where"))[0].startswith("verigym-tool")
    assert env.step(call("wait", seconds=0))[0] == "verigym-environments"


# Endings.


def test_a_final_message_is_the_answer(env):
    observation, reward, terminated, truncated, info = env.step("3")
    assert (observation, reward, terminated, truncated) == ("", 1.0, True, False)
    assert (info["ending"], info["score"].detail) == ("answered", "sum 3")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("3")


def test_there_is_no_step_without_an_episode():
    with pytest.raises(gymnasium.error.ResetNeeded):
        Ledger().step("3")


@pytest.mark.parametrize(("number", "reward"), [(3, 1.0), (2, 0.0), (0, 0.0)])
def test_the_last_turn_truncates_and_what_was_handed_in_is_scored(number, reward):
    env = Ledger(max_turns=2)
    env.reset(options={"task": TASK})
    assert env.step(call("add", number=number))[2:4] == (False, False)
    _, got, terminated, truncated, info = env.step(encode_format_error("x"))
    assert (got, terminated, truncated, info["ending"]) == (reward, False, True, "turn_limit")
    assert info["score"].passed is bool(reward)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("3")


def test_an_ending_in_the_last_turn_is_no_truncation():
    env = Ledger(max_turns=1)
    env.reset(options={"task": TASK})
    assert env.step("3")[1:4] == (1.0, True, False)


def test_a_reset_ends_the_episode_that_runs(env):
    env.step(call("add", number=2))
    env.reset(options={"task": Task(id="u", family="ledger", prompt="?")})
    assert env.log == ["start t", "stop", "start u"]
    assert env.step(call("add", number=1))[0] == "1"
    env.close()
    env.close()
    assert env.log == ["start t", "stop", "start u", "stop"]


def test_what_never_started_is_not_stopped():
    env = Ledger()
    env.close()
    assert env.log == []


def test_a_start_that_fails_is_given_back():
    env = Ledger(fault="start")
    with pytest.raises(SandboxError, match="no room"):
        env.reset(options={"task": TASK})
    assert env.log == ["start t", "stop"]


def test_failures_of_the_infrastructure_are_raised_and_never_scored():
    """Trap 18."""
    for fault, action, error, told in (
        ("sandbox", call("where"), SandboxError, "the box is gone"),
        ("grader", "3", GradingError, "no verdict"),
        ("type", "3", EnvironmentBug, "Ledger.score failed in task 't': it returned a str; a Score is expected"),
    ):
        env = Ledger(fault=fault)
        env.reset(options={"task": TASK})
        with pytest.raises(error, match=told):
            env.step(action)
        env.close()


# Tasks, spaces, rendering.


def test_tasks_are_drawn_with_the_seed():
    env = Ledger(tasks=[Task(id=str(i), family="ledger", prompt="") for i in range(50)])
    drawn = [env.reset(seed=seed)[1]["task"].id for seed in (1, 1, 2, 3)]
    env.close()
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    assert {Ledger().load()[0].id} == {"t"}


def test_reset_gives_the_messages_and_the_tools(env):
    observation, info = env.reset(options={"task": TASK})
    assert observation == "Make it 3."
    assert info["messages"] == (
        Message(role="system", content="You add."),
        Message(role="user", content="Make it 3."),
    )
    assert info["tools"] == env.tool_specs
    assert info["task"] == TASK


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (lambda: Ledger(tasks=[]), None, "empty list of tasks"),
        (Ledger, {"task": {"id": "t"}}, "is a dict; a verigym.envs.task.Task is expected"),
        (Ledger, {"task": Task(id="x", family="math", prompt="")}, "is of family 'math'; this environment takes 'led"),
        (ToolEnv, None, "ToolEnv has no tasks of its own"),
    ],
)
def test_tasks_that_cannot_be_used(make, options, told):
    with pytest.raises(TaskError, match=told):
        make().reset(options=options)


def test_any_text_is_an_action():
    space = Ledger().action_space
    assert all(space.contains(text) for text in ("", "é\U0001f600\x00\ud800", "x" * 100_000))
    assert not space.contains(3)
    assert space.contains(space.sample())


def test_rendering_shows_the_conversation(env):
    env.step(call("add", number=2))
    opening = "[system]\nYou add.\n\n[user]\nMake it 3.\n\n"
    assert env.render() == opening + "[assistant]\n\n-> add({'number': 2})\n\n[add]\n2"
    assert Ledger().render() is None


def test_a_person_sees_messages_as_they_come(capsys):
    env = Ledger(render_mode="human")
    env.reset(options={"task": TASK})
    assert capsys.readouterr().out == "[system]\nYou add.\n\n[user]\nMake it 3.\n\n"
    env.step(call("add", number=2))
    assert capsys.readouterr().out == "[assistant]\n\n-> add({'number': 2})\n\n[add]\n2\n\n"
    assert env.render() is None
    assert capsys.readouterr().out == ""
    env.close()


def test_a_score_stays_in_its_range():
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="outside"):
            Score(value=wrong, passed=True)


def test_gymnasium_finds_nothing_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(Ledger(render_mode="ansi"), skip_render_check=True)
    Ledger.rented = 0  # the checker closes nothing


# Many at once.


def test_64_episodes_on_one_loop_are_in_a_tool_together():
    """Each waits in its tool for all the others, on the loop and then on a thread."""
    num = 64

    class Meeting(Ledger):
        here, there = asyncio.Barrier(num), threading.Barrier(num, timeout=60)

        @tool
        async def meet(self) -> str:
            """Waits for all."""
            await self.here.wait()
            return "met"

        @tool
        def meet_outside(self) -> str:
            """Waits for all, on a thread."""
            self.there.wait()
            return "met"

    async def episode(number):
        env = Meeting()
        await env.areset(options={"task": TASK})
        met = [(await env.astep(call(name)))[0] for name in ("meet", "meet_outside")]
        assert met == ["met", "met"]
        await env.astep(call("add", number=number))
        return (await env.astep(call("submit")))[1]

    async def every():
        return await asyncio.wait_for(asyncio.gather(*map(episode, range(num))), timeout=60)

    assert asyncio.run(every()) == [float(number == 3) for number in range(num)]
    assert Meeting.rented == 0


def test_threads_drive_environments_of_their_own():
    """The loop behind the synchronous face is one, also for threads that ask for the first one together."""
    from verigym.envs.sandbox import background

    background._background_loop.cache_clear()
    start = threading.Barrier(8)

    async def running_loop():
        return asyncio.get_running_loop()

    def episode(number):
        start.wait()
        loop = background.run_sync(running_loop())
        env = Ledger()
        env.reset(options={"task": TASK})
        env.step(call("add", number=number))
        return loop, env.step(call("submit"))[1]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(episode, range(8)))
    assert [reward for _, reward in found] == [float(number == 3) for number in range(8)]
    assert len({id(loop) for loop, _ in found}) == 1


def test_a_forked_process_has_a_loop_of_its_own():
    """As Gymnasium's vector environments do."""
    Ledger().reset(options={"task": TASK})
    Ledger.rented = 0
    envs = gymnasium.vector.AsyncVectorEnv([Ledger, Ledger], shared_memory=False, context="fork")
    try:
        envs.reset_async()
        observations, _ = envs.reset_wait(timeout=30)
        assert len(observations) == 2
    finally:
        envs.close(terminate=True)
