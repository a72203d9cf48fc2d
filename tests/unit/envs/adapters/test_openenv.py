"""OpenEnv's own server as ours, and ours as an OpenEnv server, over the wire."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportMissingImports=false

import asyncio
import sys

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.adapters.openenv import OpenEnv, action_reader, served_as_openenv, shown
from verigym.envs.core import ToolEnv
from verigym.envs.registry.ids import make_env
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import ConfigError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling


def say(text):
    return Message(role="assistant", content=text)


def call(name, /, **arguments):
    return Message(role="assistant", content="", calls=(ToolCall(name=name, arguments=arguments),))


def episode(env, said):
    policy = ScriptedPolicy(play([say(one) if isinstance(one, str) else one for one in said]))
    return asyncio.run(rollout(env, policy, env.load()[0], budget=Budget(), sampling=Sampling()))


def test_what_is_shown_and_read():
    assert shown({"output": "3", "reward": 1.0, "done": False, "metadata": {}}) == "3"
    assert shown({"board": [1, 2], "player": 1, "reward": None}) == '{"board": [1, 2], "player": 1}'
    assert shown({}) == "(nothing)"
    code = action_reader({"properties": {"code": {"type": "string"}, "metadata": {}}, "required": ["code"]})
    assert code("print(1)") == {"code": "print(1)"}
    move = action_reader({"properties": {"row": {"type": "integer"}, "column": {"type": "integer"}}})
    assert move('{"row": 1, "column": 2}') == {"row": 1, "column": 2}
    for text in ("up", "[1]"):
        with pytest.raises(ValueError, match="a JSON object with row, column"):
            move(text)


def test_the_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openenv", None)
    with pytest.raises(ConfigError, match="pip install 'openenv'"):
        OpenEnv("http://localhost:1")


@pytest.fixture
def openenv():
    return pytest.importorskip("openenv", reason="openenv is not installed")


def echo_app():
    """An environment written for OpenEnv, as its own tutorial does: repeat the word, three times."""
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

    class EchoAction(Action):
        message: str

    class EchoObservation(Observation):
        output: str = ""

    class Echo(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            super().__init__()
            self._state = State(step_count=0)

        def reset(self, seed=None, episode_id=None, **kwargs):
            self.word = f"word{seed}"
            self._state = State(episode_id=episode_id, step_count=0)
            return EchoObservation(output=f"say {self.word}")

        def step(self, action, timeout_s=None, **kwargs):
            if action.message == "crash":
                raise KeyError("of the environment")
            self._state.step_count += 1
            right = action.message == self.word
            return EchoObservation(
                output=f"you said {action.message}", reward=0.25 * right, done=self._state.step_count == 3
            )

        @property
        def state(self):
            return self._state

    return create_fastapi_app(Echo, EchoAction, EchoObservation, max_concurrent_envs=8)


def test_an_openenv_environment_runs_unchanged(openenv, serve):
    url = serve(echo_app())
    found = episode(OpenEnv(url, bounds=(0.0, 0.75), num_tasks=2), ["word0", "other", "word0"])
    assert (found.reward, found.passed, found.ending) == (0.5, False, "answered")
    assert found.turn_rewards == (0.25, 0.0, 0.25)
    assert [one.content for one in found.messages][::2] == [
        "say word0",
        "you said word0",
        "you said other",
        "you said word0",
    ]
    # The same actions over OpenEnv's own client.
    from openenv import GenericEnvClient

    async def own():
        async with GenericEnvClient(base_url=url) as client:
            await client.reset(seed=0)
            return [(await client.step({"message": text})).reward for text in ("word0", "other", "word0")]

    assert asyncio.run(own()) == list(found.turn_rewards)


def kept_app():
    """Over HTTP each request has an environment of its own: what an episode is lies under its id."""
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

    episodes = {}

    class SayAction(Action):
        word: str

    class SayObservation(Observation):
        text: str = ""

    class Say(Environment):
        def reset(self, seed=None, episode_id=None, **kwargs):
            episodes[episode_id] = [seed, 0]
            return SayObservation(text=f"say {seed} twice")

        def step(self, action, timeout_s=None, episode_id=None, **kwargs):
            seed, steps = episodes[episode_id] = [episodes[episode_id][0], episodes[episode_id][1] + 1]
            return SayObservation(text="so", reward=0.5 * (action.word == str(seed)), done=steps == 2)

        @property
        def state(self):
            return State()

    return create_fastapi_app(Say, SayAction, SayObservation)


def test_http_needs_no_library_and_an_episode_has_its_id(openenv, serve, monkeypatch):
    url = serve(kept_app())
    monkeypatch.setitem(sys.modules, "openenv", None)

    async def every():
        envs = [OpenEnv(url, transport="http") for _ in range(4)]
        scripts = [ScriptedPolicy(play([say(str(n)), say("9" if n == 3 else str(n))])) for n in range(4)]
        return await asyncio.gather(
            *(
                rollout(env, script, env.load()[n], budget=Budget(), sampling=Sampling())
                for n, (env, script) in enumerate(zip(envs, scripts, strict=True))
            )
        )

    found = asyncio.run(every())
    assert [one.reward for one in found] == [1.0, 1.0, 1.0, 0.5]
    assert [one.content for one in found[2].messages] == ["say 2 twice", "2", "so", "2", "so"]
    wrong = episode(OpenEnv(url, transport="http", read=lambda text: {"words": text}), ["1"])
    assert wrong.messages[2].content.startswith("error: [{'type': 'missing'")


def test_http_without_a_server_that_keeps_episodes_is_the_infrastructure(openenv, serve):
    found = episode(OpenEnv(serve(echo_app()), transport="http"), ["word0"])  # its step knows no word
    assert (found.ending, found.reward) == ("sandbox_failure", None)
    gone = episode(OpenEnv("http://127.0.0.1:9", transport="http", seconds=5), ["x"])
    assert (gone.ending, gone.reward) == ("sandbox_failure", None)
    with pytest.raises(ConfigError, match="websocket, http"):
        OpenEnv("http://127.0.0.1:9", transport="mcp")


def tools_app():
    """An environment of tools, as OpenEnv's newer ones are: steps call tools by their names."""
    from fastmcp import FastMCP
    from openenv.core.env_server import Observation, State, create_fastapi_app
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation

    class Shelf(MCPEnvironment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            mcp = FastMCP("shelf")

            @mcp.tool
            def add(a: int, b: int) -> int:
                """Adds two numbers."""
                return a + b

            @mcp.tool
            def book(name: str) -> dict:
                """Finds a book."""
                if name == "none":
                    raise ValueError("no such book")
                return {"name": name, "place": 7}

            super().__init__(mcp)
            self.calls = 0

        def reset(self, seed=None, episode_id=None, **kwargs):
            return Observation(reward=0.0, metadata={"status": "ready"})

        def _step_impl(self, action, timeout_s=None, **kwargs):
            return Observation()

        async def step_async(self, action, timeout_s=None, **kwargs):
            found = await super().step_async(action, timeout_s=timeout_s, **kwargs)
            self.calls += isinstance(action, CallToolAction)
            if isinstance(action, CallToolAction):
                found.reward, found.done = 0.25, self.calls == 4
            return found

        @property
        def state(self):
            return State()

    return create_fastapi_app(Shelf, CallToolAction, CallToolObservation, max_concurrent_envs=8)


def test_tools_of_an_openenv_environment_are_tools(openenv, serve):
    env = OpenEnv(serve(tools_app()), about="Find the book.")
    said = [
        call("add", a=1, b=2),
        call("add", a="x", b=2),
        call("book", name="none"),
        call("lend", name="Emma"),
        call("book", name="Emma"),
    ]
    found = episode(env, said)
    answers = [one.content for one in found.messages if one.role == "tool"]
    assert answers[0] == "3"
    assert answers[1].startswith("error: ")
    assert "no such book" in answers[2]
    assert answers[3] == "error: there is no tool 'lend'; the tools are add, book"
    assert answers[4] == '{"name": "Emma", "place": 7}'
    assert (found.reward, found.passed, found.ending) == (1.0, True, "submitted")
    assert found.turn_rewards == (0.25, 0.25, 0.25, 0.0, 0.25)
    left = episode(env, [call("add", a=1, b=2), "I give up"])
    assert (left.reward, left.ending) == (0.25, "answered")


def test_episodes_at_once_have_sessions_of_their_own(openenv, serve):
    url = serve(echo_app())
    env = OpenEnv(url, bounds=(0.0, 0.75))

    async def every():
        tasks = env.load()[:4]
        return await asyncio.gather(
            *(
                rollout(
                    OpenEnv(url, bounds=(0.0, 0.75)),
                    ScriptedPolicy(play([Message(role="assistant", content=f"word{n}")] * 3)),
                    task,
                    budget=Budget(),
                    sampling=Sampling(),
                )
                for n, task in enumerate(tasks)
            )
        )

    assert [one.reward for one in asyncio.run(every())] == [0.75] * 4


def test_a_server_that_is_not_there_is_the_infrastructure(openenv):
    found = episode(OpenEnv("http://127.0.0.1:9", seconds=5), ["x"])
    assert (found.ending, found.reward) == ("sandbox_failure", None)
    assert "is an OpenEnv server there?" in found.detail


class Adder(ToolEnv):
    """Adds."""

    def load(self):
        return [Task(id=f"{n}", family="adder", prompt=f"1 + {n}", hidden={"n": n}) for n in range(5)]

    @tool
    def add(self, a: int, b: int) -> str:
        """Adds two numbers."""
        self.reward(0.1, "tried")
        return str(a + b)

    def score(self, task, submission):
        return 0.9 if submission == str(1 + task.hidden["n"]) else 0.0


def test_ours_is_an_openenv_server(openenv, serve):
    from openenv import GenericEnvClient

    url = serve(served_as_openenv(Adder))

    async def main():
        async with GenericEnvClient(base_url=url) as client:
            first = await client.reset(task_id="3")
            second = await client.step({"calls": [{"name": "add", "arguments": {"a": 1, "b": 3}}]})
            third = await client.step({"message": "4"})
            return first, second, third

    first, second, third = asyncio.run(main())
    assert (first.observation["text"], first.done) == ("1 + 3", False)
    assert first.observation["tools"][0]["function"]["name"] == "add"
    assert (second.observation["text"], second.reward, second.done) == ("4", 0.1, False)
    assert (third.reward, third.done) == (pytest.approx(0.9), True)


def test_there_and_back(openenv, serve):
    """Ours, served, and taken as an environment again: the same score as at home."""
    url = serve(served_as_openenv(lambda: make_env("verigym/Math-v0")))
    far = OpenEnv(url, read=lambda text: {"message": text}, render=lambda seen: seen["text"], num_tasks=1)
    found = episode(far, ["\\boxed{42}"])
    home = make_env("verigym/Math-v0")
    home.reset(seed=0)
    assert (found.reward, found.messages[0].content) == (home.step("\\boxed{42}")[1], home._transcript[1].content)
