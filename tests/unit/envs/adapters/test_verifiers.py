"""Tasksets and environments written for verifiers 0.4, unchanged: single turn, tools with state, an exchange."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportMissingImports=false

import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, Turn, play
from verigym.agent.speakers import Seat
from verigym.envs.adapters.verifiers import Verifiers
from verigym.errors import ConfigError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling

vf = pytest.importorskip("verifiers.v1", reason="verifiers 0.4 is not installed")


class SumData(vf.TaskData):
    answer: str


class Count(vf.State):
    calls: int = 0


class Calculator(vf.Toolset[vf.ToolsetConfig, Count]):
    @vf.tool
    def add(self, a: int, b: int) -> str:
        """Add two numbers."""
        self.state.calls += 1
        return str(a + b)


class SumTask(vf.Task[SumData, vf.State, vf.TaskConfig]):
    @vf.reward(weight=0.8)
    async def right(self, trace) -> float:
        return float(trace.last_message.content.strip() == self.data.answer)

    @vf.reward(weight=0.2)
    async def brief(self, trace) -> float:
        return float(len(trace.last_message.content) < 5)

    @vf.metric
    async def turns(self, trace) -> float:
        return float(trace.num_turns)


class ToolTask(vf.Task[SumData, Count, vf.TaskConfig]):
    @classmethod
    def toolsets(cls, config):
        return [Calculator(vf.ToolsetConfig())]

    @vf.reward
    async def right(self, trace) -> float:
        return float(trace.last_message.content.strip() == self.data.answer and trace.state.calls == 1)


class Sums(vf.Taskset[SumTask, vf.TasksetConfig]):
    kind = SumTask

    def load(self):
        for a in range(3):
            yield self.kind(SumData(name=f"sum-{a}", prompt=f"{a} + 1?", system_prompt="Be brief.", answer=str(a + 1)))


class ToolSums(vf.Taskset[ToolTask, vf.TasksetConfig]):
    def load(self):
        yield ToolTask(SumData(name="tool", prompt="2 + 2?", answer="4"))


def episode(env, said, place=0, **models):
    messages = [one if isinstance(one, Message) else Message(role="assistant", content=one) for one in said]
    seats = {name: Seat(policy=policy) for name, policy in models.items()}
    policy = ScriptedPolicy(play(messages))
    return asyncio.run(rollout(env, policy, env.load()[place], budget=Budget(), sampling=Sampling(), seats=seats))


def test_a_single_turn_is_scored_by_its_own_rewards():
    env = Verifiers(Sums(vf.TasksetConfig(id="sums")))
    assert [task.id for task in env.load()] == ["sum-0", "sum-1", "sum-2"]
    found = episode(env, ["2"], place=1)
    assert (found.reward, found.passed) == (1.0, True)
    assert found.breakdown == {"right": 0.8, "brief": 0.2, "metric turns": 1.0}
    assert [(one.role, one.content) for one in found.messages[:2]] == [("system", "Be brief."), ("user", "1 + 1?")]
    wrong = episode(env, ["it is 2 of course"], place=1)
    assert (wrong.reward, wrong.passed) == (0.0, False)
    # The same transcript in verifiers itself.
    task = next(one for one in Sums(vf.TasksetConfig(id="sums")) if one.data.name == "sum-1")
    nodes = [
        vf.MessageNode(message={"role": "user", "content": "?"}),
        vf.MessageNode(parent=0, message={"role": "assistant", "content": "2"}, sampled=True),
    ]
    trace = vf.Trace(
        task=vf.TraceTask(type="SumTask", data=task.data), agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes
    )
    asyncio.run(task.score(trace))
    assert trace.reward == found.reward


def test_tools_have_the_state_of_the_episode():
    env = Verifiers(ToolSums(vf.TasksetConfig(id="tools")))
    add = Message(role="assistant", content="", calls=(ToolCall(name="calculator_add", arguments={"a": 2, "b": 2}),))
    found = episode(env, [add, "4"])
    assert [one.content for one in found.messages] == ["2 + 2?", "", "4", "4"]
    assert (found.reward, found.passed) == (1.0, True)
    assert episode(env, ["4"]).reward == 0.0  # the tool was not called
    wrong = Message(role="assistant", content="", calls=(ToolCall(name="calculator_add", arguments={"a": 2}),))
    assert "b: Field required" in episode(env, [wrong, "4"]).messages[2].content


class GuessEnv(vf.Env[vf.EnvConfig]):
    """Higher or lower, and a critic who speaks at the end."""

    async def run(self, task, agents):
        async with agents.player.interaction(task) as exchange:
            segment = await exchange.turn()
            for _ in range(3):
                if segment.last_reply == task.data.answer:
                    break
                segment = await exchange.turn("higher" if segment.last_reply < task.data.answer else "lower")
            else:
                exchange.trace.record_reward("in time", 0.0, 0.0)
        async with agents.critic.interaction(task) as critic:
            said = await critic.turn(f"It said {segment.last_reply}. Was that kind?")
        exchange.trace.record_metric("kind", float(said.last_reply == "yes"))


class Critic:
    async def respond(self, conversation, tools, sampling):
        text = "yes" if "It said 3" in conversation[-1].content else "no"
        return Turn(message=Message(role="assistant", content=text), action=text)


def test_an_exchange_runs_as_it_was_written():
    env = Verifiers(Sums(vf.TasksetConfig(id="sums")), run=partial(GuessEnv.run, None))
    found = episode(env, ["1", "9", "3"], place=2, critic=Critic())
    assert [one.content for one in found.messages][2:] == ["1", "higher", "9", "lower", "3"]
    assert (found.reward, found.num_turns) == (1.0, 3)
    assert found.breakdown["metric kind"] == 1.0


def test_an_environment_that_verifiers_ships_runs_unchanged():
    """Its games of TextArena: the game is the user, and its outcome the reward."""
    textarena = pytest.importorskip("textarena", reason="verifiers[ta] is not installed")
    from verifiers.v1.tasksets.textarena.taskset import TextArenaData, TextArenaEnv, TextArenaTask

    class Numbers(vf.Taskset[TextArenaTask, vf.TasksetConfig]):
        def load(self):
            for seed in range(3):
                info = {"game": "GuessTheNumber-v0", "seed": seed}
                yield TextArenaTask(TextArenaData(name=str(seed), prompt="Guess: 1 to 20, as [n].", info=info))

    env = Verifiers(Numbers(vf.TasksetConfig(id="numbers")), run=partial(TextArenaEnv.run, None))

    for place in range(3):
        random.seed(place)
        game = textarena.make("GuessTheNumber-v0")
        game.reset(num_players=1)
        number = game.state.game_state["game_number"]
        found = episode(env, [f"[{number % 20 + 1}]", f"[{number}]"], place=place)
        assert (found.reward, found.num_turns, found.ending) == (1.0, 2, "answered")
        assert found.breakdown == {"game_reward": 1.0}


def test_what_an_exchange_raises_is_a_bug_of_the_environment():
    async def broken(task, agents):
        async with agents.player.interaction(task) as exchange:
            await exchange.turn()
            raise KeyError("why")

    found = episode(Verifiers(Sums(vf.TasksetConfig(id="sums")), run=broken), ["1"])
    assert (found.ending, found.failed_in) == ("environment_failure", "reply")


def test_what_cannot_be_taken_is_refused():
    class Boxed(SumTask):
        NEEDS_CONTAINER = True

    class BoxedSums(Sums):
        kind = Boxed

    with pytest.raises(ConfigError, match="needs a container"):
        episode(Verifiers(BoxedSums(vf.TasksetConfig(id="sums"))), ["1"])

    class Endless(Sums):
        INFINITE = True

    with pytest.raises(ConfigError, match="num_tasks=N"):
        Verifiers(Endless(vf.TasksetConfig(id="sums"))).load()
    assert len(Verifiers(Endless(vf.TasksetConfig(id="sums")), num_tasks=2).load()) == 2


def test_ours_is_a_verifiers_environment_and_scores_the_same_there(tmp_path, monkeypatch):
    from verifiers.v1.utils.loaders import environment_class, load_taskset, taskset_class

    from verigym.envs.adapters import verifiers_taskset
    from verigym.envs.registry.ids import make_env

    name = "verigym_tasks"
    (tmp_path / "verigym_tasks.py").write_text(
        "from verigym.envs.adapters.verifiers_taskset import *\n"
        "from verigym.envs.adapters.verifiers_taskset import __all__\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert taskset_class(name) is verifiers_taskset.VerigymTaskset
    assert environment_class(name) is verifiers_taskset.VerigymEnv
    taskset = load_taskset(verifiers_taskset.VerigymTasksetConfig(id=name, env="verigym/Math-v0"))
    there = Verifiers(taskset, run=partial(verifiers_taskset.VerigymEnv.run, None))
    home = make_env("verigym/Math-v0")
    for place, task in enumerate(home.load()):
        for text in (home.gold(task)[0].content, "no idea"):
            home.reset(options={"task": task})
            reward = home.step(text)[1]
            found = episode(there, [text], place=place)
            assert (found.reward, found.passed) == (reward, reward == 1.0)
            assert task.prompt in found.messages[0].content
    assert "answer" not in found.messages[0].content.lower().replace("final answer", "")


ADDER = """
from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool


