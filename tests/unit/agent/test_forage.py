"""Episodes kept as data: once each, with their outcome, and resumable."""

import asyncio
import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from verigym.__main__ import main
from verigym.agent.forage import Forager, kind_of
from verigym.agent.loop import Budget
from verigym.agent.policy import ScriptedPolicy, Turn, play
from verigym.agent.speakers import Seat
from verigym.agent.trajectory import Trajectory
from verigym.envs.core import Submission, ToolEnv
from verigym.envs.math.env import BUILT_IN
from verigym.envs.task import Task
from verigym.errors import ConfigError, SandboxError, TaskError
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.rewards.score import verdict


class Words(ToolEnv):
    """Wants its prompt back; ``broken`` has no sandbox."""

    family = "words"

    def start(self, task):
        if task.id == "broken":
            raise SandboxError("gone")

    def score(self, task, submission):
        return verdict(submission == task.prompt)


def forager(seeds):
    """A policy that is right with even seeds."""

    def policy_for(env, task):
        class Policy(ScriptedPolicy):
            async def respond(self, conversation, tools, sampling):
                seeds.append(sampling.seed)
                self._script = play([Message(role="assistant", content=task.prompt if sampling.seed % 2 else "no")])
                return await super().respond(conversation, tools, sampling)

        return Policy(play([]))

    return Forager(
        env_id="words/Words-v0",
        make_env=Words,
        policy_for=policy_for,
        budget=Budget(turns=2),
        sampling=Sampling(seed=5),
    )


def words(*names):
    return [Task(id=name, family="words", prompt=f"say {name}") for name in names]


def test_every_way_an_episode_went_is_kept_once(tmp_path):
    out, seeds = tmp_path / "data" / "episodes.jsonl", []
    counts = asyncio.run(forager(seeds).run(words("a", "b", "broken"), out, samples=8))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert counts["sandbox_failure"] == 8
    assert sum(counts.values()) == 24
    assert counts["passed"] + counts["failed"] == len(rows) <= 4
    assert counts["duplicate"] == 16 - len(rows)
    assert len(set(seeds)) == 16
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        trajectory = Trajectory.from_json(row["trajectory"])
        assert row["outcome"] == ("passed" if trajectory.passed else "failed")
        assert (row["env"], row["kind"]) == ("words/Words-v0", "words")
        assert trajectory.passed is (trajectory.messages[-1].content == f"say {trajectory.task_id}")


class Echo:
    """A user who repeats what it hears, and counts."""

    def __init__(self):
        self.heard = []

    async def respond(self, conversation, tools, sampling):
        self.heard.append(conversation[-1].content)
        text = f"you said {conversation[-1].content}"
        return Turn(message=Message(role="assistant", content=text), action=text)


class Talks(Words):
    """A user answers; after two messages the talk is over."""

    def start(self, task):
        self.left = 2

    async def reply(self, task, message):
        said = await self.model("user").say([Message(role="user", content=message)])
        self.left -= 1
        return said.content if self.left else Submission(value=message)


def test_other_speakers_have_their_seats(tmp_path):
    user = Echo()
    talks = replace(
        forager([]),
        make_env=Talks,
        policy_for=lambda env, task: ScriptedPolicy(play([say("hello"), say(task.prompt)])),
        seats={"user": Seat(policy=user, spec="echo")},
    )
    out = tmp_path / "talks.jsonl"
    counts = asyncio.run(talks.run(words("a"), out))
    row = Trajectory.from_json(json.loads(out.read_text())["trajectory"])
    assert counts == Counter(passed=1)
    assert [one.content for one in row.messages] == ["say a", "hello", "you said hello", "say a"]
    assert user.heard == ["hello", "say a"]
    other = replace(talks, seats={"user": Seat(policy=user, spec="another")}, counts=Counter())
    with pytest.raises(ConfigError, match="--model user was echo and is another"):
        asyncio.run(other.run(words("a"), out))
    nobody = replace(talks, seats={}, counts=Counter())
    with pytest.raises(ConfigError, match="--model user was echo and is None"):
        asyncio.run(nobody.run(words("a"), out))


def say(text):
    return Message(role="assistant", content=text)


def test_it_goes_on_where_it_stopped(tmp_path):
    out, seeds = tmp_path / "episodes.jsonl", []
    asyncio.run(forager(seeds).run(words("a", "b"), out))
    asyncio.run(forager(seeds).run(words("a", "b", "c"), out))
    assert len(seeds) == 3
    assert Counter(json.loads(line)["trajectory"]["task_id"] for line in out.read_text().splitlines()) == Counter("abc")
    out.write_text('{"a": 1}\n')
    with pytest.raises(TaskError, match="no trajectories"):
        asyncio.run(forager(seeds).run(words("a"), out))


def test_what_was_no_news_is_not_played_again(tmp_path):
    """Nor is a run lost that was killed in the middle of a row; what had no sandbox is tried again."""
    out, seeds = tmp_path / "episodes.jsonl", []
    tasks = words("a", "b", "broken")
    counts = asyncio.run(forager(seeds).run(tasks, out, samples=4))
    assert counts["duplicate"] >= 4
    assert asyncio.run(forager(seeds).run(tasks, out, samples=4)) == {"sandbox_failure": 4}
    assert len(seeds) == 8
    rows = out.read_text().splitlines(keepends=True)
    out.write_text("".join(rows[:-1]) + rows[-1][:40])
    ledger = tmp_path / "episodes.jsonl.done"
    done = ledger.read_text().splitlines(keepends=True)
    last = json.loads(rows[-1])["trajectory"]["task_id"]
    ledger.write_text("".join(line for line in done if json.loads(line)["task_id"] != last) + done[-1][:9])
    asyncio.run(forager(seeds).run(tasks, out, samples=4))
    assert len(seeds) == 12
    assert {json.loads(line)["id"] for line in out.read_text().splitlines()} == {json.loads(row)["id"] for row in rows}


