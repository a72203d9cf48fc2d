"""MCP both ways, with the official package on the other side."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.mcp.connection import Connection
from verigym.envs.mcp.env import McpEnv
from verigym.envs.mcp.serve import EpisodeTools, http_app
from verigym.envs.registry.ids import make_env
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError, SandboxError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict

SERVER = str(Path(__file__).with_name("desk_server.py"))
TASK = Task(id="m1", family="any", prompt="Keep a.", hidden={"answer": "good"})


@pytest.fixture(scope="module", autouse=True)
def mcp():
    """The official package: seconds of imports, for the worker that runs these tests."""
    return pytest.importorskip("mcp", reason="it is part of the dev extra")


def say(content="", *calls):
    found = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls)
    return Message(role="assistant", content=content, calls=found)


def played(env, *messages, task=TASK):
    budget = Budget(turns=8, seconds=120.0)
    return asyncio.run(rollout(env, ScriptedPolicy(play(messages)), task, budget=budget, sampling=Sampling()))


def answers(episode):
    return [message.content for message in episode.messages if message.role == "tool"]


def desk(**options):
    return McpEnv(command=[sys.executable, SERVER], **options)


def test_a_servers_tools_are_an_environments():
    """Each episode has a server of its own, which is gone at its end."""
    env = desk()
    calls = [say("", ("keep", {"what": "a", "times": 2}), ("told", {})), say("good")]
    first, second = played(env, *calls), played(env, *calls)
    for episode in (first, second):
        assert (episode.ending, episode.reward) == ("answered", 1.0)
        assert answers(episode)[1] == "a,a"
    servers = [int(answers(episode)[0].rpartition(" ")[2]) for episode in (first, second)]
    assert servers[0] != servers[1]
    assert not any(os.path.exists(f"/proc/{server}") for server in servers)


def test_what_a_server_does_not_like_is_an_answer():
    calls = [
        say("", ("keep", {"times": 1}), ("fails", {}), ("nothing", {})),
        say("bad"),
    ]
    episode = played(desk(), *calls)
    assert (episode.ending, episode.reward) == ("answered", 0.0)
    wrong, failed, unknown = answers(episode)
    assert wrong.startswith("error:")
    assert "what" in wrong
    assert failed.startswith("error:")
    assert unknown.startswith("error: there is no tool 'nothing'")


def test_a_server_that_is_gone_is_no_reward():
    episode = played(desk(tool_timeout_s=20.0), say("", ("breaks", {})), say("good"))
    assert (episode.ending, episode.reward) == ("sandbox_failure", None)
    assert "is gone" in episode.detail


def test_a_server_that_does_not_start():
    episode = played(McpEnv(command=[sys.executable, "-c", "import sys; sys.exit(3)"]), say("good"))
    assert (episode.ending, episode.reward) == ("sandbox_failure", None)


def test_only_some_tools():
    env = desk(only=["told"])
    episode = played(env, say("", ("told", {}), ("keep", {"what": "a"})), say("good"))
    assert answers(episode)[0] == "nothing"
    assert answers(episode)[1].startswith("error: there is no tool 'keep'")
    with pytest.raises(ConfigError, match="no tool 'gone'"):
        played(desk(only=["gone"]), say("good"))


@pytest.mark.parametrize("options", [{}, {"command": "x", "url": "http://localhost:1"}])
def test_one_of_both(options):
    with pytest.raises(ConfigError, match="a command that starts its server, or the url"):
        make_env("verigym/Mcp-v0", **options)


def test_gymnasiums_face_ends_where_it_did_not_begin():
    """Its calls run in tasks of their own, and the protocol's client must be closed by the one that opened it."""
    env = desk()
    env.reset(options={"task": TASK})
    observation, *_ = env.step(json.dumps({"calls": [{"name": "told", "arguments": {}}]}))
    assert observation == "nothing"
    assert [spec.name for spec in env.tool_specs] == ["keep", "told", "breaks", "fails"]
    env.close()