class Adder(ToolEnv):
    def load(self):
        return [Task(id=f"sum-{n}", family="f", prompt=f"{n} + 2?", hidden={"sum": str(n + 2)}) for n in range(3)]

    @tool
    def add(self, a: int, b: int) -> str:
        \"\"\"Adds.\"\"\"
        self.reward(0.25, "tried")
        return str(a + b)

    def score(self, task, submission):
        return 0.75 if submission == task.hidden["sum"] else 0.0
"""


def streaming(reply):
    """A server that speaks OpenAI's chat API in events, as the harnesses of verifiers ask for."""

    async def chat(request):
        body = await request.json()
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        text = reply([str(one["content"]) for one in body["messages"] if one["role"] == "user"])
        ends = [({"role": "assistant", "content": text}, None), ({}, "stop")]
        rows = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in ends]
        events = [*(f"data: {json.dumps(row)}\n\n" for row in rows), "data: [DONE]\n\n"]
        return StreamingResponse(iter(events), media_type="text/event-stream")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


@pytest.mark.slow  # a process of verifiers' own, which prepares one more with uv
def test_verifiers_own_evaluator_drives_ours(tmp_path, serve):
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed, with which verifiers prepares its programs")
    (tmp_path / "adder_for_verifiers.py").write_text(ADDER)
    (tmp_path / "verigym_tasks.py").write_text(
        "from verigym.envs.adapters.verifiers_taskset import *\n"
        "from verigym.envs.adapters.verifiers_taskset import __all__\n"
    )

    def reply(told):
        """Calls the tool, then answers with what it said; the last task is answered without it."""
        assert '"name": "add"' in told[0]
        first = int(re.search(r"(\d) \+ 2\?", told[0])[1])
        call = json.dumps({"calls": [{"name": "add", "arguments": {"a": first, "b": 2}}]})
        return "5" if first == 2 else call if len(told) == 1 else told[-1]

    url = f"{serve(streaming(reply))}/v1"
    words = f"""--env.taskset.id verigym_tasks --env.taskset.env adder_for_verifiers:Adder --env.player.harness.id null
        --env.player.runtime.type subprocess --model toy --client.base-url {url} --client.api-key-var NO_KEY
        --no-push --no-rich --output-dir out --run.name run"""
    done = subprocess.run(
        [sys.executable, "-c", "from verifiers.v1.cli.eval.main import main; main()", *words.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "out" / "run" / "traces.jsonl").read_text().splitlines()]
    traces = [trace for row in rows for trace in row.get("traces", [row])]
    found = {trace["task"]["data"]["name"]: trace for trace in traces}
    rewards = {
        name: sum(one["score"] * one["weight"] for one in trace["rewards"].values()) for name, trace in found.items()
    }
    assert rewards == {"sum-0": 1.0, "sum-1": 1.0, "sum-2": 0.0}
    assert found["sum-0"]["metrics"] == {"passed": 1.0, "score": 0.75, "tried": 0.25}
