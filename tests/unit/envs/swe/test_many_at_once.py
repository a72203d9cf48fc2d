"""Many episodes at once: none stands still for another, whatever is cancelled and whatever raises."""

# Stand-ins, and what no type allows.
# pyright: reportAttributeAccessIssue=false

import asyncio
import random
import threading

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.code import compare
from verigym.envs.core import ToolEnv
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.sandbox.loop_watch import stacks_of_tasks
from verigym.envs.sandbox.types import SandboxSpec
from verigym.envs.swe.env import SWEEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import GradingError
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict


def test_sandboxes_begin_and_end_while_others_wait_on_threads(local_backend, monkeypatch):
    """64 comparisons of long reports wait for two processes; nobody else's sandbox waits with them."""
    release, waiting = threading.Event(), threading.Semaphore(0)

    def compared(self, *_):
        waiting.release()
        assert release.wait(300)
        return True

    monkeypatch.setattr(compare.Comparer, "__call__", compared)
    report = "1\n" * compare.SMALL_TEXT

    async def main():
        others = [asyncio.create_task(compare.same("printed", report, report + "2")) for _ in range(64)]
        try:
            async with asyncio.timeout(120):
                box = await local_backend.create(SandboxSpec())
                found = await box.aexec("echo on")
                await box.aclose()
        finally:
            release.set()
            assert await asyncio.gather(*others) == [True] * 64
        return found.output

    assert asyncio.run(main()).strip() == "on"
    assert sum(waiting.acquire(blocking=False) for _ in range(64)) == 64


async def finished(running, cancel, *, timeout_s):
    """Let episodes run and cancel some at random moments; what each came to. Fails with every task's stack where one
    stands still."""

    async def cancels():
        for one, turns in cancel:
            for _ in range(turns):
                await asyncio.sleep(0)
            one.cancel()

    ending = asyncio.create_task(cancels())
    _, pending = await asyncio.wait([*running, ending], timeout=timeout_s)
    if pending:
        told = stacks_of_tasks()
        for one in pending:
            one.cancel()
        pytest.fail(f"{len(pending)} of {len(running)} episodes stand still:\n{told}")
    return await asyncio.gather(*running, return_exceptions=True)


class Busy(ToolEnv):
    """Its tools work on the loop and on threads; its grader raises for some."""

    family = "busy"
    num_open, is_open = 0, False

    async def start(self, task):
        self.is_open = True
        Busy.num_open += 1

    async def stop(self):
        Busy.num_open -= self.is_open
        self.is_open = False

    @tool
    async def wait(self) -> str:
        """On the loop."""
        await asyncio.sleep(0)
        return "waited"

    @tool
    def work(self) -> str:
        """On a thread."""
        return "worked"

    async def score(self, task, submission):
        if task.hidden["raises"]:
            raise task.hidden["raises"]("the grader")
        return verdict(True, "fine")


CALLS = [Message(role="assistant", content="", calls=(ToolCall(name=n, arguments={}),)) for n in ("wait", "work") * 3]


@pytest.mark.parametrize("seed", range(3))
def test_256_episodes_end_through_cancels_and_a_grader_that_raises(seed):
    rng = random.Random(seed)
    raises = [rng.choice([None, None, GradingError, RuntimeError, SystemExit]) for _ in range(256)]

    async def main():
        running = []
        for number, error in enumerate(raises):
            task = Task(id=str(number), family="busy", prompt="", hidden={"raises": error})
            policy = ScriptedPolicy(play([*CALLS, Message(role="assistant", content="done")]))
            episode = rollout(Busy(), policy, task, budget=Budget(), sampling=Sampling())
            running.append(asyncio.create_task(episode, name=f"episode {number}"))
        chosen = rng.sample(range(256), 80)
        found = await finished(running, [(running[n], rng.randint(0, 5)) for n in chosen], timeout_s=120)
        return set(chosen), found

    chosen, found = asyncio.run(main())
    for number, one in enumerate(found):
        if isinstance(one, asyncio.CancelledError):
            assert number in chosen
        else:
            expected = {None: "answered", GradingError: "grader_failure"}.get(raises[number], "environment_failure")
            assert one.ending == expected, (number, one.detail)
    assert Busy.num_open == 0


@pytest.mark.slow
def test_64_episodes_of_repositories_end_through_cancels_and_a_grader_that_raises(local_backend, monkeypatch):
    rng = random.Random(0)
    tasks, score_patch = example_tasks(), SWEEnv.score_patch

    async def raising(self, task, patch):
        if rng.random() < 0.2:
            raise RuntimeError("the grader")
        return await score_patch(self, task, patch)

    monkeypatch.setattr(SWEEnv, "score_patch", raising)

    async def main():
        room = asyncio.Semaphore(32)

        async def episode(task):
            async with room:
                env = SWEEnv(sandbox=local_backend, reuse_verdicts=True)
                policy = ScriptedPolicy(play(env.gold(task)))
                return await rollout(env, policy, task, budget=Budget(), sampling=Sampling())

        running = [asyncio.create_task(episode(tasks[n % len(tasks)]), name=f"episode {n}") for n in range(64)]
        chosen = rng.sample(running, 16)
        return await finished(running, [(one, rng.randint(0, 5000)) for one in chosen], timeout_s=1500)

    found = asyncio.run(main())
    endings = [one.ending for one in found if not isinstance(one, BaseException)]
    assert len(endings) >= 48
    assert set(endings) <= {"submitted", "environment_failure"}
    assert "submitted" in endings
