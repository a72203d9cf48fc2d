"""Whatever a policy writes, its episode ends as one: no exception leaves it, it is graded, and no step of ours takes
over a second of processor time."""

import asyncio
import json
import logging
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import Turn
from verigym.agent.trajectory import Trajectory
from verigym.envs.code.box import RunLimits
from verigym.envs.code.env import BUILT_IN as PROGRAMS
from verigym.envs.code.env import CodeEnv
from verigym.envs.math.env import BUILT_IN as PROBLEMS
from verigym.envs.math.env import MathEnv
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.env import SWEEnv
from verigym.envs.task import Task
from verigym.errors import SandboxError
from verigym.evals.run import prediction_of
from verigym.evals.verdict import Verdict
from verigym.model.chat.actions import encode_calls, encode_format_error
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.openai import JsonParser
from verigym.model.chat.sampling import Sampling

MOST_CPU_S = 1.0
HALVES = [chr(0xD83D), chr(0xDE00), chr(0xDCFF), chr(0xDC80)]
ODD = [
    "",
    " ",
    "\0",
    "\x1b[2J",
    "\u2028",
    "\x0c",
    "\ufeff",
    "é",
    "\U0001f600",
    "..",
    "/",
    "~",
    "$(id)",
    "'",
    '"',
    "\r\n",
    *HALVES,
]
word = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(ODD)
text = st.lists(word | st.sampled_from(["a", "0", "\n", "[/x]", "```", "```python\n"]), max_size=8).map("".join)
number = st.integers() | st.floats() | st.sampled_from([10**30, -1, 0, 2**63, 1e308])
value = st.recursive(
    st.none() | st.booleans() | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
path = st.lists(word | st.sampled_from(["shelf.py", "tests", ".git", "x.py", "a" * 300]), min_size=1, max_size=3).map(
    "/".join
)

COMMANDS = [
    "echo x > $'\\xff.py'",
    "printf '\\xff\\xfe\\0' > b.txt",
    "ln -s $'\\xfe' link; ln -s . loop; ln -s / root",
    "mkdir -p $'d\\n\\t\"' && touch $'d\\n\\t\"/\\\\x'",
    "mkfifo pipe; mkdir empty; chmod 000 shelf.py",
    "rm -rf .git; rm -f shelf.py; mkdir shelf.py",
    "printf 'x%.0s' {1..20000} > long.py; printf '%s' $'\\xed\\xa0\\x80' > half.py",
    "echo '* text=auto working-tree-encoding=UTF-16' > .gitattributes",
    "git init -q scratch; touch scratch/a; git add -A; git commit -qm x",
    "for n in {1..40}; do mkdir -p deep/$n && cd deep/$n; done; touch a",
    "exit 3",
    "cat",
    "kill -9 $$",
    "head -c 300000 /dev/urandom",
    "echo \"$(printf '\\xc3')\"; printf '\\033[31m'",
]
OUTPUTS = [
    "print('sNaN')",
    "import sys; sys.stdout.buffer.write(bytes(range(256)))",
    "print('\\ud83d')",
    "print('9' * 100_000)",
    "print('\\n' * 100_000)",
    "from decimal import Decimal\ndef median(v): return Decimal('sNaN')",
    f"def median(v): return set({(1 << 61) - 1} * n for n in range(2000))",
    "def median(v): return [[]] * 100_000",
    "def median(v):\n    a = []\n    for _ in range(9999): a = [a]\n    return a",
    "def median(v): return 7 ** 100_000",
    "def median(v): return float('nan')",
    "def median(v): return {Ellipsis: median}",
    "def median(v): raise ValueError('\\ud83d' * 100)",
    "class Solution:\n    median = 3",
    "import os\ndef median(v): os.write(3, b'{\"value\":' + b'[' * 9999 + b'\\n')",
    "import os; os.kill(os.getppid(), 9)",
    "(" * 5000,
    "x = " + "-" * 5000 + "1",
    "\0",
    "# coding: utf-16\nprint(1)",
]
ANSWERS = [
    "\\boxed{" * 50,
    "\\boxed{\\frac{1}{0}}",
    "\\boxed{sNaN}",
    "\\boxed{1e999999}",
    "$" * 999,
    "\\boxed{9**9**9}",
]

tool = st.one_of(
    st.builds(lambda command: ("bash", {"command": command}), st.sampled_from(COMMANDS) | text),
    st.builds(lambda p, start: ("view", {"path": p, "start": start}), path, number),
    st.builds(lambda p, content: ("create", {"path": p, "content": content}), path, text),
    st.builds(lambda p, s, r: ("edit", {"path": p, "search": s, "replace": r}), path, text, text),
    st.builds(lambda code, stdin: ("run", {"code": code, "stdin": stdin}), st.sampled_from(OUTPUTS) | text, text),
    st.builds(lambda code: ("python", {"code": code}), st.sampled_from(OUTPUTS) | text),
    st.builds(lambda name, arguments: (name, arguments), word, st.dictionaries(text, value, max_size=3)),
    st.just(("submit", {})),
)
turn = st.one_of(
    st.lists(tool, min_size=1, max_size=3).map(lambda calls: ("calls", calls)),
    text.map(lambda said: ("raw", said)),
    value.map(lambda said: ("raw", json.dumps(said))),
    st.sampled_from(['{"calls": [{}]}', '{"calls": 1}', "{" * 2000, '{"calls":[{"name":"bash","arguments":[]}]}']).map(
        lambda said: ("raw", said)
    ),
    text.map(lambda said: ("format error", said)),
    tool.map(lambda one: ("parsed", f"<tool_call>\n{json.dumps({'name': one[0], 'arguments': one[1]})}\n</tool_call>")),
    text.map(lambda said: ("parsed", f"<tool_call>{said}")),
    st.sampled_from(OUTPUTS).map(lambda program: ("final", f"```python\n{program}\n```")),
    st.sampled_from(ANSWERS).map(lambda said: ("final", said)),
    text.map(lambda said: ("cut", said)),
)


class Plays:
    """A policy of turns that were drawn."""

    def __init__(self, turns):
        self.turns = list(turns)

    async def respond(self, conversation, tools, sampling):
        kind, said = self.turns.pop(0) if self.turns else ("final", "the end")
        reason = "length" if kind == "cut" else "stop"
        if kind == "calls":
            calls = tuple(ToolCall(name=name, arguments=arguments) for name, arguments in said)
            return Turn(message=Message(role="assistant", content="", calls=calls), action=encode_calls(calls))
        if kind == "parsed":
            message, action = JsonParser().parse(said, tools)
            return Turn(message=message, action=action)
        action = encode_format_error(said) if kind == "format error" else said
        return Turn(message=Message(role="assistant", content=said), action=action, finish_reason=reason)


class Metered:
    """Of an environment: the most processor time that one step of it, or its scoring, took of this process."""

    def __init__(self, env):
        self.worst = 0.0
        for name in ("areset", "aact", "ascore", "afinish"):
            setattr(env, name, self._metered(getattr(env, name)))

    def _metered(self, method):
        async def called(*args, **kwargs):
            before = time.process_time()
            try:
                return await method(*args, **kwargs)
            finally:
                self.worst = max(self.worst, time.process_time() - before)

        return called


@pytest.fixture(scope="module")
def backend():
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


def check(make_env, task, turns):
    logging.disable(logging.CRITICAL)
    try:
        for _ in range(3):
            env = make_env()
            meter = Metered(env)
            found = asyncio.run(
                rollout(env, Plays(turns), task, budget=Budget(turns=8, seconds=120), sampling=Sampling())
            )
            if meter.worst < MOST_CPU_S:
                break
    finally:
        logging.disable(logging.NOTSET)
    assert not found.is_infrastructure_failure, (found.ending, found.detail)
    assert found.reward is not None
    assert 0.0 <= found.reward <= 1.0
    assert meter.worst < MOST_CPU_S
    # What is kept of it can be written and read.
    again = Trajectory.from_json(json.loads(json.dumps(found.to_json())))
    assert [message.content for message in again.messages] == [message.content for message in found.messages]
    json.dumps([Verdict.of(found, 0).to_json(), prediction_of(found, env, "p")])


few = settings(suppress_health_check=list(HealthCheck), max_examples=5, derandomize=True)
# A sandbox and a grading each: a family takes minutes.
many = settings(suppress_health_check=list(HealthCheck), max_examples=30)
turns_of = st.lists(turn, max_size=5)


def code_env(backend):
    return CodeEnv(sandbox=backend, tools=True, limits=RunLimits(cpu_s=1.0))


def cruxeval_task():
    call = {"program": "def f(x):\n    return x", "mode": "input", "input": "1", "output": "1"}
    return Task(id="c", family="code", prompt="?", hidden={"call": call, "solution": "f(1)", "time_limit_s": 1.0})


def swe_env(backend):
    return SWEEnv(sandbox=backend, limits=Limits(command_timeout_s=3.0))


def swe_task():
    from verigym.envs.datasets.swe_examples import example_tasks

    return example_tasks()[0]


FAMILIES = {
    "programs": (code_env, lambda: PROGRAMS[0]),
    "functions": (code_env, lambda: PROGRAMS[2]),
    "calls": (code_env, cruxeval_task),
    "mathematics": (lambda backend: MathEnv(sandbox=backend, tools=True), lambda: PROBLEMS[0]),
    "repositories": (swe_env, swe_task),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_episode_ends_as_one(backend, family):
    make_env, task = FAMILIES[family]

    @few
    @given(turns_of)
    def any_turns(turns):
        check(lambda: make_env(backend), task(), turns)

    any_turns()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_very_many_episodes_end_as_one(backend, family):
    make_env, task = FAMILIES[family]

    @many
    @given(turns_of)
    def any_turns(turns):
        check(lambda: make_env(backend), task(), turns)

    any_turns()


@pytest.mark.parametrize("program", OUTPUTS)
def test_every_odd_output_is_graded(backend, program):
    for task in PROGRAMS[::2]:
        check(lambda: code_env(backend), task, [("final", f"```python\n{program}\n```")])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_odd_tree_is_graded(backend, command):
    check(
        lambda: swe_env(backend), swe_task(), [("calls", [("bash", {"command": command})]), ("calls", [("submit", {})])]
    )
