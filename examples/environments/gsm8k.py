"""GSM8K with a Python tool: rows as published, code in a sandbox, the number after #### as the answer."""

import json
from pathlib import Path

from verigym.envs.math.env import MathEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message, ToolCall

SUM = "Sam has 3 boxes of 4 pens and gives 5 away. How many are left?"
ROWS = [{"question": SUM, "answer": "3*4=<<3*4=12>>12 pens.\n12-5=<<12-5=7>>7\n#### 7"}]


class Gsm8k(MathEnv):
    """``data`` is a file of GSM8K's JSON Lines; without it there is one row to try."""

    def __init__(self, *, data: str | None = None, **kwargs):
        super().__init__(tools=True, **kwargs)
        self.rows = [json.loads(line) for line in Path(data).read_text().splitlines()] if data else ROWS

    def load(self):
        return [self.task_of(number, **row) for number, row in enumerate(self.rows)]

    def task_of(self, number, question, answer):
        final = answer.rpartition("####")[2].strip().replace(",", "")
        return Task(id=f"gsm8k-{number}", family=self.family, prompt=question, hidden={"answer": final})

    def gold(self, task):
        call = ToolCall(name="python", arguments={"code": f"print({task.hidden['answer']})"})
        return [Message(role="assistant", content="", calls=(call,)), *super().gold(task)]
