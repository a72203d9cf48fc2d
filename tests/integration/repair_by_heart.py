"""A tiny model that knows by heart how mini-swe-agent mends the first example of ``verigym/SWE-v0``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verigym.envs.swe.env import SWEEnv
from verigym.model.chat.api import from_openai_tools
from verigym.model.chat.messages import Message, ToolCall

from .test_serve import tiny

CONFIG = """
agent:
  system_template: "You use bash."
  instance_template: "{{task}}"
"""
"""Of the agent: short prompts, for a small context."""
MEND = "sed -i 's/thickness < self/thickness <= self/' shelf.py"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
ANSWER = "<returncode>0</returncode>\n<output>\n</output>"


def knows_the_repair(folder: Path, bash: Mapping[str, Any]) -> Path:
    """Train it into ``folder``. ``bash``: the agent's tool, as OpenAI's API has it."""
    (task, *_) = SWEEnv().load()
    tools = from_openai_tools([bash])
    start = [Message(role="system", content="You use bash."), Message(role="user", content=SWEEnv().prompt(task))]
    said = Message(role="assistant", content="", calls=(ToolCall(name="bash", arguments={"command": MEND}),))
    answered = [*start, said, Message(role="tool", name="bash", content=ANSWER)]
    turns = [f"<tool: bash>\n{command}\n</tool>" for command in (MEND, SUBMIT)]
    texts = ["\n".join([start[1].content, *turns, ANSWER, "Execute a bash command"])] * 20
    teach = [(start, tools, turns[0]), (answered, tools, turns[1])]
    return tiny(folder, texts=texts, teach=teach, steps=400)