class Keeper(ToolEnv):
    family = "any"

    def start(self, task):
        self.kept = []

    @tool
    def keep(self, what: str, times: int = 1) -> str:
        """Keeps something.

        Args:
            what: it is.
            times: how often.
        """
        self.kept += [what] * times
        return f"kept {len(self.kept)}"

    @tool
    def submit(self) -> Submission:
        """Hands in."""
        return Submission(value=",".join(self.kept))

    def score(self, task, submission):
        return verdict(submission == "a,a", f"it is {submission!r}")


def text_of(result):
    """Of an answer of one part."""
    (part,) = result.content
    assert part.type == "text"
    return part.text


@contextlib.asynccontextmanager
async def served():
    """(address, the tools of a running episode)."""
    import uvicorn

    env = Keeper()
    await env.areset(options={"task": TASK})
    tools = EpisodeTools(env)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        async with http_app(tools) as app:
            server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", tools
            finally:
                server.should_exit = True
                await serving
                await env.aclose()


def test_an_environments_tools_over_http(mcp):
    async def play():
        async with served() as (url, tools), mcp.Client(url) as client:
            listed = (await client.list_tools()).tools
            found = [
                await client.call_tool("keep", {"what": "a", "times": 2}),
                await client.call_tool("keep", {"times": 1}),
                await client.call_tool("nothing", {}),
                await client.call_tool("submit", {}),
                await client.call_tool("keep", {"what": "late"}),
            ]
            assert tools.ended is not None
            score = await tools.env.ascore(tools.ended.submission)
            return listed, [(text_of(one), one.is_error) for one in found], score

    listed, found, score = asyncio.run(play())
    assert [one.name for one in listed] == ["keep", "submit"]
    assert listed[0].input_schema["properties"]["what"] == {"type": "string", "description": "it is."}
    texts = [text for text, _ in found]
    assert texts[0] == "kept 2"
    assert texts[1].startswith("error: keep: what")
    assert texts[2].startswith("error: there is no tool 'nothing'")
    assert texts[3] == "submitted"
    assert texts[4] == "the episode has ended: its work is handed in"
    assert [is_error for _, is_error in found] == [False, True, True, False, True]
    assert score.value == 1.0


def test_ours_is_a_server_of_ours():
    """Both ways at once: an environment over another one's tools."""

    async def play():
        async with served() as (url, tools):
            assert isinstance(tools.env, Keeper)
            connection, specs = await Connection.open(url=url)
            try:
                said = await connection.call("keep", {"what": "a", "times": 2}, timeout_s=20.0)
                return [spec.name for spec in specs], said, tools.env.kept
            finally:
                await connection.aclose()

    assert asyncio.run(play()) == (["keep", "submit"], ("kept 2", False), ["a", "a"])


def test_a_server_at_no_address():
    with pytest.raises(SandboxError, match="failed"):
        asyncio.run(Connection.open(url="http://127.0.0.1:1/mcp"))


@pytest.mark.slow
def test_the_command_serves_an_episode_on_its_standard_streams(mcp):
    """As agents start their servers."""

    async def play():
        argv = ["-m", "verigym", "mcp", "verigym/Math-v0", "--task", "math-sum"]
        async with mcp.Client(mcp.StdioServerParameters(command=sys.executable, args=argv)) as client:
            return (await client.list_tools()).tools

    assert asyncio.run(play()) == []


@pytest.mark.slow
def test_the_command_serves_an_episode_over_http_and_tells_its_score(mcp):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "verigym", "mcp", "verigym/SWE-v0", "--sandbox", "local", "--http", str(port)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)

    async def play():
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            await asyncio.sleep(0.2)
        async with mcp.Client(f"http://127.0.0.1:{port}/mcp") as client:
            looked = await client.call_tool("bash", {"command": "ls"})
            await client.call_tool("submit", {})
            return text_of(looked)

    try:
        assert "shelf.py" in asyncio.run(play())
        _, told = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    assert "A book that is exactly" in told
    assert "reward 0, not passed" in told
