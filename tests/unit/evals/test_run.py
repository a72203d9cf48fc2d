"""Evaluations that crash, stop half-way, resume, and run many at once."""

import asyncio
import json

import pytest

from verigym.agent.loop import Budget
from verigym.agent.policy import Turn
from verigym.agent.trajectory import Trajectory
from verigym.errors import ConfigError, TaskError
from verigym.evals.run import evaluate
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling


def run(tasks, echo, policy_for, **options):
    options = {"samples": 1, "budget": Budget(), "sampling": Sampling(), **options}
    return asyncio.run(evaluate(tasks, lambda task: echo(), policy_for, **options))


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Recorder:
    """Answers with what its sampling says."""

    def __init__(self):
        self.samplings = []

    async def respond(self, conversation, tools, sampling):
        self.samplings.append(sampling)
        return Turn(message=Message(role="assistant", content="x"), action="x")


def test_verdicts_come_in_the_order_given(echo, tasks, gold_policy, tmp_path):
    jobs = tasks(3)
    jobs[0] = jobs[0].from_json({**jobs[0].to_json(), "metadata": {"delay_s": 0.1}})
    verdicts = run(jobs, echo, gold_policy, samples=2, concurrency=4, out=tmp_path / "run")
    expected = [("t0", 0), ("t0", 1), ("t1", 0), ("t1", 1), ("t2", 0), ("t2", 1)]
    assert [verdict.key for verdict in verdicts] == expected
    rows = rows_of(tmp_path / "run" / "verdicts.jsonl")
    assert [(row["task_id"], row["index"]) for row in rows] == expected
    assert {"task_id", "index", "passed", "score", "ending", "detail"} <= set(rows[0])
    assert all(verdict.passed and verdict.score == 1.0 and verdict.ending == "answered" for verdict in verdicts)


def test_an_infrastructure_failure_is_retried_once_then_has_no_verdict(echo, tasks, gold_policy):
    """Trap 18: a crash is not a 0."""
    (once,) = run(tasks(1, crashes=1), echo, gold_policy)
    assert once.passed is True
    echo.crashes, echo.starts = {}, []
    (twice,) = run(tasks(1, crashes=2), echo, gold_policy)
    assert (twice.passed, twice.score, twice.ending) == (None, None, "sandbox_failure")
    assert twice.detail == "the box is gone"
    assert echo.starts == ["t0", "t0"]


def test_a_failed_episode_is_not_retried(echo, tasks):
    recorder = Recorder()
    verdicts = run(tasks(1), echo, lambda env, task: recorder)
    assert verdicts[0].passed is False
    assert len(recorder.samplings) == 1


def test_concurrency_is_bounded_and_used(echo, tasks, gold_policy):
    running, most = 0, 0

    class Counting(echo):
        async def start(self, task):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.02)

        def stop(self):
            nonlocal running
            running = max(0, running - 1)

    run(tasks(8), Counting, gold_policy, concurrency=3)
    assert most == 3


def test_an_existing_folder_is_resumed(echo, tasks, gold_policy, tmp_path):
    out = tmp_path / "run"
    run(tasks(2), echo, gold_policy, out=out, settings={"policy": "gold"})
    echo.starts = []
    seen = []
    verdicts = run(
        tasks(4),
        echo,
        gold_policy,
        samples=2,
        out=out,
        settings={"policy": "gold"},
        progress=lambda verdict, trajectory: seen.append((verdict.key, trajectory is None)),
    )
    assert len(verdicts) == 8
    assert sorted(echo.starts) == ["t0", "t1", "t2", "t2", "t3", "t3"]
    assert [key for key, recorded in seen if recorded] == [("t0", 0), ("t1", 0)]
    assert len(rows_of(out / "verdicts.jsonl")) == 8


def test_a_torn_last_line_costs_that_sample_alone(echo, tasks, gold_policy, tmp_path):
    out = tmp_path / "run"
    run(tasks(3), echo, gold_policy, out=out, save_trajectories=True)
    path = out / "verdicts.jsonl"
    path.write_text(path.read_text()[:-20])
    with (out / "trajectories.jsonl").open("a") as torn:
        torn.write('{"task_id": "t2", "ind')
    echo.starts = []
    run(tasks(3), echo, gold_policy, out=out, save_trajectories=True)
    assert echo.starts == ["t2"]
    assert [row["task_id"] for row in rows_of(path)] == ["t0", "t1", "t2"]
    trajectories = rows_of(out / "trajectories.jsonl")
    assert sorted(row["task_id"] for row in trajectories) == ["t0", "t1", "t2"]
    assert Trajectory.from_json({k: v for k, v in trajectories[0].items() if k != "index"}).passed is True


