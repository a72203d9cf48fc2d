"""A resume reads line by line, rewrites only where something is left out, and writes beside the event loop."""

import asyncio
import json
import threading
import tracemalloc

import pytest

from verigym.agent.trajectory import PIECE_TOKENS, Segment, Trajectory
from verigym.errors import ConfigError
from verigym.evals.store import VerdictStore
from verigym.evals.verdict import Verdict
from verigym.model.chat.messages import Message, ToolCall

NAN = float("nan")


def verdict(task_id, index=0, ending="answered"):
    return Verdict(task_id=task_id, index=index, passed=ending == "answered", score=1.0, ending=ending)


def episode(task_id, tokens):
    segment = Segment(
        token_ids=range(tokens),
        loss_mask=[place % 2 for place in range(tokens)],
        logprobs=[-0.1 * place if place % 2 else NAN for place in range(tokens)],
        policy_version=[3 if place % 2 else -1 for place in range(tokens)],
        roles=["assistant" if place % 2 else "tool" for place in range(tokens)],
    )
    call = ToolCall(name="bash", arguments={"command": 'echo "ü" \ud83d'}, id="c1")
    messages = (Message(role="user", content='say "hi"\n'), Message(role="assistant", content="", calls=(call,)))
    return Trajectory(task_id=task_id, family="swe", ending="answered", segments=(segment,), messages=messages)


@pytest.mark.parametrize("tokens", [0, 1, 5, PIECE_TOKENS - 1, PIECE_TOKENS, PIECE_TOKENS + 1, 3 * PIECE_TOKENS])
def test_pieces_are_the_text_of_the_whole(tokens):
    one = episode('t "1" \\ \u2028', tokens)
    for row in (one, Trajectory(task_id="", family="f", ending="turn_limit", segments=one.segments * 2)):
        pieces = list(row.json_pieces({"index": 7}))
        assert "".join(pieces) == json.dumps({"index": 7, **row.to_json()})
        assert max(map(len, pieces)) < 30 * PIECE_TOKENS


def ids_of(path):
    return [json.loads(line)["task_id"] for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path):
    """Forty samples of half a megabyte each."""
    with VerdictStore(tmp_path, {}, save_trajectories=True) as store:
        for number in range(40):
            prediction = {"task_id": f"t{number}", "prediction": "x" * 50_000}
            store.append(verdict(f"t{number}"), episode(f"t{number}", 8_000), prediction)
    return tmp_path


def resumed(folder):
    """(bytes at most, ids on record) of an opening."""
    tracemalloc.start()
    with VerdictStore(folder, {}, save_trajectories=True) as store:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak, {key[0] for key in store.verdicts}


FILES = ("trajectories.jsonl", "preds.jsonl", "verdicts.jsonl")


def test_a_whole_folder_is_read_and_not_written(folder):
    before = {name: (folder / name).stat() for name in FILES}
    peak, ids = resumed(folder)
    assert ids == {f"t{number}" for number in range(40)}
    assert {name: (folder / name).stat().st_ino for name in FILES} == {name: one.st_ino for name, one in before.items()}
    row = before["trajectories.jsonl"].st_size / 40
    assert peak < 6 * row, f"{peak / row:.1f} rows are held of 40"


@pytest.mark.parametrize("cut", [1, 1000, 200_000])
def test_what_has_no_verdict_is_left_out_row_by_row(folder, cut):
    """A sample without its verdict, one that the infrastructure failed, and a last row that was cut off."""
    path = folder / "verdicts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["ending"] = "policy_failure"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["task_id"] != "t7") + '{"task_id": "t40')
    whole = (folder / "trajectories.jsonl").read_bytes()
    (folder / "trajectories.jsonl").write_bytes(whole[:-cut])
    peak, ids = resumed(folder)
    expected = [f"t{number}" for number in range(40) if number not in (3, 7)]
    assert ids == set(expected)
    assert ids_of(folder / "verdicts.jsonl") == ids_of(folder / "preds.jsonl") == expected
    assert ids_of(folder / "trajectories.jsonl") == expected[:-1]
    assert peak < 6 * len(whole) / 40
    rest = (folder / "trajectories.jsonl").read_bytes()
    assert whole.startswith(rest[: len(whole) // 20])


def test_the_order_asked_for_costs_no_rewriting_where_it_is_there(folder):
    order = [(f"t{number}", 0) for number in range(40)]
    with VerdictStore(folder, {}, save_trajectories=True) as store:
        before = (folder / "preds.jsonl").stat().st_ino
        store.finish(order)
        assert (folder / "preds.jsonl").stat().st_ino == before
        tracemalloc.start()
        store.finish(order[::-1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert ids_of(folder / "preds.jsonl") == ids_of(folder / "verdicts.jsonl") == [key for key, _ in order[::-1]]
    assert peak < 1_000_000


def test_a_row_broken_in_the_middle_is_told(folder):
    path = folder / "preds.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "{broken\n" + lines[1])
    with pytest.raises(ConfigError, match=r"preds\.jsonl, line 2: not JSON"), VerdictStore(folder, {}):
        pass


def test_rows_are_written_on_a_thread_one_at_a_time(tmp_path, monkeypatch):
    threads, inside = set(), []
    append = VerdictStore.append

    def watched(self, *args):
        threads.add(threading.current_thread())
        inside.append(len(inside))
        assert len(inside) == 1
        append(self, *args)
        inside.pop()

    monkeypatch.setattr(VerdictStore, "append", watched)

    async def put_all():
        with VerdictStore(tmp_path, {}, save_trajectories=True) as store:
            await asyncio.gather(*(store.put(verdict(f"t{n}"), episode(f"t{n}", 50)) for n in range(8)))

    asyncio.run(put_all())
    assert threading.main_thread() not in threads
    assert sorted(ids_of(tmp_path / "verdicts.jsonl")) == sorted(ids_of(tmp_path / "trajectories.jsonl"))
    assert len(ids_of(tmp_path / "verdicts.jsonl")) == 8
