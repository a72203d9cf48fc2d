"""mini-swe-agent, an agent of others, drives a served model through its own client (litellm).

It needs an interpreter of its own: ``python -m venv DIR && DIR/bin/pip install mini-swe-agent``, and
``VERIGYM_MINI_SWE_AGENT=DIR/bin/python``.
"""

import json
import os
import subprocess

import pytest

from verigym.model.chat.api import from_openai_tools
from verigym.model.chat.messages import Message, ToolCall

from .test_serve import serving, tiny

PYTHON = os.environ.get("VERIGYM_MINI_SWE_AGENT", "")
CLIENT = """
import json, sys
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.litellm_model import LitellmModel

url, name, folder = sys.argv[1:]
kwargs = {"api_base": url, "api_key": "none", "temperature": 0.0}
model = LitellmModel(model_name=f"openai/{name}", model_kwargs=kwargs, cost_tracking="ignore_errors")
templates = {"system_template": "You use bash.", "instance_template": "{{task}}"}
agent = DefaultAgent(model, LocalEnvironment(cwd=folder), step_limit=4, **templates)
ending = agent.run("Write hello to out.txt.")["exit_status"]
print(json.dumps([ending, [message["role"] for message in agent.messages]]))
"""
TOOL = {  # as mini-swe-agent announces it
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Execute a bash command",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "description": "The bash command to execute"}},
            "required": ["command"],
        },
    },
}
FIRST = "I write it.\n<tool: bash>\necho hello > out.txt\n</tool>"
SECOND = "Done.\n<tool: bash>\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n</tool>"
ANSWER = "<returncode>0</returncode>\n<output>\n</output>"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="VERIGYM_MINI_SWE_AGENT names no interpreter with mini-swe-agent")
def test_mini_swe_agent_does_a_task(tmp_path):
    """A model that knows two turns by heart: two calls of a tool, the first one's answer between them, a file."""
    start = [Message(role="system", content="You use bash."), Message(role="user", content="Write hello to out.txt.")]
    call = ToolCall(name="bash", arguments={"command": "echo hello > out.txt"})
    said = Message(role="assistant", content="I write it.", calls=(call,))
    answered = [*start, said, Message(role="tool", name="bash", content=ANSWER)]
    tools = from_openai_tools([TOOL])
    texts = [FIRST + SECOND + ANSWER, "Execute a bash command"] * 20
    teach = [(start, tools, FIRST), (answered, tools, SECOND)]
    folder = tiny(tmp_path / "taught", texts=texts, teach=teach, steps=400)
    (tmp_path / "box").mkdir()
    with serving(folder) as (url, _):
        argv = [PYTHON, "-c", CLIENT, url, "taught", str(tmp_path / "box")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        "Submitted",
        ["system", "user", "assistant", "tool", "assistant", "exit"],
    ]
    assert (tmp_path / "box" / "out.txt").read_text() == "hello\n"
