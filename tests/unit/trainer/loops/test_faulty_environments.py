"""Environments whose own code is wrong now and then: a bug is one bad episode, and too many end the run."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportOptionalOperand=false

import asyncio
import logging
import random
import threading
from collections import Counter
from dataclasses import replace

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import TokenPolicy
from verigym.envs.adapters.gymnasium_text import GymnasiumText
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.registry.opening import open_env
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.errors import EnvironmentBug
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.engine.generator import Generator
from verigym.rewards.rubric import Rubric, part
from verigym.trainer.loops.reinforce import RL
from verigym.trainer.recipe.algorithms import GRPOConfig
from verigym.trainer.recipe.config import OptimConfig
from verigym.trainer.recipe.family import FamilyConfig
from verigym.trainer.recipe.recipe import Recipe
from verigym.trainer.run.imitation import play_experts
from verigym.trainer.run.progress import Progress
from verigym.trainer.sampling.families import prepare_family
from verigym.trainer.sampling.rollouts import EpisodePlan, TaskStream

HOOKS = (
    "__init__",
    "check",
    "prompt",
    "start",
    "reply",
    "stand_in",
    "score",
    "part right",
    "feedback",
    "compare",
    "part alike",
)
HOOKS += ("stop", "unfinished", "tool look", "tool alook", "render", "load", "gold")


KINDS = (KeyError, TypeError, ValueError, StopIteration, SystemExit)


class Dice:
    """Which call of which hook fails: of each hook's calls one at random in every ``1 / rate``, whoever else runs."""

    def __init__(self, rate, hooks=HOOKS):
        self.size, self.hooks = round(1 / rate), hooks
        self.calls, self.hits = Counter(), dict.fromkeys(HOOKS, 0)
        self.num_open = 0
        self.lock = threading.Lock()

    def opened(self, by):
        with self.lock:  # of episodes on threads of their own
            self.num_open += by

    def roll(self, hook):
        if hook not in self.hooks:
            return
        with self.lock:
            block, place = divmod(self.calls[hook], self.size)
            self.calls[hook] += 1
            rng = random.Random(f"{hook}/{block}")
            if rng.randrange(self.size) != place:
                return
            self.hits[hook] += 1
        raise rng.choice(KINDS)(f"in {hook}")


def right(submission, env):
    env.dice.roll("part right")
    return submission.split()[:1] == ["9"]


async def alike(episodes, env):
    env.dice.roll("part alike")
    return [0.5] * len(episodes)


class Faulty(ToolEnv):
    family = "faulty"
    rubric = Rubric(right, compare=[part(alike, 0.25)])

    def __init__(self, dice):
        super().__init__()
        self.dice, self.room = dice, None
        dice.roll("__init__")

    def check(self, task):
        self.dice.roll("check")

    def prompt(self, task):
        self.dice.roll("prompt")
        return task.prompt

    def start(self, task):
        self.room = object()
        self.dice.opened(1)
        self.dice.roll("start")

    @tool
    def look(self) -> str:
        """Looks."""
        self.dice.roll("tool look")
        return "seen"

    @tool
    async def alook(self) -> str:
        """Looks, on the loop."""
        await asyncio.sleep(0)
        self.dice.roll("tool alook")
        return "seen"

    def unfinished(self, task):
        self.dice.roll("unfinished")
        return "9"

    async def reply(self, task, message):
        """A user is asked, who has no say in it."""
        self.dice.roll("reply")
        await self.model("user").say(self.transcript)
        return Submission(value=message)

    def stand_in(self, name, messages):
        self.dice.roll("stand_in")
        return "so?"

    async def score(self, task, submission):
        self.dice.roll("score")
        return await super().score(task, submission)

    def feedback(self, task, score):
        self.dice.roll("feedback")
        return "well"

    async def compare(self, task, episodes):
        self.dice.roll("compare")
        return await super().compare(task, episodes)

    def stop(self):
        if self.room is not None:
            self.room = None
            self.dice.opened(-1)
        self.dice.roll("stop")


class CallingParser:
    """A turn that begins with 3 to 8 calls a tool; any other is the answer."""

    def parse(self, text, tools):
        first = int((text.split() or ["0"])[0])
        name = "look" if 3 <= first <= 5 else "alook"
        action = encode_calls([ToolCall(name=name)]) if 3 <= first <= 8 else text
        return Message(role="assistant", content=text), action

    def format(self, message, tools):
        return message.content