def test_a_broken_line_before_the_last_is_told(echo, tasks, gold_policy, tmp_path):
    out = tmp_path / "run"
    run(tasks(2), echo, gold_policy, out=out)
    path = out / "verdicts.jsonl"
    path.write_text("{oops\n" + path.read_text())
    with pytest.raises(ConfigError, match=r"verdicts.jsonl, line 1: not JSON"):
        run(tasks(2), echo, gold_policy, out=out)


def test_infrastructure_failures_are_taken_again_on_resume(echo, tasks, gold_policy, tmp_path):
    jobs = tasks(1, crashes=2)
    assert run(jobs, echo, gold_policy, out=tmp_path)[0].passed is None
    assert run(jobs, echo, gold_policy, out=tmp_path)[0].passed is True
    assert [row["passed"] for row in rows_of(tmp_path / "verdicts.jsonl")] == [True]


def test_cancelling_keeps_what_is_done_and_frees_the_rest(echo, tasks, gold_policy, tmp_path):
    stopped = []

    class Slow(echo):
        box = None

        async def start(self, task):
            self.box = task.id
            echo.starts.append(task.id)
            await asyncio.sleep(0 if task.id in ("t0", "t1") else 30)

        async def stop(self):
            box, self.box = self.box, None
            if box is not None:
                await asyncio.sleep(0.01 if box == "t2" else 0.1)  # freeing takes time, and not the same
                stopped.append(box)

    async def interrupted():
        options = {"samples": 1, "budget": Budget(), "sampling": Sampling(), "concurrency": 2, "out": tmp_path}
        work = asyncio.create_task(evaluate(tasks(5), lambda task: Slow(), gold_policy, **options))
        while len(echo.starts) < 4:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(interrupted())
    assert sorted(stopped) == ["t0", "t1", "t2", "t3"]
    assert sorted(row["task_id"] for row in rows_of(tmp_path / "verdicts.jsonl")) == ["t0", "t1"]
    echo.starts = []
    assert len(run(tasks(5), echo, gold_policy, out=tmp_path)) == 5
    assert sorted(echo.starts) == ["t2", "t3", "t4"]


def test_a_folder_of_another_run_is_refused(echo, tasks, gold_policy, tmp_path):
    run(tasks(1), echo, gold_policy, out=tmp_path, settings={"policy": "gold", "temperature": 1.0})
    with pytest.raises(ConfigError, match=r"policy was 'gold', is 'empty'.*choose another --out"):
        run(tasks(1), echo, gold_policy, out=tmp_path, settings={"policy": "empty", "temperature": 1.0})


def test_a_folder_with_samples_nobody_asked_for_is_refused(echo, tasks, gold_policy, tmp_path):
    run(tasks(3), echo, gold_policy, out=tmp_path)
    with pytest.raises(ConfigError, match=r"holds 1 samples that were not asked for \(task 't2', sample 0\)"):
        run(tasks(2), echo, gold_policy, out=tmp_path)
    assert len(rows_of(tmp_path / "verdicts.jsonl")) == 3


def test_a_folder_in_use_is_refused(echo, tasks, gold_policy, tmp_path):
    async def two():
        options = {"samples": 1, "budget": Budget(), "sampling": Sampling(), "out": tmp_path}
        first = asyncio.create_task(evaluate(tasks(1, delay_s=0.2), lambda task: echo(), gold_policy, **options))
        await asyncio.sleep(0.05)
        with pytest.raises(ConfigError, match="in use by another run"):
            await evaluate(tasks(1), lambda task: echo(), gold_policy, **options)
        assert len(await first) == 1

    asyncio.run(two())


def test_a_task_that_cannot_be_run_is_ungradable_and_the_rest_goes_on(echo, tasks, gold_policy):
    jobs = tasks(2)
    jobs[0] = jobs[0].from_json({**jobs[0].to_json(), "family": "other"})
    first, second = run(jobs, echo, gold_policy)
    assert (first.passed, first.ending) == (None, "ungradable")
    assert "this environment takes 'echo'" in first.detail
    assert second.passed is True


