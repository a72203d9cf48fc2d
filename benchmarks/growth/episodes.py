"""Episodes: at once, one after another, and long ones; with a policy that costs nothing and no sandbox."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import TokenPolicy
from verigym.agent.routing import PrefixRouter
from verigym.envs.core import ToolEnv
from verigym.envs.sandbox.loop_watch import LoopWatch
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.protocols import Rendered
from verigym.model.chat.sampling import Completion, Sampling
from verigym.rewards.score import Score, verdict

from .harness import Subject, Work

_OBSERVED, _SAMPLED = 500, 228


class _Long(ToolEnv):
    family = "long"

    @tool
    def look(self) -> str:
        """Looks."""
        return "seen"

    async def score(self, task: Task, submission: Any) -> Score:
        return verdict(True, "fine")


class _Renderer:
    stop_token_ids = (0,)

    def start(self, messages: Any, tools: Any) -> Rendered:
        return Rendered(token_ids=tuple(range(100)), roles=("user",) * 100)

    def extend(self, sampled: Any, messages: Any) -> Rendered:
        return Rendered(token_ids=tuple(range(_OBSERVED)), roles=("tool",) * _OBSERVED)

    def decode(self, token_ids: Any) -> str:
        return ""


class _Parser:
    def parse(self, text: str, tools: Any) -> tuple[Message, str]:
        call = ToolCall(name="look", arguments={})
        return Message(role="assistant", content="", calls=(call,)), encode_calls([call])


class _Engine:
    """Answers at once; chosen among four by what each has seen, as a fleet's engines are."""

    max_context, policy_version = 1 << 30, 0

    def __init__(self) -> None:
        self._router = PrefixRouter()
        self._answer = Completion(
            token_ids=tuple(range(_SAMPLED)),
            logprobs=(-0.5,) * _SAMPLED,
            policy_version=(3,) * _SAMPLED,
            finish_reason="stop",
        )

    async def generate(self, prompt_ids: Sequence[int], sampling: Any, stop_token_ids: Any) -> Completion:
        engine = self._router.choose(prompt_ids, [0, 0, 0, 0])
        await asyncio.sleep(0)
        self._router.remember(prompt_ids, engine, self._answer.token_ids)
        return self._answer


def _play(count: int, at_once: int, turns: int) -> Work:
    policy = TokenPolicy(_Engine(), _Renderer(), _Parser())  # type: ignore[arg-type]
    budget, task = Budget(turns=turns, tokens=1 << 30, seconds=36_000), Task(id="a", family="long", prompt="")
    left = iter(range(count))

    async def worker(keep: list[object]) -> None:
        for _ in left:
            found = await rollout(_Long(), policy, task, budget=budget, sampling=Sampling(seed=1))
            assert found.ending == "turn_limit", found.detail
            if at_once > 1:
                keep.append(found)

    async def every() -> str:
        kept: list[object] = []
        with LoopWatch() as watch:
            await asyncio.gather(*(worker(kept) for _ in range(at_once)))
            held = watch.peek()
        return f"loop held {held.count} times, {held.cpu_s:.2f} CPU s in all; longest round {held.round_s:.2f} s"

    return lambda: asyncio.run(every())


def at_once(size: int, folder: Path) -> Work:
    """``size`` episodes of 40 turns together, kept."""
    return _play(size, size, 40)


def in_a_row(size: int, folder: Path) -> Work:
    """``size`` episodes of 10 turns one after another, not kept."""
    return _play(size, 1, 10)


def turns(size: int, folder: Path) -> Work:
    """One episode of ``size`` turns of 728 tokens."""
    return _play(1, 1, size)


SUBJECTS = {
    "at once": Subject(make=at_once, sizes=(4, 16, 64, 256), quick=(2, 8, 32, 128), unit="episodes"),
    "in a row": Subject(make=in_a_row, sizes=(31, 125, 500, 2_000), quick=(8, 32, 128, 512), unit="episodes"),
    "turns of one": Subject(make=turns, sizes=(16, 64, 256, 1_024), quick=(4, 16, 64, 256), unit="turns"),
}