class Ending(TokenPolicy):
    """Most turns of this model meet their limit of tokens; of four, three count as ended."""

    async def respond(self, conversation, tools, sampling):
        turn = await super().respond(conversation, tools, sampling)
        return replace(turn, finish_reason="stop") if sampling.seed % 4 else turn


class FaultyLake(GymnasiumText):
    """A lake of which an observation cannot be shown now and then."""

    def __init__(self, dice):
        def render(square):
            dice.roll("render")
            return str(square)

        self.dice = dice
        super().__init__("FrozenLake-v1", render=render)

    def start(self, task):
        self.dice.opened(1)
        super().start(task)

    def stop(self):
        self.dice.opened(-1)
        super().stop()


def run(make_decoder, words, dice, *, steps, env="Faulty", made_in_s=5.0, **changes):
    decoder = make_decoder(vocab_size=16, max_position_embeddings=64)
    generator = Generator(decoder, max_context=48, seed=1)
    plan = EpisodePlan(
        make_env=lambda: open_env(f"{__name__}:{env}", {}, {"dice": dice}),
        budget=Budget(turns=3, tokens=64, seconds=30),
        turn_tokens=4,
        made_in_s=made_in_s,
        compares=env != "FaultyLake",
    )
    tasks = [
        Task(id=str(n), family="gymnasium" if env == "FaultyLake" else "faulty", prompt=f"{n} please") for n in range(4)
    ]
    loop = RL(
        decoder,
        generator,
        Ending(generator, words.renderer(), CallingParser()),
        lambda task: plan,
        config=GRPOConfig(num_tasks=2, group_size=8, microbatch_tokens=256, **changes),
        optim=OptimConfig(lr=1e-2),
        tasks=TaskStream(tasks),
    )
    found = []
    try:
        asyncio.run(loop.run(steps, on_step=found.append))
    finally:
        generator.close()
    return found


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = {one for one in threading.enumerate() if one.name == "verigym-tool"}
    yield
    for one in set(threading.enumerate()) - before:
        if one.name == "verigym-tool":
            one.join(timeout=60)
    assert {one for one in threading.enumerate() if one.name == "verigym-tool"} <= before


def test_a_bug_in_five_of_a_hundred_calls_loses_no_step(make_decoder, words, caplog):
    dice = Dice(0.05)
    with caplog.at_level(logging.ERROR, "verigym.agent.failures"):
        found = run(make_decoder, words, dice, steps=6)
    assert [one.step for one in found] == [1, 2, 3, 4, 5, 6]
    assert all(one.metrics["rollout/episodes/count"] >= 14 for one in found)
    counted = {
        hook: sum(one.metrics.get(f"rollout/bugs_{hook.replace(' ', '_')}/count", 0) for one in found) for hook in HOOKS
    }
    elsewhere = {"compare", "part alike", "render", "load", "gold"}
    assert [hook for hook in HOOKS if not dice.hits[hook] and hook not in elsewhere] == []
    # What "stop" fails at after another hook has failed is told, and is not what ended the episode.
    assert {**counted, "stop": 0} == {**dice.hits, "stop": 0}
    assert 0 < counted["stop"] <= dice.hits["stop"]
    assert sum(one.metrics["rollout/retries/count"] for one in found) > 10
    assert dice.num_open == 0
    shown = [record.getMessage() for record in caplog.records]
    assert len(shown) < sum(dice.hits.values())
    assert len(shown) <= len(KINDS) * len(HOOKS)
    score = next(record for record in caplog.records if "Faulty.score failed in task" in record.getMessage())
    assert score.exc_info is not None
    assert "dice.roll" in caplog.text  # the traceback leads into the hook


def test_an_observation_that_cannot_be_shown_is_a_bug_by_its_name(make_decoder, words):
    dice = Dice(0.05)
    found = run(make_decoder, words, dice, steps=4, env="FaultyLake")
    assert [one.step for one in found] == [1, 2, 3, 4]
    assert sum(one.metrics.get("rollout/bugs_render/count", 0) for one in found) == dice.hits["render"] > 2
    assert dice.num_open == 0
    dice = Dice(0.5)
    with pytest.raises(EnvironmentBug, match=r"by hook: render [0-9]+; .*FaultyLake\.render failed"):
        run(make_decoder, words, dice, steps=6, env="FaultyLake", retries=0)
    assert dice.num_open == 0