def test_a_file_that_is_not_ours_stays_as_it_is(tmp_path):
    out = tmp_path / "notes.txt"
    for content in ("no line's end", '{"a": 1}\nno line\'s end', '{"a": 1}'):
        out.write_text(content)
        with pytest.raises(TaskError):
            asyncio.run(forager([]).run(words("a"), out))
        assert out.read_text() == content
    assert not (tmp_path / "notes.txt.done").exists()


def test_kinds():
    swe = {"family": "swe", "prompt": ""}
    assert kind_of(Task(id="a", metadata={"operator": "negate"}, **swe)) == "mutate-fix"
    assert kind_of(Task(id="a", **swe)) == "issue-fix"


def test_the_command(tmp_path, capsys):
    out = str(tmp_path / "episodes.jsonl")
    assert main(["forage", "verigym/Math-v0", "--policy", "gold", "--out", out]) == 0
    assert "passed" in capsys.readouterr().out
    from verigym.trainer.loops.midtrain_sources import read_episodes

    episodes = list(read_episodes(tmp_path / "episodes.jsonl"))
    assert {one.trajectory.task_id for one in episodes} == {task.id for task in BUILT_IN}
    assert all(one.trajectory.passed and one.identity for one in episodes)
    assert main(["forage", "verigym/Math-v0", "--out", out, "--samples", "0"]) == 2


def test_other_settings_are_refused_by_name(tmp_path):
    out = tmp_path / "episodes.jsonl"
    asyncio.run(forager([]).run(words("a"), out))
    before = out.read_text()
    for changes, told in (
        ({"policy": "gold"}, "--policy was  and is gold"),
        ({"sampling": Sampling(seed=6)}, "--seed was 5 and is 6"),
        ({"sampling": Sampling(seed=5, temperature=0.5)}, "--temperature was 1.0 and is 0.5"),
        ({"budget": Budget(turns=3)}, "--max-turns was 2 and is 3"),
        ({"budget": Budget(turns=2, seconds=1.0)}, "--timeout"),
        ({"env_id": "other/Other-v0"}, "ENV_ID"),
    ):
        with pytest.raises(ConfigError, match=re.escape(told)):
            asyncio.run(replace(forager([]), counts=Counter(), **changes).run(words("a"), out))
    assert out.read_text() == before


def test_a_task_that_has_changed_is_another_one(tmp_path):
    out, seeds = tmp_path / "episodes.jsonl", []
    asyncio.run(forager(seeds).run(words("a"), out))
    asyncio.run(forager(seeds).run([replace(words("a")[0], prompt="say it otherwise")], out))
    assert len(seeds) == 2


def test_episodes_whose_rows_are_gone_are_played_again(tmp_path):
    out, seeds = tmp_path / "episodes.jsonl", []
    asyncio.run(forager(seeds).run(words("a", "b"), out))
    rows = out.read_text().splitlines(keepends=True)
    out.unlink()
    counts = asyncio.run(forager(seeds).run(words("a", "b"), out))
    assert counts["passed"] + counts["failed"] == 2
    assert sorted(out.read_text().splitlines(keepends=True)) == sorted(rows) or len(rows) == 2
    out.write_text(rows[0])
    assert sum(asyncio.run(forager(seeds).run(words("a", "b"), out)).values()) == 1


def test_a_ledger_without_settings_is_refused(tmp_path):
    out = tmp_path / "episodes.jsonl"
    asyncio.run(forager([]).run(words("a"), out))
    (tmp_path / "episodes.jsonl.done").write_text('{"task_id": "a", "sample": 0}\n')
    with pytest.raises(ConfigError, match="does not say with which settings"):
        asyncio.run(forager([]).run(words("a"), out))


def test_the_command_says_what_it_did(tmp_path, capsys):
    out = str(tmp_path / "episodes.jsonl")
    assert main(["forage", "verigym/Math-v0", "--policy", "gold", "--out", out]) == 0
    assert f"new episodes to {out}" in capsys.readouterr().out
    assert main(["forage", "verigym/Math-v0", "--policy", "gold", "--out", out]) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert main(["forage", "verigym/Math-v0", "--policy", "empty", "--out", out]) == 2
    assert "--policy was gold and is empty" in capsys.readouterr().err


def test_another_sandbox_is_another_setting_and_ledgers_that_name_none_are_gone_on_with(tmp_path):
    out, seeds = tmp_path / "episodes.jsonl", []
    asyncio.run(forager(seeds).run(words("a"), out))
    other = forager(seeds)
    other.sandbox = "unsafe"
    with pytest.raises(ConfigError, match="--sandbox was auto and is unsafe"):
        asyncio.run(other.run(words("a"), out))
    ledger = tmp_path / "episodes.jsonl.done"
    row = json.loads(ledger.read_text())
    del row["settings"]["--sandbox"]
    ledger.write_text(json.dumps(row) + "\n")
    asyncio.run(other.run(words("a"), out))
    assert len(seeds) == 1


def test_a_limit_is_drawn_by_the_seed(tmp_path, capsys):
    def tasks_of(seed):
        out = tmp_path / f"{seed}.jsonl"
        words = ["forage", "verigym/Math-v0", "--policy", "gold", "--limit", "2", "--seed", str(seed)]
        assert main([*words, "--out", str(out), "--sandbox", "unsafe"]) == 0
        return tuple(json.loads(line)["trajectory"]["task_id"] for line in out.read_text().splitlines())

    found = {tasks_of(seed) for seed in range(4)}
    assert all(len(one) == 2 for one in found)
    assert len(found) > 1
