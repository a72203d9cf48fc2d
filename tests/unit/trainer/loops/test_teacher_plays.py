"""A teacher acts with its block before its eyes: how often it passes, beside its students on the same tasks."""

import asyncio
import secrets
from dataclasses import replace

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import Turn
from verigym.agent.segments import TokenTurn
from verigym.agent.speakers import Seat
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.task import Task
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict
from verigym.trainer.learning.hindsight import Hindsight
from verigym.trainer.loops.teacher_plays import MOST_TASKS, PLAYS, teacher_plays
from verigym.trainer.recipe.algorithms import GRPOConfig, SDPOConfig
from verigym.trainer.sampling.rollouts import EpisodePlan

SECRET = f"s{secrets.token_hex(4)}"


class Guess(ToolEnv):
    """The second answer must be the secret, which what is said of an attempt tells; a judge in a seat is asked too."""

    family = "f"

    def __init__(self, heard):
        super().__init__()
        self._heard = heard

    def reply(self, task, answer):
        return "and now?" if len(self.transcript) < 3 else Submission(value=answer, message="")

    async def score(self, task, submission):
        said = await self.model("judge").say([Message(role="user", content="well?")])
        self._heard.append(said.content)
        return verdict(submission == SECRET)


class Reader:
    """Says the secret where its first user message tells it; its tokens count for one a turn."""

    async def respond(self, conversation, tools, sampling):
        first = next(one for one in conversation if isinstance(one, Message))
        said = SECRET if SECRET in first.content else "no"
        ids = (1,) * (1 + 2 * sum(isinstance(one, Turn) for one in conversation))
        tokens = TokenTurn(
            prompt_ids=ids, prompt_roles=("user",) * len(ids), token_ids=(2,), logprobs=(-1.0,), policy_version=(0,)
        )
        return Turn(message=Message(role="assistant", content=said), action=said, tokens=tokens)


def play(make_segment, make_trajectory, *, step=0, num_tasks=3, said=SECRET, config=None, **hindsight):
    """(metrics, what judges said) of plays after a step whose every task has one episode that passed and one that did
    not."""
    tasks = [Task(id=f"t{number}", family="f", prompt="?") for number in range(num_tasks)]
    trajectories = [
        replace(
            make_trajectory(make_segment([1, 2, 3], [0, 0, 1]), reward=float(passed), group=task.id),
            passed=passed,
            evidence={"feedback": said},
        )
        for task in tasks
        for passed in (False, True)
    ]
    heard = []
    plan = EpisodePlan(
        make_env=lambda: Guess(heard), budget=Budget(turns=4, tokens=64, seconds=60), seats={"judge": Seat()}
    )
    config = config or SDPOConfig(hindsight={"parts": ["feedback"], **hindsight})
    texts = []

    def encode(text):
        texts.append(text)
        return [len(texts) - 1] * 10

    return asyncio.run(
        teacher_plays(
            step,
            Hindsight(encode=encode, max_context=64, decode=lambda ids: texts[ids[0]]),
            trajectories,
            [config] * len(trajectories),
            tasks,
            lambda task: plan,
            Reader(),
            config=config,
            sampling=Sampling(max_tokens=4, seed=1),
        )
    ), heard


@pytest.mark.parametrize(("said", "rate"), [(SECRET, 1.0), ("nothing", 0.0)], ids=["told", "not told"])
@pytest.mark.parametrize("of", ["all", "failed"])
def test_a_teacher_passes_as_its_block_lets_it_and_nobody_else_reads_that(
    make_segment, make_trajectory, said, rate, of
):
    found, heard = play(make_segment, make_trajectory, said=said, of=of)
    assert found == {
        "trainer/teacher_passed/rate": rate,
        "trainer/teacher_reward/mean": rate,
        "trainer/student_passed/rate": 0.5,  # of all, also where failures alone are taught
        "trainer/student_reward/mean": 0.5,
        "trainer/teacher_plays_tokens/count": 3 * PLAYS * 2,
    }
    assert heard == ["no"] * 3 * PLAYS  # the same policy in another seat


def test_plays_are_few_and_only_where_they_are_due(make_segment, make_trajectory):
    found, heard = play(make_segment, make_trajectory, num_tasks=MOST_TASKS + 3, step=10)
    assert len(heard) == MOST_TASKS * PLAYS
    assert found["trainer/teacher_passed/rate"] == 1.0
    for settings in (
        {"step": 1},
        {"sample_every": 0},
        {"said": ""},
        {"config": SDPOConfig(teacher="elsewhere", hindsight={"parts": ["feedback"]})},
        {"config": GRPOConfig()},
    ):
        found, heard = play(make_segment, make_trajectory, **settings)
        assert (found.get("trainer/teacher_passed/rate"), heard) == (None, [])
