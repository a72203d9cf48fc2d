"""An environment that is a sandbox, a model that says what it is told, and programs that are agents."""

import shlex
import textwrap

import pytest

from verigym.agent.harness.open import open_agent
from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy, joined
from verigym.envs.core import ToolEnv
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.envs.task import Task
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.sampling import CompletionPart, Sampling
from verigym.model.tokenizer import train_tokenizer
from verigym.rewards.score import verdict

CALLS = "<tool: bash>\n{}\n</tool>"
CLIENT = """
import json, os, subprocess, sys, urllib.error, urllib.request
KEY, MODEL = os.environ["OPENAI_API_KEY"], os.environ["VERIGYM_MODEL"]
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {
    "type": "object", "properties": {"command": {"type": "string"}}}}}

def post(url, body, key=KEY):
    headers = {"content-type": "application/json", "authorization": "Bearer " + key}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)

def ask(messages, url=os.environ["OPENAI_BASE_URL"], key=KEY):
    return post(url + "/chat/completions", {"model": MODEL, "messages": messages, "tools": [TOOL]}, key)

def loop():
    messages = [{"role": "user", "content": open(os.environ["VERIGYM_PROMPT"]).read()}]
    while True:
        status, answer = ask(messages)
        if status != 200:
            sys.exit("refused: " + json.dumps(answer))
        said = answer["choices"][0]["message"]
        messages.append(said)
        if not said.get("tool_calls"):
            return said["content"]
        for call in said["tool_calls"]:
            command = json.loads(call["function"]["arguments"])["command"]
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": done.stdout + done.stderr})
"""


class Desk(ToolEnv):
    """A sandbox of its own; what is in out.txt must be "good", or else the final text."""

    family = "desk"

    def __init__(self, backend="local", limits=None):
        super().__init__()
        self.backend, self.limits = make_backend(backend), limits or Limits()
        self.sandbox = None

    async def start(self, task):
        self.sandbox = await self.backend.create(SandboxSpec(limits=self.limits))

    async def stop(self):
        if self.sandbox is not None:
            await self.sandbox.aclose()

    async def unfinished(self, task):
        return await self.found()

    async def found(self):
        assert self.sandbox is not None
        result = await self.sandbox.aexec("cat out.txt 2>/dev/null")
        return result.output.strip() or None

    async def score(self, task, submission):
        text = await self.found() or submission
        return verdict(text == "good", f"it is {text!r}")


class Words(ToolEnv):
    """No sandbox: the final text must be "good"."""

    family = "desk"

    def score(self, task, submission):
        return verdict(submission == "good", f"it is {submission!r}")


class Told:
    policy_version, max_context = 3, 4000

    def __init__(self, tokenizer, *texts):
        self.tokenizer, self.texts = tokenizer, list(texts)

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        return joined([part async for part in self.stream(prompt_ids, sampling, stop_token_ids)])

    async def stream(self, prompt_ids, sampling, stop_token_ids):
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(text, Exception):
            raise text
        ids = [*self.tokenizer.encode(text), stop_token_ids[0]]
        for place, token in enumerate(ids):
            last = place == len(ids) - 1
            yield CompletionPart(
                token_ids=(token,), logprobs=(-0.5,), policy_version=(3,),
                finish_reason="stop" if last else None, stop_reason=token if last else None,
            )  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(["the quick brown fox <tool: bash>\nls -l\n</tool> jumps" * 8], 320)


@pytest.fixture
def policy(tokenizer):
    """Makes a policy that says the given texts."""
    return lambda *texts: TokenPolicy(Told(tokenizer, *texts), CwmRenderer(tokenizer), CwmParser())


@pytest.fixture
def task():
    return Task(id="d1", family="desk", prompt="Write good.")


def python(program, place="command"):
    """The SPEC of an agent that is a Python program over ``CLIENT``."""
    return f"{place}:python3 -c {shlex.quote(CLIENT + textwrap.dedent(program))}"


async def episode(agent, policy, task, *, env=None, turns=8, seconds=60.0):
    sampling = Sampling(max_tokens=300)
    budget = Budget(turns=turns, tokens=4000, seconds=seconds)
    return await open_agent(agent)(env or Desk(), policy, task, budget=budget, sampling=sampling)
