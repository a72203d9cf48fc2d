"""An evaluation that is steered while it runs, by the command that people type."""

import asyncio
import json
import threading
import time

import pytest

from verigym.__main__ import main
from verigym.agent.loop import Budget
from verigym.envs.runs.lock import RunLock
from verigym.errors import ConfigError
from verigym.evals import control
from verigym.evals.control import Pool, request
from verigym.evals.run import evaluate
from verigym.model.chat.sampling import Sampling


class Gate:
    """Episodes begin, and end when the test lets them."""

    def __init__(self):
        self.running, self.most, self.begun = 0, 0, 0
        self.open = threading.Event()

    def env(self, echo):
        gate = self

        class Gated(echo):
            async def start(self, task):
                gate.begun += 1
                gate.running += 1
                gate.most = max(gate.most, gate.running)
                try:
                    while not gate.open.is_set():
                        await asyncio.sleep(0.01)
                finally:
                    gate.running -= 1
                await super().start(task)

        return Gated


def until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def started(echo, tasks, gold_policy, tmp_path):
    """A run in a thread: (its folder, its gate, a function that waits for its verdicts)."""
    threads = []

    def start(count=6, concurrency=2, crashes=0, retries=0):
        gate, found, out = Gate(), [], tmp_path / "run"
        gated = gate.env(echo)

        def work():
            try:
                work = evaluate(
                    tasks(count, crashes=crashes),
                    lambda task: gated(),
                    gold_policy,
                    samples=1,
                    budget=Budget(),
                    sampling=Sampling(),
                    concurrency=concurrency,
                    out=out,
                    retries=retries,
                )
                found.append(asyncio.run(work))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        threads.append((thread, gate))

        def ended():
            gate.open.set()
            thread.join(30)
            assert isinstance(found[0], list), found
            return found[0]

        until(lambda: (out / control.PROGRESS).exists() and gate.begun >= min(count, concurrency))
        return out, gate, ended

    yield start
    for thread, gate in threads:
        gate.open.set()
        thread.join(30)


def ctl(capsys, *words):
    assert main(["ctl", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_paused_run_begins_nothing_and_goes_on(started, capsys):
    out, gate, ended = started()
    told = ctl(capsys, "pause", out)
    assert (told["state"], told["running"], told["waiting"], told["total"]) == ("paused", 2, 4, 6)
    gate.open.set()
    until(lambda: gate.running == 0)
    time.sleep(0.3)
    assert gate.begun == 2  # those that ran have ended, and none began
    assert ctl(capsys, "status", out)["state"] == "paused"
    assert len((out / "verdicts.jsonl").read_text().splitlines()) == 2
    assert ctl(capsys, "resume", out)["state"] in ("running", "ended")  # four short episodes are left
    assert [verdict.passed for verdict in ended()] == [True] * 6
    assert not (out / control.PROGRESS).exists()
    assert not (out / control.FOLDER).exists()


def test_more_and_fewer_at_once(started, capsys):
    out, gate, ended = started(count=12)
    assert gate.running == 2
    assert ctl(capsys, "concurrency", out, 5)["concurrency"] == 5
    until(lambda: gate.running == 5)
    ctl(capsys, "concurrency", out, 1)
    gate.most, before = 0, gate.begun
    gate.open.set()
    assert len(ended()) == 12
    assert before == 5
    assert gate.most == 1


def test_failed_samples_are_taken_again_while_it_runs(started, echo, capsys):
    out, gate, ended = started(count=4, concurrency=1, crashes=1)
    ctl(capsys, "concurrency", out, 1)
    ctl(capsys, "pause", out)
    gate.open.set()
    until(lambda: (out / "verdicts.jsonl").read_text().count("\n") == 1)
    told = ctl(capsys, "retry", out)
    assert told["waiting"] == 4  # three that never ran, and the one that failed
    assert ctl(capsys, "retry", out)["waiting"] == 4  # not twice
    ctl(capsys, "resume", out)
    verdicts = ended()
    assert [verdict.passed for verdict in verdicts] == [True, None, None, None]
    rows = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["passed"]) for row in rows] == [("t0", True), ("t1", None), ("t2", None), ("t3", None)]
    assert echo.starts.count("t0") == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pause"], "nothing runs in"),
        (["status"], "no evaluation runs in"),
        (["concurrency"], "a number is of concurrency alone"),
        (["pause", "3"], "a number is of concurrency alone"),
        (["concurrency", "0"], "between 1 and"),
    ],
)
def test_what_cannot_be_asked_is_one_message(tmp_path, capsys, words, told):
    action, *more = words
    assert main(["ctl", action, str(tmp_path), *more]) == 2
    assert told in capsys.readouterr().err


def test_another_kind_of_run_takes_no_requests(tmp_path):
    with RunLock(tmp_path), pytest.raises(ConfigError, match="is no evaluation"):
        request(tmp_path, "pause")


def test_a_run_that_does_not_answer_is_told_and_nothing_is_left(tmp_path):
    (tmp_path / control.PROGRESS).write_text("{}")
    with RunLock(tmp_path), pytest.raises(ConfigError, match="did not answer"):
        request(tmp_path, "pause", wait_s=0.2)
    assert list((tmp_path / control.FOLDER).iterdir()) == []


def test_requests_of_an_earlier_sitting_and_rubbish_are_left_alone(tmp_path, echo, tasks, gold_policy):
    (tmp_path / control.FOLDER).mkdir()
    (tmp_path / control.FOLDER / "1.json").write_text('{"action": "pause"}')
    options = {"samples": 1, "budget": Budget(), "sampling": Sampling(), "out": tmp_path}
    assert len(asyncio.run(evaluate(tasks(3), lambda task: echo(), gold_policy, **options))) == 3

    async def rubbish():
        pool = Pool(range(3), 1, folder=tmp_path)
        taken = []

        async def worker(pool):
            while (job := await pool.take()) is not None:
                if not taken:
                    for number, text in enumerate(
                        ("[]", "{", '{"action": 7}', '{"action": "concurrency", "value": -1}')
                    ):
                        (tmp_path / control.FOLDER).mkdir(exist_ok=True)
                        (tmp_path / control.FOLDER / f"{number}.json").write_text(text)
                    while list((tmp_path / control.FOLDER).iterdir()):
                        await asyncio.sleep(0.05)
                taken.append(job)
                pool.finished(job)

        await pool.run(worker)
        return taken, pool.concurrency

    assert asyncio.run(rubbish()) == ([0, 1, 2], 1)


def test_the_first_error_of_a_worker_ends_the_others():
    ended = []

    async def worker(pool):
        job = await pool.take()
        try:
            if job == 0:
                raise ValueError("this one")
            await asyncio.sleep(30)
        finally:
            ended.append(job)

    with pytest.raises(ValueError, match="this one"):
        asyncio.run(Pool(range(9), 3).run(worker))
    assert sorted(ended) == [0, 1, 2]
