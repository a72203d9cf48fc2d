"""mini-swe-agent as a process of the sandbox: what its command is told, and what its end comes to. A program stands in
for ``mini``; tests/integration has the real one in a container."""

import asyncio

import pytest

from verigym.agent.harness.mini_swe_agent_inside import MiniSweAgentInside
from verigym.agent.harness.open import harness_of
from verigym.errors import ConfigError

from .conftest import CALLS, CLIENT, Desk, episode

WRITE = CALLS.format("echo good > out.txt")
MINI = (
    CLIENT
    + """
import argparse
parser = argparse.ArgumentParser()
for name in ("agent-class", "cost-limit", "model", "task", "output", "config"):
    parser.add_argument("--" + name, required=True)
told = parser.parse_args()
assert (told.agent_class, told.cost_limit, told.model) == ("default", "0", "openai/verigym"), told
assert told.task == open(os.environ["VERIGYM_PROMPT"]).read()
config = open(told.config).read().split()
loop()
print("config", config)
if config[0] == "crash":
    sys.exit(3)
json.dump({"info": {"exit_status": config[0]}}, open(told.output, "w"))
"""
)


class WithMini(Desk):
    async def start(self, task):
        await super().start(task)
        assert self.sandbox is not None
        await self.sandbox.write_file("/tmp/mini.py", MINI.encode())
        await self.sandbox.aexec('mini() { python3 /tmp/mini.py "$@"; }; export -f mini')


@pytest.mark.parametrize(
    ("status", "ending", "exit_"),
    [("Submitted", "answered", "Submitted"), ("LimitsExceeded", "turn_limit", "LimitsExceeded"),
     ("crash", "agent_crash", "exit 3")],
)  # fmt: skip
def test_its_end_is_the_episodes(status, ending, exit_, policy, task, tmp_path):
    (tmp_path / "own.yaml").write_text(f"{status} of a file here")
    agent = f"mini-swe-agent-inside:{tmp_path / 'own.yaml'}"
    found = asyncio.run(episode(agent, policy(WRITE, "done"), task, env=WithMini()))
    assert (found.ending, found.agent["exit"], found.num_turns, found.reward) == (ending, exit_, 2, 1.0), found
    assert "'here'" in found.agent["output"]


def test_a_sandbox_without_it_says_what_to_install(policy, task):
    with pytest.raises(ConfigError, match=r"no mini-swe-agent in the sandbox .*mini: command not found.* in /opt/mini"):
        asyncio.run(episode("mini-swe-agent-inside", policy("x"), task))


def test_its_settings_are_those_it_brings_where_none_are_named():
    found = harness_of("mini-swe-agent-inside")
    assert isinstance(found, MiniSweAgentInside)
    assert found.config == "mini.yaml"
