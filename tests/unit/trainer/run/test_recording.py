"""What a stage keeps of its episodes, also where it is killed in the middle and goes on."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from verigym.agent.trajectory import Segment, Trajectory
from verigym.envs.runs.parts import LineParts
from verigym.model.chat.messages import Message, ToolCall
from verigym.trainer.learning.kept import FOUND, KeptTokens
from verigym.trainer.loops.loop import StepResult
from verigym.trainer.recipe.record import RecordConfig
from verigym.trainer.run.recording import EpisodeRecorder, read_episodes

NAN = math.nan


def episode(task="t", group="0/t", text="hello", version=3) -> Trajectory:
    segment = Segment(
        token_ids=(5, 6, 7),
        loss_mask=(False, True, True),
        logprobs=(NAN, -0.5, -1.0),
        policy_version=(-1, version, version + 1),
        roles=("user", "assistant", "assistant"),
    )
    call = ToolCall(name="bash", arguments={"command": "ls"})
    return Trajectory(
        task_id=task,
        family="code",
        group_id=group,
        ending="submitted",
        segments=(segment,),
        messages=(Message(role="user", content=text), Message(role="assistant", content="", calls=(call,))),
        reward=0.25,
        passed=False,
        breakdown={"tests": 0.25},
        detail="one of four",
        num_turns=1,
        timings={"policy": 0.1, "total": 0.2},
        evidence={"patch": "+x", "tests": {"a": "failed"}},
    )


def kept(index: int, value=0.5) -> KeptTokens:
    column = np.array([NAN, value, value], np.float32)
    return KeptTokens(episode=index, segment=0, columns=dict.fromkeys(("advantage", *FOUND), column))


def result(step, num_groups=2, size=2, keeps=(), **changes) -> StepResult:
    episodes = tuple(
        episode(task=f"t{number}", group=f"{number}/t{number}", text=f"step {step}", **changes)
        for number in range(num_groups)
        for _ in range(size)
    )
    advantages = (0.5,) * (len(episodes) - 1) + (None,)
    found = tuple(kept(index, step) for index, one in enumerate(episodes) if one.group_id in keeps)
    return StepResult(step=step, metrics={}, trajectories=episodes, advantages=advantages, kept=found)


def recorder(folder: Path, resume_step=0, decode=None, **config) -> EpisodeRecorder:
    settings = RecordConfig(**config)
    return EpisodeRecorder(folder, settings, seed=0, resume_step=resume_step, decode=decode)


def tokens(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "tokens").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_row_has_the_conversation_the_score_and_its_parts(tmp_path):
    writer = recorder(tmp_path)
    writer.write(result(1))
    rows = list(read_episodes(tmp_path))  # before it is closed
    writer.close()
    assert [(row["step"], row["index"], row["group_id"], row["advantage"]) for row in rows] == [
        (1, 0, "0/t0", 0.5),
        (1, 1, "0/t0", 0.5),
        (1, 2, "1/t1", 0.5),
        (1, 3, "1/t1", None),
    ]
    row = rows[0]
    assert (row["version"], row["num_sampled"], row["num_tokens"], row["tokens"]) == ([3, 4], 2, 3, False)
    again = Trajectory.from_json({name: row[name] for name in row if name in Trajectory.__dataclass_fields__})
    assert again.messages == result(1).trajectories[0].messages
    assert (again.reward, again.breakdown, again.evidence["tests"]) == (0.25, {"tests": 0.25}, {"a": "failed"})
    line = (tmp_path / "episodes" / "000001.jsonl").read_bytes().splitlines()[0]
    head = json.loads(line[: line.index(b', "evidence": ')] + b"}")
    assert head == {name: row[name] for name in row if name not in ("evidence", "messages")}


def test_steps_that_come_again_are_dropped_and_so_is_what_a_kill_cut_off(tmp_path):
    writer = recorder(tmp_path, tokens=1.0)
    for step in (1, 2, 3):
        writer.write(result(step, keeps=("0/t0",)))
        writer.flush()
    with (tmp_path / "episodes" / "000001.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "index"')
    (tmp_path / "tokens" / ".partial-0000004-0000004.parquet").write_bytes(b"PAR1")
    again = recorder(tmp_path, resume_step=2)
    assert [row["step"] for row in read_episodes(tmp_path)] == [1] * 4 + [2] * 4
    assert [row["step"] for row in tokens(tmp_path)] == [1, 1, 2, 2]
    again.write(result(3, keeps=("1/t1",)))
    again.close()
    assert [row["step"] for row in read_episodes(tmp_path)] == [1] * 4 + [2] * 4 + [3] * 4
    assert [(row["step"], row["group"]) for row in tokens(tmp_path)][4:] == [(3, "1/t1")] * 2
    assert not list((tmp_path / "tokens").glob(".*"))


def test_a_part_of_tokens_that_reaches_beyond_the_checkpoint_is_cut(tmp_path):
    writer = recorder(tmp_path)
    for step in (1, 2, 3):
        writer.write(result(step, keeps=("0/t0",)))
    writer.close()
    [path] = (tmp_path / "tokens").glob("*.parquet")
    assert path.stem == "0000001-0000003"
    recorder(tmp_path, resume_step=2).close()
    [path] = (tmp_path / "tokens").glob("*.parquet")
    assert path.stem == "0000001-0000002"
    assert [row["step"] for row in tokens(tmp_path)] == [1, 1, 2, 2]


def test_tokens_have_their_text_and_every_column(tmp_path):
    writer = recorder(tmp_path, decode=lambda ids: f"<{ids[0]}>\udcff")
    writer.write(result(7, keeps=("1/t1",)))
    writer.close()
    row = tokens(tmp_path)[0]
    assert (row["step"], row["episode"], row["segment"], row["task_id"]) == (7, 2, 0, "t1")
    assert row["token_ids"] == [5, 6, 7]
    assert row["text"] == ["<5>?", "<6>?", "<7>?"]
    assert row["policy_version"] == [-1, 3, 4]
    for name in ("logprobs", "advantage", *FOUND):
        assert math.isnan(row[name][0])
        assert all(map(math.isfinite, row[name][1:]))


def test_shares_choose_whole_groups_and_always_the_first(tmp_path):
    writer = recorder(tmp_path, conversations=0.3, tokens=0.1)
    groups = [f"{number}/t{number}" for number in range(40)]
    chosen = [writer.keeps(step, groups) for step in range(1, 51)]
    assert groups[0] in chosen[0]
    assert sum(map(len, chosen)) / (50 * 40) == pytest.approx(0.1, abs=0.03)
    assert len({frozenset(one) for one in chosen}) > 40
    assert recorder(tmp_path / "other", tokens=0.1).keeps(9, groups) == chosen[8]
    writer.write(result(1, num_groups=40))
    writer.close()
    rows = list(read_episodes(tmp_path))
    assert len(rows) == 80  # scores of all
    whole = {row["group_id"] for row in rows if row["messages"] is not None}
    assert 0.1 < len(whole) / 40 < 0.5
    assert all((row["messages"] is not None) == (row["group_id"] in whole) for row in rows)
    nothing = recorder(tmp_path / "none", conversations=0.0, tokens=0.0)
    assert nothing.keeps(1, groups) == set()


def test_beyond_the_limit_only_scores_are_written(tmp_path, caplog):
    writer = recorder(tmp_path, conversations_mib=0.01, tokens=1.0, tokens_mib=0.001)
    for step in range(1, 9):
        keeps = writer.keeps(step, ["0/t0", "1/t1"])
        writer.write(result(step, keeps=keeps))
        writer.flush()
    writer.close()
    rows = list(read_episodes(tmp_path))
    assert len(rows) == 32
    assert rows[0]["messages"]
    assert rows[-1]["messages"] is None
    assert rows[-1]["reward"] == 0.25
    assert len(tokens(tmp_path)) < 32
    assert [record.message.split(" = ")[0] for record in caplog.records] == [
        "record.tokens_mib",
        "record.conversations_mib",
    ]


def test_parts_follow_one_another_and_are_cut_back_across_them(tmp_path):
    parts = LineParts(tmp_path / "parts", part_bytes=100)
    for step in range(10):
        parts.append({"step": step, "text": "x" * 40} for _ in range(2))
    parts.close()
    assert len(parts.paths()) > 4
    parts.drop_from(lambda row: row["step"] > 3)
    assert parts.num_bytes == sum(path.stat().st_size for path in parts.paths())
    parts.append([{"step": 4}])
    parts.close()
    found = [json.loads(line)["step"] for path in parts.paths() for line in path.read_text().splitlines()]
    assert found == [0, 0, 1, 1, 2, 2, 3, 3, 4]