def test_every_sample_draws_from_a_seed_of_its_own(echo, tasks):
    recorder = Recorder()
    options = {"samples": 3, "concurrency": 1, "sampling": Sampling(seed=7, temperature=0.5)}
    run(tasks(2), echo, lambda env, task: recorder, **options)
    seeds = [sampling.seed for sampling in recorder.samplings]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    again = Recorder()
    run(list(reversed(tasks(2))), echo, lambda env, task: again, **options)
    assert sorted(sampling.seed for sampling in again.samplings) == sorted(seeds)


def test_every_turn_draws_from_a_seed_of_its_own(echo, tasks):
    class Stumbling(Recorder):
        async def respond(self, conversation, tools, sampling):
            turn = await super().respond(conversation, tools, sampling)
            error = '{"format_error": "no"}' if len(self.samplings) < 3 else turn.action
            return Turn(message=turn.message, action=error)

    policy = Stumbling()
    (verdict,) = run(tasks(1), echo, lambda env, task: policy, sampling=Sampling(seed=1))
    assert (verdict.num_turns, verdict.num_format_errors) == (3, 2)
    assert len({sampling.seed for sampling in policy.samplings}) == 3


def test_greedy_draws_at_temperature_0_and_once(echo, tasks):
    recorder = Recorder()
    run(tasks(1), echo, lambda env, task: recorder, greedy=True, sampling=Sampling(temperature=0.8))
    assert recorder.samplings[0].temperature == 0.0
    with pytest.raises(ConfigError, match="greedy draws are all the same"):
        run(tasks(1), echo, lambda env, task: recorder, greedy=True, samples=2)


def test_task_ids_must_be_distinct(echo, tasks, gold_policy):
    with pytest.raises(TaskError, match="'t0'; ids must be distinct"):
        run([*tasks(1), *tasks(1)], echo, gold_policy)


def test_an_error_of_one_worker_ends_the_others(echo, tasks, gold_policy):
    class Broken(echo):
        async def start(self, task):
            if task.id == "t1":
                raise ConfigError("not with these settings")
            await asyncio.Event().wait()

    async def main():
        options = {"samples": 1, "budget": Budget(), "sampling": Sampling(), "concurrency": 3}
        with pytest.raises(ConfigError, match="not with these settings"):
            await asyncio.wait_for(evaluate(tasks(3), lambda task: Broken(), gold_policy, **options), timeout=60)

    asyncio.run(main())


def test_a_bug_that_one_task_meets_ends_no_other(echo, tasks, gold_policy):
    class Broken(echo):
        async def start(self, task):
            if task.id == "t1":
                raise KeyError("a bug of the environment")

    verdicts = run(tasks(3), Broken, gold_policy)
    assert [(one.ending, one.passed) for one in verdicts] == [
        ("answered", True),
        ("environment_failure", None),
        ("answered", True),
    ]
    assert "a bug of the environment" in verdicts[1].detail


def test_an_environment_is_driven_again_unless_its_infrastructure_failed(echo, tasks, gold_policy):
    made = []

    def make_env(task):
        made.append(task.id)
        return echo()

    async def main(jobs):
        made.clear()
        options = {"samples": 1, "budget": Budget(), "sampling": Sampling(), "concurrency": 1}
        await evaluate(jobs, make_env, gold_policy, **options)
        return list(made)

    assert asyncio.run(main(tasks(4))) == ["t0"]
    echo.crashes = {}
    assert asyncio.run(main([*tasks(2), *[task for task in tasks(4, crashes=1) if task.id == "t2"]])) == ["t0", "t2"]


def test_text_that_utf8_cannot_hold_is_recorded(echo, tasks, tmp_path):
    class Surrogate:
        async def respond(self, conversation, tools, sampling):
            return Turn(message=Message(role="assistant", content="\ud800"), action="\ud800")

    run(tasks(1), echo, lambda env, task: Surrogate(), out=tmp_path, save_trajectories=True)
    assert "ud800" in rows_of(tmp_path / "verdicts.jsonl")[0]["detail"]
    assert rows_of(tmp_path / "trajectories.jsonl")[0]["messages"][-1]["content"] == "\ud800"
