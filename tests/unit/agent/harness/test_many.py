"""As many episodes as a process may have, each with a harness that is a thread: none waits for another's."""

import asyncio
import json
import threading
import urllib.request
from dataclasses import dataclass

from verigym.agent.harness.episode import rollout_with
from verigym.agent.harness.spec import Done
from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.core import ToolEnv
from verigym.envs.sandbox.background import MAX_EPISODES, on_own_thread, on_thread
from verigym.envs.task import Task
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict

from .conftest import Told


class Number(ToolEnv):
    """The final text must be the task's number. Its hooks are synchronous: each takes a thread."""

    family = "number"

    def score(self, task, submission):
        return verdict(submission == task.id, f"it is {submission!r}")


@dataclass(frozen=True, kw_only=True)
class Threads:
    """Asks twice, with a tool between that runs on a thread, once all of the others are on their threads too."""

    meeting: threading.Barrier
    name: str = "threads"

    async def run(self, stage):
        loop = asyncio.get_running_loop()
        said = await on_own_thread(self.act, loop, stage)
        return Done(exit="done", submission=said)

    def act(self, loop, stage):
        self.meeting.wait()
        first = self.ask(stage, [{"role": "user", "content": stage.prompt}])
        tool = asyncio.run_coroutine_threadsafe(on_thread(str.strip, f" {stage.prompt} "), loop)
        number = tool.result(timeout=60)
        told = [{"role": "assistant", "content": first}, {"role": "user", "content": "again"}]
        self.ask(stage, [{"role": "user", "content": stage.prompt}, *told])
        return number

    def ask(self, stage, messages):
        body = json.dumps({"model": stage.beside.model, "messages": messages}).encode()
        headers = {"content-type": "application/json", "authorization": f"Bearer {stage.beside.key}"}
        request = urllib.request.Request(f"{stage.beside.root}/v1/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["choices"][0]["message"]["content"]


def test_256_threads_of_agents_at_once(tokenizer):
    policy = TokenPolicy(Told(tokenizer, "well"), CwmRenderer(tokenizer), CwmParser())
    harness = Threads(meeting=threading.Barrier(MAX_EPISODES, timeout=60))
    budget = Budget(turns=4, tokens=4000, seconds=60)

    async def all_of_them():
        return await asyncio.gather(
            *(
                rollout_with(
                    harness, Number(), policy, Task(id=str(number), family="number", prompt=str(number)),
                    budget=budget, sampling=Sampling(max_tokens=20),
                )
                for number in range(MAX_EPISODES)
            )
        )  # fmt: skip

    found = asyncio.run(all_of_them())
    assert [(one.task_id, one.ending, one.reward, one.num_turns) for one in found] == [
        (str(number), "answered", 1.0, 2) for number in range(MAX_EPISODES)
    ]
    assert all(len(one.segments) == 1 for one in found), "the second request goes on from the first"
    assert not [one for one in threading.enumerate() if one.name == "verigym-agent"], "they end with their agents"
