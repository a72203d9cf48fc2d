"""Agents of others, in the sandbox and beside it: what they come to, how they end, and what they leave."""

import asyncio
import gc
import json
import os
import socket
import threading
import time

import httpx
import pytest

from verigym.agent.gateway.serve import shared_gateway
from verigym.agent.gateway.session import Session
from verigym.agent.harness.episode import rollout_with
from verigym.agent.harness.open import AgentSettings, open_agent
from verigym.agent.harness.spec import Done
from verigym.agent.loop import Budget
from verigym.envs.core import Submission
from verigym.envs.sandbox.background import on_thread_to_its_end
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError, PolicyError, SandboxError
from verigym.model.chat.sampling import Sampling

from .conftest import CALLS, Desk, Words, episode, python

WRITE = CALLS.format("echo good > out.txt")


def run(agent, policy, task, **options):
    return asyncio.run(episode(agent, policy, task, **options))


def test_a_program_in_the_sandbox_does_a_task(policy, task):
    found = run(python("print('said', loop())"), policy(WRITE, "done"), task)
    assert (found.ending, found.reward, found.num_turns) == ("answered", 1.0, 2)
    assert (found.agent["exit"], found.agent["output"].strip()) == ("exit 0", "said done")
    assert found.agent["requests"]["turns"] == 2
    assert [message.role for message in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[0].content == "Write good."
    (segment,) = found.segments
    assert sum(segment.loss_mask) == found.num_sampled > 0


@pytest.mark.docker
def test_a_program_in_a_container_does_a_task(policy, task):
    found = run(python("print('said', loop())"), policy(WRITE, "done"), task, env=Desk("docker"), seconds=120.0)
    assert (found.ending, found.reward, found.agent["exit"]) == ("answered", 1.0, "exit 0"), found


def test_a_program_beside_hands_in_what_it_prints(policy, task):
    found = run(python("print(loop())", "beside"), policy(WRITE, "good"), task, env=Words())
    assert (found.ending, found.reward, found.agent["exit"]) == ("answered", 1.0, "exit 0")


ENDINGS = {
    "crash before a turn": ("sys.exit(3)", ["x"], {}, "agent_failure", None, "exit 3"),
    "no such program": ("", ["x"], {}, "agent_failure", None, "exit 1"),
    "crash after a turn": ("loop(); sys.exit(3)", ["x"], {}, "agent_crash", 0.0, "exit 3"),
    "crash with work done": ("loop(); sys.exit(3)", [WRITE, "x"], {}, "agent_crash", 1.0, "exit 3"),
    "the policy fails": ("loop()", [PolicyError("no answer")], {}, "policy_failure", None, "no answer"),
    "it asks a policy that fails for ever": (
        "import time\nwhile True:\n    ask([{'role': 'user', 'content': 'q'}]); time.sleep(0.2)",
        [PolicyError("no answer")],
        {"seconds": 4.0},
        "policy_failure",
        None,
        "no answer",
    ),
    "turns are used up": ("loop()", [WRITE], {"turns": 2}, "turn_limit", 1.0, "exit 1"),
    "a refusal that it hides": ("loop()", [WRITE], {"turns": 2, "hide": True}, "turn_limit", 1.0, "exit 0"),
    "the context is full": ("loop()", [CALLS.format("seq 2000")], {}, "token_limit", 0.0, "exit 1"),
    "the clock": ("loop(); import time; time.sleep(600)", [WRITE, "x"], {"seconds": 8.0}, "wall_clock", 1.0, ""),
    "a kill": ("loop(); os.kill(os.getpid(), 9)", ["x"], {}, "agent_crash", 0.0, "exit 137"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(name, policy, task):
    """None without its name, no failure of the infrastructure a reward."""
    program, texts, options, ending, reward, words = ENDINGS[name]
    options = dict(options)
    agent = python(program)
    if options.pop("hide", False):
        agent = python("try:\n    loop()\nexcept SystemExit:\n    pass\n")
    if name == "no such program":
        agent = "command:no-such-agent; exit 1"
    found = run(agent, policy(*texts), task, **options)
    assert (found.ending, found.reward) == (ending, reward), found
    assert words in f"{found.detail} {found.agent['exit']}"
    assert found.is_infrastructure_failure is (reward is None)


def test_an_environment_without_a_sandbox_is_refused(policy, task):
    with pytest.raises(ConfigError, match=r"has no sandbox.*--agent verigym"):
        run(python("loop()"), policy("x"), task, env=Words())


@pytest.mark.parametrize(
    ("spec", "words"),
    [("nobody", "an agent is verigym"), ("command:", "an agent is"), ("no_such_module:Agent", "No module")],
)
def test_an_agent_that_is_none(spec, words):
    with pytest.raises(ConfigError, match=words):
        open_agent(spec)


def test_settings_of_requests_are_not_our_own_loops():
    with pytest.raises(ConfigError, match="our own loop asks no gateway"):
        open_agent("verigym", AgentSettings(at_once=2))


ATTACK = """
found = {}
root = os.environ["ANTHROPIC_BASE_URL"]
base = root.rsplit("/", 1)[0]
question = [{"role": "user", "content": "q"}]
found["other"] = ask(question, f"{base}/OTHER/v1")[0]
found["no key"] = ask(question, key="")[0]
found["up"] = ask(question, f"{root}/../OTHER/v1")[0]
import socket
for name, place in {"gateway": ("127.0.0.1", GATEWAY), "host": ("HOST", GATEWAY), "net": ("1.1.1.1", 53)}.items():
    try:
        socket.create_connection(place, timeout=3).close()
        found[name] = "open"
    except OSError:
        found[name] = "closed"
found["own"] = ask(question)[0]
print(json.dumps(found))
"""


def test_a_program_in_the_sandbox_reaches_its_own_episode_alone(policy, task):
    """Neither another episode, nor this machine's ports, nor the network."""

    async def attack():
        other = Session(policy("x"), Sampling())
        async with shared_gateway() as gateway, gateway.admit(other):
            program = ATTACK.replace("OTHER", other.id).replace("GATEWAY", str(gateway.port))
            program = program.replace("HOST", socket.gethostbyname(socket.gethostname()))
            found = await episode(python(program), policy("x"), task)
            return json.loads(found.agent["output"]), other.counts.turns

    found, turns = asyncio.run(attack())
    assert found == {
        **{"other": 401, "no key": 401, "up": 404},
        **{"gateway": "closed", "host": "closed", "net": "closed", "own": 200},
    }
    assert turns == 0


def num_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return file.read().split()


@pytest.mark.parametrize("seconds", [2.0, 60.0], ids=["time over", "cancelled"])
def test_a_harness_that_is_ended_leaves_nothing(seconds, policy, task):
    """Not in the sandbox, not beside it; the gateway's port is closed."""
    agents = [python("loop(); import time; time.sleep(600)", place) for place in ("command", "beside")]

    async def play():
        before = set(asyncio.all_tasks())
        for agent in agents:
            work = asyncio.create_task(episode(agent, policy("x"), task, seconds=seconds))
            if seconds > 10:
                await asyncio.sleep(2.5)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
            else:
                assert (await work).ending == "wall_clock"
        await asyncio.sleep(0.3)
        return set(asyncio.all_tasks()) - before

    run("verigym", policy("good"), task, env=Words())
    files, others = num_files(), children()
    left = asyncio.run(play())
    assert not left
    assert [one for one in children() if one not in others] == []
    assert num_files() <= files + 2  # the nursery of sandboxes may have been started


class Fork:
    """In this process: a main agent with a sub-agent, and a context of its own at the end."""

    name = "fork"

    async def run(self, stage):
        import httpx

        access = stage.beside
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {access.key}"}, timeout=120) as client:

            async def ask(*texts):
                messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": t} for i, t in enumerate(texts)]
                body = {"model": access.model, "messages": messages}
                answer = await client.post(f"{access.root}/v1/chat/completions", json=body)
                return answer.raise_for_status().json()["choices"][0]["message"]["content"]

            first = await ask(stage.prompt)
            left, right = await asyncio.gather(ask(stage.prompt, first, "left"), ask(stage.prompt, first, "right"))
            last = await ask(f"{left} and {right}")
        return Done(exit="done", submission=last)


def test_many_episodes_at_once(policy, task):
    """64 of them: each has its own turns and no other's."""
    act = open_agent(f"{__name__}:Fork")

    async def one(number):
        texts = [f"{word} {number}" for word in ("first", "left", "right")]
        budget = Budget(turns=8, tokens=4000, seconds=120.0)
        return await act(
            Words(), policy(*texts, "good"), task, budget=budget, sampling=Sampling(max_tokens=50), group_id="g"
        )

    async def play():
        return await asyncio.gather(*(one(number) for number in range(64)))

    for number, found in enumerate(asyncio.run(play())):
        assert (found.ending, found.reward, found.num_turns) == ("answered", 1.0, 4), found.agent
        assert found.agent["requests"]["changed"] == 2
        assert found.tree is not None
        assert len(found.segments) == len(found.tree.branches()) == 3
        said = {m.content for node in found.tree.nodes for m in node.messages if m.role == "assistant"}
        assert said == {f"first {number}", f"left {number}", f"right {number}", "good"}
    assert asyncio.run(_port_is_closed())


async def _port_is_closed():
    async with shared_gateway() as gateway:
        port = gateway.port
        assert await _opens(port)
    return not await _opens(port)


async def _opens(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Keeper(Words):
    """It has a tool, and one that hands in."""

    def start(self, task):
        self.kept = ""

    @tool
    def keep(self, what: str) -> str:
        """Keeps something."""
        self.kept = what
        return "kept"

    @tool
    def submit(self) -> Submission:
        """Hands in."""
        return Submission(value=self.kept)


class SpeaksMcp:
    """In this process: it asks for one turn, and calls the environment's tools by MCP."""

    name = "speaks mcp"

    async def run(self, stage):
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        access = stage.beside
        url = access.variables["VERIGYM_MCP_URL"]
        async with httpx2.AsyncClient() as strange:
            refused = await strange.post(url, json={})
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {access.key}"}, timeout=60) as http:
            body = {"model": access.model, "messages": [{"role": "user", "content": stage.prompt}]}
            answer = await http.post(f"{access.root}/v1/chat/completions", json=body)
            said = answer.json()["choices"][0]["message"]["content"]
            async with Client(streamable_http_client(url, http_client=http)) as client:
                names = [one.name for one in (await client.list_tools()).tools]
                await client.call_tool("keep", {"what": said})
                await client.call_tool("submit", {})
        return Done(exit="done", output=f"{names} {refused.status_code}")


def test_a_harness_that_speaks_mcp_hands_in_by_a_tool(policy, task):
    pytest.importorskip("mcp", reason="it is part of the dev extra")
    found = run(f"{__name__}:SpeaksMcp", policy("good"), task, env=Keeper())
    assert found.agent["output"] == "['keep', 'submit'] 401"
    assert (found.ending, found.reward, found.num_turns) == ("submitted", 1.0, 1)


class Raises:
    name = "raises"

    async def run(self, stage):
        raise SandboxError("the box is gone")


def test_a_sandbox_that_fails_under_a_harness_is_no_crash(policy, task):
    found = run(f"{__name__}:Raises", policy("x"), task, env=Words())
    assert (found.ending, found.reward) == ("sandbox_failure", None)


class Stubborn:
    """Works on a thread when its episode ends, then asks, and again where it gets no answer, as clients do."""

    name = "stubborn"

    def __init__(self):
        self.working, self.heard = threading.Event(), []

    async def run(self, stage):
        body = {"model": stage.beside.model, "messages": [{"role": "user", "content": "q"}]}
        headers = {"authorization": f"Bearer {stage.beside.key}"}

        def ask():
            self.working.set()
            time.sleep(1.5)
            for _ in range(8):
                try:
                    url = f"{stage.beside.root}/v1/chat/completions"
                    self.heard.append(httpx.post(url, json=body, headers=headers, timeout=60).status_code)
                    return
                except httpx.TransportError as error:
                    self.heard.append(type(error).__name__)
                    time.sleep(0.25)

        await on_thread_to_its_end(ask)
        return Done(exit="ended")


@pytest.mark.parametrize("seconds", [1.0, 60.0], ids=["time over", "cancelled"])
def test_a_harness_on_a_thread_is_told_that_it_is_over(seconds, policy, task):
    """It is not left to ask a gateway that has gone, for minutes."""
    harness = Stubborn()

    async def cut():
        budget = Budget(turns=8, tokens=4000, seconds=seconds)
        sampling = Sampling(max_tokens=300)
        work = asyncio.create_task(rollout_with(harness, Words(), policy("x"), task, budget=budget, sampling=sampling))
        await asyncio.to_thread(harness.working.wait)
        if seconds > 10:
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    asyncio.run(cut())
    assert harness.heard == [401]


def test_mini_swe_agent_as_it_is_published(policy, task):
    pytest.importorskip("minisweagent", reason="the extra agents has it")
    submit = CALLS.format("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")
    found = run("mini-swe-agent", policy(f"I write.\n{WRITE}", "no call", submit), task, env=Desk(), seconds=120.0)
    assert (found.ending, found.reward, found.agent["exit"], found.num_turns) == ("answered", 1.0, "Submitted", 3)
    assert found.agent["requests"]["changed"] <= 1  # it drops a turn without a call
    assert found.num_sampled == sum(sum(segment.loss_mask) for segment in found.segments)
    assert "Write good." in found.messages[1].content


def test_mini_swe_agent_that_meets_a_limit(policy, task):
    pytest.importorskip("minisweagent", reason="the extra agents has it")
    found = run("mini-swe-agent", policy(WRITE), task, turns=2, seconds=120.0)
    assert (found.ending, found.reward, found.num_turns) == ("turn_limit", 1.0, 2)
