"""What stands on a real terminal's screen while a run goes on and when it has ended, small and larger."""

import sys

import pytest

SIZES = [(80, 24), (120, 40)]

RUN = """
import time
from contextlib import ExitStack
from pathlib import Path
from verigym.trainer.recipe.load import load_recipe
from verigym.trainer.run.curves import Curves
from verigym.trainer.run.progress import Progress
from verigym.trainer.run.told import closing, report_table

stages = {one: {"pass@1": 0.25, "greedy": 0.5, "interval": [0.0, 0.625], "n": 8} for one in STAGES}
report = {
    "families": dict.fromkeys(NAMES, stages),
    "mean": dict.fromkeys(STAGES, 0.25),
    "paired": dict.fromkeys(NAMES, {"rl-sft": {"mean": 0.0, "interval": [-0.125, 0.125], "n": 8}}),
    "stages": {"rl": {"checkpoint": "runs/one/rl/checkpoint", "steps": 3, "updates": 0}},
    "seconds": 60, "num_infrastructure_failures": 0,
}
with Progress() as progress, ExitStack() as bars:
    for number in range(NUM_BARS):
        bars.enter_context(progress.bar(f"bar {number}", total=4)).at(1, text="so far")
    curves = bars.enter_context(Curves(progress, 3))
    for step in (1, 2, 3):
        rewards = {f"rollout/reward_{name}/mean": step / 4 for name in NAMES}
        speed = {"rollout/tokens_per_second/mean": 900.0, "rollout/seconds/idle": 0.0, "trainer/updates/count": 0.0}
        curves.add(step, {**rewards, **speed})
    while not Path(GO).exists():
        time.sleep(0.05)
    recipe = load_recipe("smoke")
    if PRINT_INSIDE:
        progress.print(report_table(recipe, NAMES, report))
        progress.print(closing(Path("runs/one"), recipe, report, plotted=True))
        time.sleep(0.3)  # bars are drawn a few times
"""


def script(**values):
    return [sys.executable, "-c", "".join(f"{key} = {value!r}\n" for key, value in values.items()) + RUN]


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_bars_beyond_the_screen_are_counted_and_the_newest_is_seen(terminal, columns, lines, tmp_path):
    command = script(NAMES=["swe", "code"], STAGES=[], NUM_BARS=50, PRINT_INSIDE=False, GO=str(tmp_path / "go"))

    def whole(shown):
        bars = [line for line in shown if line.startswith("bar ")]
        families = [line.split()[0] for line in shown if line.startswith((" swe", " code"))]
        return (
            len(bars) == lines - 9
            and bars[-1].startswith("bar 49 ")
            and bars[-1].endswith("so far")
            and f"{50 - len(bars)} more are running" in shown
            and families == ["swe", "code"]
        )

    terminal(command, columns, lines).until(whole)


@pytest.mark.parametrize(("columns", "lines"), SIZES)
@pytest.mark.parametrize("num_families", [1, 3, 12])
def test_nothing_that_was_printed_is_drawn_over_or_cut(terminal, columns, lines, num_families, tmp_path):
    go = tmp_path / "go"
    names = ["swe", "code", "math", *(f"family-{number}" for number in range(9))][:num_families]
    stages = ["sft", "rl", "control", "trivial", "gold", "empty"]
    window = terminal(script(NAMES=names, STAGES=stages, NUM_BARS=2, PRINT_INSIDE=True, GO=str(go)), columns, lines)
    window.until(lambda shown: any("step 3 of 3" in line for line in shown))
    go.touch()
    told = window.end()
    assert window.status == 0, told
    text = "\n".join(told)
    whole = "".join(line.ljust(columns) for line in told)  # as wrapped by the terminal
    assert "…" not in text
    for word in ("supervised", "control", "trivial", "gold", "empty", "after", *names):
        assert word in text, text
    assert "verigym eval verigym/SWE-v0 --data runs/one/tasks/swe.held_out.jsonl --policy engine:runs/one" in whole
    for line in ("no update: in each of the 3 steps", "runs/one/report.json: every figure", "1.0 minutes; 0 infra"):
        assert sum(one.startswith(line) for one in told) == 1, text
    assert sum(one.startswith("bar ") and " in " in one for one in told) == 2


SMALL = """
name = "small"
overlap = true
sandbox = "unsafe"
control = false
[model]
vocab_size = 320
max_context = 512
[[families]]
name = "math"
env = "verigym/Math-v0"
tasks = "small-sums"
options = { tools = true, system_prompt = "" }
num_train = 8
num_held_out = 4
turns = 3
turn_tokens = 24
num_demonstrations = 16
experts = { solve = 1.0 }
[sft.train]
max_steps = 2
patience = 0
batch_tokens = 1024
microbatch_tokens = 1024
[rl]
steps = 2
[rl.train]
num_tasks = 2
group_size = 2
"""


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_a_real_run_shows_its_families_and_leaves_its_report(terminal, columns, lines, tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "verigym", "train", tmp_path / "small.toml", "--out", out]
    window = terminal(command, columns, lines, OMP_NUM_THREADS="1")
    window.until(lambda shown: any(line.startswith(" math") for line in shown), seconds=900)
    told = window.end(seconds=900)
    assert window.status == 0, "\n".join(told)
    whole = "".join(line.ljust(columns) for line in told)
    for words in ("small: pass@1 on held-out tasks", "gain of RL", "mean", "report.json: every figure"):
        assert words in " ".join(" ".join(told).split()) or words in whole, "\n".join(told)
    assert "next: verigym eval verigym/Math-v0 --data" in whole
    assert "…" not in whole
