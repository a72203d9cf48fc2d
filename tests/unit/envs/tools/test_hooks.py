"""Hooks of an environment: one thread for an episode's synchronous ones, and bugs by the name of their hook."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false

import asyncio
import contextlib
import functools
import gc
import re
import sqlite3
import subprocess
import sys
import threading
import time
from queue import SimpleQueue

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.scripts import script_of
from verigym.envs.task import Task
from verigym.envs.tools import deadline, hooks, stepped
from verigym.envs.tools.spec import tool
from verigym.errors import EnvironmentBug, HookTimeout, SandboxError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.rubric import Rubric, part
from verigym.rewards.score import verdict

TASK = Task(id="t", family="shop", prompt="How many?")


def call(name, /, **arguments):
    return encode_calls([ToolCall(name=name, arguments=arguments)])


class Shop(ToolEnv):
    """A database that only the thread that opened it may use."""

    go = SimpleQueue()

    def start(self, task):
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE fruit (name TEXT)")

    @tool
    def add(self, name: str) -> str:
        """Adds one."""
        self.db.execute("INSERT INTO fruit VALUES (?)", [name])
        return threading.current_thread().name

    @tool
    def fail(self, how: str) -> str:
        """Fails."""
        raise {"key": KeyError, "stop": StopIteration, "box": SandboxError, "cancel": asyncio.CancelledError}[how](
            "why"
        )

    @tool(on_error="tell")
    def divide(self, by: int) -> str:
        """Divides."""
        return str(1 / by)

    @tool
    def sleep(self, seconds: float) -> str:
        """Sleeps."""
        time.sleep(seconds)
        return "late"

    @tool
    def hang(self) -> str:
        """Hangs until the test lets it go."""
        self.go.get(timeout=60.0)
        return "late"

    def score(self, task, submission):
        (count,) = self.db.execute("SELECT COUNT(*) FROM fruit").fetchone()
        return verdict(str(count) == submission)

    def stop(self):
        self.db.close()


def threads():
    return {one for one in threading.enumerate() if one.name == "verigym-tool"}


def left_behind(before):
    """Threads that were not there before and do not end."""
    until = time.monotonic() + 60
    while threads() - before and time.monotonic() < until:
        gc.collect()  # what the loop held when it was asked first
        time.sleep(0.05)
    return threads() - before


def test_what_start_opens_a_tool_a_score_and_stop_can_use():
    before = threads()
    env = Shop()
    env.reset(options={"task": TASK})
    names = {env.step(call("add", name=fruit))[0] for fruit in ("fig", "date", "plum")}
    assert names == {"verigym-tool"}
    assert len(threads() - before) == 1
    assert env.step("3")[1] == 1.0
    assert not left_behind(before)


def test_an_environment_that_nobody_closes_leaves_no_thread():
    before = threads()
    env = Shop()
    env.reset(options={"task": TASK})
    del env
    assert not left_behind(before)


@pytest.mark.parametrize(("how", "told"), [("key", "KeyError: 'why'"), ("stop", "StopIteration"), ("cancel", "Cancel")])
def test_a_bug_has_the_name_of_its_hook(how, told):
    env = Shop()
    env.reset(options={"task": TASK})
    with pytest.raises(EnvironmentBug, match=r"Shop\.fail failed in task 't'") as found:
        env.step(call("fail", how=how))
    assert told in str(found.value)
    assert (found.value.environment, found.value.hook) == ("Shop", "tool fail")
    env.close()


def test_what_verigym_knows_is_raised_as_it_is():
    env = Shop()
    env.reset(options={"task": TASK})
    with pytest.raises(SandboxError, match="why"):
        env.step(call("fail", how="box"))
    env.close()


def test_a_tool_may_tell_what_went_wrong():
    env = Shop()
    env.reset(options={"task": TASK})
    assert env.step(call("divide", by=0))[0] == "error: ZeroDivisionError: division by zero"
    assert env.step(call("divide", by=2))[0] == "0.5"
    env.close()
    telling = type("Telling", (Shop,), {"on_error": "tell"})()
    telling.reset(options={"task": TASK})
    assert telling.step(call("fail", how="key"))[0] == "error: KeyError: 'why'"
    telling.close()
    with pytest.raises(ValueError, match="'fail' or 'tell'"):
        tool(on_error="ignore")


def test_a_hook_that_is_asynchronous_in_disguise_is_awaited():
    async def prompt(self, task):
        return "hidden"

    env = type("Wrapped", (Shop,), {"prompt": functools.partialmethod(prompt)})()
    assert env.reset(options={"task": TASK})[0] == "hidden"
    env.close()


def episode(messages, **budget):
    return asyncio.run(
        rollout(Shop(), ScriptedPolicy(play(messages)), TASK, budget=Budget(**budget), sampling=Sampling())
    )


def calls(name, /, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def test_a_tool_that_outlasts_its_episode_is_waited_for_and_the_database_closed():
    before = threads()
    found = episode([calls("sleep", seconds=0.6)], seconds=0.2)
    assert (found.ending, found.reward) == ("wall_clock", 0.0)
    assert not left_behind(before)


def test_a_tool_that_hangs_is_left_to_itself(monkeypatch):
    monkeypatch.setattr(hooks, "PATIENCE_S", 0.1)
    before = threads()
    found = episode([calls("hang")], seconds=2.0)
    Shop.go.put("now")
    # The database is another thread's: it cannot be closed, and that is said.
    assert (found.ending, found.failed_in) == ("environment_failure", "stop")
    assert not left_behind(before)


def test_each_bug_is_shown_once_and_all_are_counted(caplog):
    from verigym.agent.failures import Failures

    failures = Failures()

    async def main():
        for number in range(3):
            for how in ("key", "stop"):
                policy = ScriptedPolicy(play([calls("fail", how=how)]))
                task = Task(id=str(number), family="shop", prompt="?")
                one = await rollout(Shop(), policy, task, budget=Budget(), sampling=Sampling(), failures=failures)
                assert (one.ending, one.failed_in, one.reward) == ("environment_failure", "tool fail", None)

    asyncio.run(main())
    shown = [record for record in caplog.records if "Shop.fail failed in task '0'" in record.getMessage()]
    assert len(shown) == len(caplog.records) == 2
    assert failures.by_hook == {"tool fail": 6}


class OneInHaste(hooks.Hooks):
    """Gives one hook little time and the others plenty: a busy machine makes none of them late."""

    def limit(self, hook):
        env = self._owner()
        env.hook_timeout_s = 0.2 if hook == env.where else 60.0

    async def call(self, hook, function, *args, **kwargs):
        self.limit(hook)
        return await super().call(hook, function, *args, **kwargs)

    def call_here(self, hook, function, *args):
        self.limit(hook)
        return super().call_here(hook, function, *args)


class Hangs(ToolEnv):
    """One hook of it does not return: an endless loop, a call that blocks, or a wait for nothing."""

    def __init__(self, where, how):
        super().__init__()
        self._hooks = OneInHaste(self)
        self.where, self.how = where, how
        self.go, self.went_on = SimpleQueue(), False
        """What blocks waits in C for something in it."""

    def hang(self, hook):
        if hook == self.where and self.how == "loops":
            while True:
                pass
        if hook == self.where and self.how == "blocks":
            self.go.get(timeout=60.0)
            self.went_on = True

    def load(self):
        self.hang("load")
        return [TASK]

    def prompt(self, task):
        self.hang("prompt")
        return "?"

    def start(self, task):
        self.hang("start")

    def score(self, task, submission):
        self.hang("score")
        return True

    def stop(self):
        self.hang("stop")

    def gold(self, task):
        self.hang("gold")
        return calls("look"), Message(role="assistant", content="done")

    @tool
    def look(self) -> str:
        """Looks."""
        self.hang("tool look")
        return "seen"


class Waits(Hangs):
    @tool
    async def look(self) -> str:
        """Waits for nothing."""
        await asyncio.Event().wait()
        return ""


@pytest.mark.parametrize("how", ["loops", "blocks"])
@pytest.mark.parametrize("hook", ["load", "prompt", "start", "score", "stop", "gold", "tool look"])
def test_a_hook_that_hangs_ends_the_episode_by_its_name(hook, how):
    before = threads()
    env = Hangs(hook, how)
    if hook in ("load", "gold"):
        with pytest.raises(HookTimeout) as told:
            env.reset() if hook == "load" else script_of(env, "gold", TASK)
        found, detail = told.value.hook, str(told.value)
    else:
        policy = ScriptedPolicy(play(script_of(env, "gold", TASK)))
        ended = asyncio.run(rollout(env, policy, TASK, budget=Budget(), sampling=Sampling()))
        assert (ended.ending, ended.reward) == ("environment_failure", None)
        found, detail = ended.failed_in, ended.detail
    assert not env.went_on  # it was not waited for
    env.go.put("now")
    assert found == hook
    assert re.search(
        r"did not return within hook_timeout_s = 0\.2 s and was left at .*test_hooks\.py:[0-9]+ in hang", detail
    )
    assert not left_behind(before)


def test_an_asynchronous_hook_that_waits_for_nothing_is_cut_off():
    env = Waits("tool look", "waits")
    found = asyncio.run(rollout(env, ScriptedPolicy(play([calls("look")])), TASK, budget=Budget(), sampling=Sampling()))
    assert (found.ending, found.failed_in) == ("environment_failure", "tool look")


class Clock:
    """Stands in for ``time`` where hooks are timed: it goes by what they do, not by how busy the machine is."""

    def __init__(self):
        self.now, self.monotonic, self.sleep = 0.0, lambda: self.now, time.sleep


CLOCK = Clock()


class Slow:
    async def say(self, messages, *, keep=False):
        CLOCK.now += 0.4
        await asyncio.sleep(0.4)
        return Message(role="assistant", content="well")


def rather_long():
    CLOCK.now += 0.2
    time.sleep(0.4)  # whoever counts looks meanwhile
    return 1.0


class Asks(ToolEnv):
    """Its hooks take longer than they may, but for what others take."""

    hook_timeout_s = 0.25
    rubric = Rubric(part(rather_long, name="one"), part(rather_long, name="two"))

    async def reply(self, task, message):
        return Submission(value=(await self.model("user").say(self.transcript)).content)

    async def score(self, task, submission):
        return await super().score(task, submission)


def test_the_time_of_a_model_that_a_hook_asks_and_of_hooks_within_it_is_not_its_own(monkeypatch):
    for module in (deadline, stepped):
        monkeypatch.setattr(module, "time", CLOCK)

    async def main():
        env = Asks()
        env.seat({"user": Slow()})
        await env.areset(options={"task": TASK})
        acted = await env.aact("hello")
        return acted.submission, (await env.ascore(acted.submission)).value

    assert asyncio.run(main()) == ("well", 1.0)


LEAVING = """
import time
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.errors import HookTimeout