class Hanging(Faulty):
    hook_timeout_s = 1.0

    def prompt(self, task):
        try:
            return super().prompt(task)
        except (Exception, SystemExit):
            while True:
                pass


def test_a_hook_that_hangs_in_five_of_a_hundred_calls_loses_no_step(make_decoder, words):
    dice = Dice(0.05, hooks=("prompt",))
    found = run(make_decoder, words, dice, steps=3, env="Hanging")
    assert [one.step for one in found] == [1, 2, 3]
    assert sum(one.metrics.get("rollout/bugs_prompt/count", 0) for one in found) == dice.hits["prompt"] > 1
    assert dice.num_open == 0


class HangingToBeMade(Faulty):
    def __init__(self, dice):
        try:
            super().__init__(dice)
        except (Exception, SystemExit):
            while True:
                pass


def test_a_constructor_that_hangs_in_five_of_a_hundred_calls_loses_no_step(make_decoder, words):
    dice = Dice(0.05, hooks=("__init__",))
    found = run(make_decoder, words, dice, steps=3, env="HangingToBeMade", made_in_s=0.3)
    assert [one.step for one in found] == [1, 2, 3]
    assert sum(one.metrics.get("rollout/bugs___init__/count", 0) for one in found) == dice.hits["__init__"] > 1


class FaultyGold(ToolEnv):
    dice: Dice

    def load(self):
        self.dice.roll("load")
        return [Task(id=str(n), family="gold", prompt="?") for n in range(60)]

    def score(self, task, submission):
        return True

    def gold(self, task):
        self.dice.roll("gold")
        return [Message(role="assistant", content="yes")]


def demonstrations(tmp_path, monkeypatch, dice):
    monkeypatch.setattr(FaultyGold, "dice", dice, raising=False)
    family = FamilyConfig(
        name="gold", env=f"{__name__}:FaultyGold", num_train=50, num_held_out=10, num_demonstrations=50
    )
    recipe = Recipe(name="r", sandbox="unsafe", families=[family])
    made = asyncio.run(prepare_family(family, recipe, tmp_path, lambda done, wanted: None))
    return asyncio.run(play_experts(made, recipe, Progress(), lambda: None))


def test_gold_that_fails_in_five_of_a_hundred_calls_loses_no_demonstration(tmp_path, monkeypatch, caplog):
    assert len(demonstrations(tmp_path, monkeypatch, Dice(0.05, hooks=("gold",)))) == 50
    assert "FaultyGold.gold failed in task" in caplog.text
    with pytest.raises(EnvironmentBug, match=r"by hook: gold [0-9]+; .*FaultyGold\.gold failed"):
        demonstrations(tmp_path, monkeypatch, Dice(1.0, hooks=("gold",)))


def test_tasks_that_cannot_be_loaded_end_a_run_with_the_hooks_name(tmp_path, monkeypatch):
    with pytest.raises(EnvironmentBug, match=r"FaultyGold\.load failed"):
        demonstrations(tmp_path, monkeypatch, Dice(1.0, hooks=("load",)))


def test_bugs_of_comparisons_are_counted_too_and_tried_again(make_decoder, words):
    dice = Dice(0.2, hooks=("compare", "part alike"))
    found = run(make_decoder, words, dice, steps=4)
    assert len(found) == 4
    for hook in dice.hooks:
        name = f"rollout/bugs_{hook.replace(' ', '_')}/count"
        assert sum(one.metrics.get(name, 0) for one in found) == dice.hits[hook] > 0


def test_a_bug_in_every_other_call_stops_the_run_with_one_message(make_decoder, words):
    dice = Dice(0.5)
    with pytest.raises(EnvironmentBug) as told:
        run(make_decoder, words, dice, steps=6)
    assert "of the last" in str(told.value)
    assert "max_failures allows a share of 0.2" in str(told.value)
    assert "Faulty" in str(told.value)
    assert dice.num_open == 0


def test_the_share_is_the_recipes(make_decoder, words):
    found = run(make_decoder, words, Dice(0.5, hooks=("prompt",)), steps=2, max_failures=1.0, retries=0)
    assert len(found) == 2
    assert sum(one.metrics["rollout/failures/count"] for one in found) > 8
    with pytest.raises(EnvironmentBug, match=r"by hook: prompt [0-9]+;"):
        run(make_decoder, words, Dice(1.0, hooks=("prompt",)), steps=2, retries=0)
