"""The simulator against what can be worked out by hand, and its sources."""

import json

import pytest

from verigym.errors import ConfigError
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.run.plan_rollouts import plan_rollouts
from verigym.trainer.simulation.run import Shape, simulate
from verigym.trainer.simulation.split import best_split
from verigym.trainer.simulation.workload import Episode, Speed, Trainer, Turn, Workload, read_run, read_stated

STATED = """
turns = [1, 4]
prompt_tokens = [100, 400]
sampled_tokens = [50, 200]
tool_seconds = [0.5, 2.0]
grading_seconds = [1.0]
[engine]
token_seconds = 0.02
crowd_seconds = 0.0005
prompt_seconds = 0.00005
max_batch = 64
gpus = 8
[trainer]
step_seconds = 64.0
step_tokens = 40000
gpus = 8
publish_seconds = 2.0
"""


def workload(*turns, grading=0.0, crowd=0.0, prompt=0.0, batch=64, step=10.0, publish=0.0):
    episode = Episode(
        turns=tuple(Turn(prompt_tokens=p, sampled_tokens=s, tool_seconds=t) for p, s, t in turns),
        grading_seconds=grading,
    )
    return Workload(
        episodes=(episode,),
        engine=Speed(token_seconds=0.1, crowd_seconds=crowd, prompt_seconds=prompt, max_batch=batch),
        trainer=Trainer(step_seconds=step, step_tokens=4 * episode.num_tokens, publish_seconds=publish),
    )


def shape(**changes):
    return Shape(**{"num_tasks": 2, "group_size": 2, "max_lag": None, "concurrency": 4, "engines": 1, **changes})


def test_taking_turns_is_a_sum():
    """4 episodes at once: 2 turns of 10 tokens of 0.1 s, 3 s of tools after each, 1 s of grading; 10 s of an update."""
    found = simulate(workload((0, 10, 3.0), (0, 10, 3.0), grading=1.0), shape())
    assert found.step_seconds == pytest.approx(2 * (1.0 + 3.0) + 1.0 + 10.0)
    assert found.trainer_busy == pytest.approx(10 / 19)
    assert found.engines_busy == pytest.approx(2 / 19)
    assert found.tokens_per_second == pytest.approx(80 / 19)
    assert (found.lag_mean, found.lag_max) == (0, 0)


def test_rounds_are_shared_and_prompts_hold_them_up():
    # 4 sequences: a round takes 0.1 + 4 x 0.05; their prompts, one after another, 4 x 20 x 0.01 before it.
    found = simulate(workload((20, 10, 0.0), crowd=0.05, prompt=0.01), shape())
    assert found.step_seconds == pytest.approx(10 * 0.3 + 0.8 + 10.0)
    # Two at a time: two rounds of 10 tokens, one after the other.
    found = simulate(workload((0, 10, 0.0), batch=2), shape())
    assert found.step_seconds == pytest.approx(2.0 + 10.0)
    assert simulate(workload((0, 10, 0.0), batch=2), shape(engines=2)).step_seconds == pytest.approx(1.0 + 10.0)
    # Two episodes at once, of 1 s each with what a tool takes.
    found = simulate(workload((0, 10, 4.0)), shape(concurrency=2))
    assert found.step_seconds == pytest.approx(2 * 5.0 + 10.0)


def test_sampling_ahead_hides_the_shorter_of_the_two():
    slow_update = simulate(workload((0, 10, 3.0), publish=0.5), shape(max_lag=1, concurrency=8))
    assert slow_update.step_seconds == pytest.approx(10.5)
    assert slow_update.trainer_busy == pytest.approx(10 / 10.5)
    assert 0 < slow_update.lag_mean <= slow_update.lag_max == 1
    slow_episodes = simulate(workload((0, 10, 29.0), step=2.0), shape(max_lag=1, concurrency=4))
    assert slow_episodes.step_seconds == pytest.approx(30.0, rel=0.08)


def test_a_group_waits_for_its_slowest_episode():
    one, other = (Episode(turns=(Turn(prompt_tokens=0, sampled_tokens=n, tool_seconds=0.0),)) for n in (10, 100))
    mixed = Workload(
        episodes=(one, other), engine=Speed(token_seconds=0.1), trainer=Trainer(step_seconds=1.0, step_tokens=220)
    )
    found = simulate(mixed, shape(num_tasks=4, concurrency=8), steps=40)
    assert 9.5 < found.step_seconds < 12.5  # nearly every step has a long one


def test_the_best_split_balances(tmp_path):
    path = tmp_path / "stated.toml"
    path.write_text(STATED)
    stated = read_stated(path)
    wide = shape(num_tasks=8, group_size=8, max_lag=1, concurrency=128)
    best = best_split(stated, wide, 64, unit=8)
    assert best.trainer_gpus % 8 == 0
    assert best.trainer_gpus + 8 * best.engines <= 64
    assert 8 <= best.trainer_gpus <= 56
    for trainer, engines in ((8, 7), (56, 1)):
        changed = shape(num_tasks=8, group_size=8, max_lag=1, concurrency=128, engines=engines, trainer_gpus=trainer)
        assert simulate(stated, changed, steps=16).step_seconds >= best.outcome.step_seconds - 1e-9
    with pytest.raises(ConfigError, match="cannot be split between a trainer of 8 or more and engines of 8"):
        best_split(stated, wide, 8, unit=8)


def test_the_command(tmp_path, capsys):
    path = tmp_path / "stated.toml"
    path.write_text(STATED)
    recipe = load_recipe("cwm-32b-grpo")
    assert plan_rollouts(recipe, path, 128, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)["splits"]
    assert list(told) == ["64", "128"]
    assert told["128"]["outcome"]["step_seconds"] <= told["64"]["outcome"]["step_seconds"]
    assert plan_rollouts(recipe, path, 64) == 0
    assert "cwm-32b-grpo: the best split, simulated" in capsys.readouterr().out


def test_what_a_run_has_measured(tmp_path):
    folder = tmp_path / "rl" / "episodes"
    folder.mkdir(parents=True)
    row = {"turn_tokens": [10, 30], "num_tokens": 100, "timings": {"policy": 2.0, "environment": 1.0, "grading": 0.5}}
    (folder / "000001.jsonl").write_text(json.dumps(row) + "\n")
    step = {"trainer/seconds/update": 4.0, "trainer/tokens/count": 200.0}
    (tmp_path / "rl" / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    found = read_run(tmp_path, concurrency=6, engines=2)
    assert found.episodes[0].turns[1] == Turn(prompt_tokens=30, sampled_tokens=30, tool_seconds=0.5)
    assert found.engine.token_seconds == pytest.approx(0.05)
    assert (found.engine.max_batch, found.trainer.step_seconds, found.trainer.step_tokens) == (3, 4.0, 200)


def test_sources_that_say_too_little(tmp_path):
    with pytest.raises(ConfigError, match="has no episodes of reinforcement learning"):
        read_run(tmp_path, concurrency=1, engines=1)
    path = tmp_path / "stated.toml"
    path.write_text(STATED.replace("turns = [1, 4]", ""))
    with pytest.raises(ConfigError, match=r"stated\.toml: turns: Field required"):
        read_stated(path)
    path.write_text("turns = [")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        read_stated(path)
    with pytest.raises(ConfigError, match="the recipe has none"):
        plan_rollouts(load_recipe("smoke", ["rl=false", "control=false"]), path, 64)