class Hangs(ToolEnv):
    hook_timeout_s = 0.2

    def start(self, task):
        time.sleep(600)


try:
    Hangs().reset(options={"task": Task(id="t", family="f", prompt="?")})
except HookTimeout:
    print("left")
"""


def test_a_process_does_not_wait_for_a_hook_that_hangs():
    ended = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "left"), ended.stderr


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, BaseException, SystemExit, pytest.fail.Exception])
def test_whatever_a_synchronous_hook_raises_is_its_bug(kind):
    class Raises(ToolEnv):
        def score(self, task, submission):
            raise kind("no")

    env = Raises()
    env.reset(options={"task": TASK})
    with pytest.raises(EnvironmentBug, match=r"Raises\.score failed"):
        env.step("x")


def test_an_error_whose_text_cannot_be_had_is_a_bug_too():
    class Mute(Exception):
        def __str__(self):
            raise ValueError("no")

    class Raises(ToolEnv):
        def score(self, task, submission):
            raise Mute

    env = Raises()
    env.reset(options={"task": TASK})
    with pytest.raises(EnvironmentBug, match=r"Raises\.score failed .*Mute: its text cannot be had \(ValueError\)"):
        env.step("x")


@pytest.mark.parametrize("how", ["loops", "blocks", "goes on"])
def test_an_asynchronous_hook_that_keeps_the_loop_or_will_not_be_cancelled_ends(how, monkeypatch, caplog):
    monkeypatch.setattr(deadline, "INSIST_S", 0.1)
    over = []

    class Keeps(ToolEnv):
        hook_timeout_s = 1.0

        async def score(self, task, submission):
            await asyncio.sleep(0)
            end = time.monotonic() + 60.0
            while how == "loops":
                pass
            if how == "blocks":
                time.sleep(2.0)
            while not over and time.monotonic() < end:
                with contextlib.suppress(BaseException):
                    await asyncio.sleep(60.0)
            return True

    found = asyncio.run(
        rollout(
            Keeps(),
            ScriptedPolicy(play([Message(role="assistant", content="x")])),
            TASK,
            budget=Budget(),
            sampling=Sampling(),
        )
    )
    over.append(True)
    assert (found.ending, found.failed_in) == ("environment_failure", "score")
    assert "did not return within hook_timeout_s = 1 s" in found.detail
    assert ("Keeps.score keeps the event loop, at " in caplog.text) == (how != "goes on")
    assert found.timings["total"] < 60.0  # it was not waited for


def test_an_asynchronous_hook_that_cleans_up_when_cancelled_is_let_do_so():
    cleaned = []

    class Cleans(ToolEnv):
        hook_timeout_s = 0.1

        async def score(self, task, submission):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.1)
                cleaned.append(True)

    env = Cleans()
    env.reset(options={"task": TASK})
    with pytest.raises(HookTimeout):
        env.step("x")
    assert cleaned == [True]
