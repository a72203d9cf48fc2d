"""The suites of mathematics end to end against a server that speaks OpenAI's API, with published settings."""

import json

import pytest

from verigym.__main__ import main
from verigym.evals.preset import FALLBACK
from verigym.evals.suites.harbor import NOT_PUBLISHED
from verigym.evals.suites.loading import load_tasks
from verigym.evals.suites.registry import known_suites, suite_named
from verigym.evals.suites.spec import LoadOptions

ROWS = [
    {"unique_id": "p1", "id": 1, "problem": "1 + 1?", "answer": "2", "subject": "sums", "level": 1},
    {"unique_id": "p2", "id": 2, "problem": "1 + 2?", "answer": "003", "subject": "sums", "level": 2},
]


def say(asked, prompt):
    return "It is $\\boxed{2}$." if "1 + 1" in prompt or len(asked) % 3 == 0 else "It is $\\boxed{3}$."


@pytest.mark.parametrize("suite", ["math500", "aime24", "aime25"])
def test_a_suite_runs_against_a_server_with_its_published_settings(suite, scripted_server, tmp_path, capsys):
    scripted_server.answer, asked = say, scripted_server.asked
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = [
        "eval",
        suite,
        "--data",
        str(data),
        "--policy",
        scripted_server.policy,
        "--out",
        str(out),
        "--workers",
        "1",
    ]
    assert main([*command, "--samples", "4", "--select"]) == 0
    assert "best of 4: selected 1.000" in capsys.readouterr().out
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in asked} == {(1.0, 0.95, 65536)}
    assert asked[0]["messages"] == [{"role": "user", "content": "1 + 1?\n\nWrap your answer in $\\boxed{}$."}]
    report = json.loads((out / "report.json").read_text())
    assert report["num_predictions"] == 8
    assert 0.5 < report["pass@1"] < 1.0
    assert report["scaling"]["oracle"] == 1.0
    assert report["scaling"]["random"] == pytest.approx(report["pass@1"])
    assert "evals/configs/eval_math.yaml" in report["sources"]["temperature"]
    assert "samples" not in report["sources"]
    assert (out / "report.md").read_text().startswith(f"# {suite}, openai:")
    assert (out / "passes.png").stat().st_size > 1000
    # What was recorded is what ``grade`` takes, and it says the same.
    graded = tmp_path / "graded"
    command = ["grade", suite, "--data", str(data), "--predictions", str(out / "preds.jsonl"), "--out", str(graded)]
    assert main([*command, "--against", str(out)]) == 0
    assert json.loads((graded / "report.json").read_text())["pass@1"] == report["pass@1"]
    assert "McNemar p = 1" in capsys.readouterr().out


def test_published_settings_are_defaults_only():
    preset = suite_named("math500").preset
    assert preset is not None
    assert (preset.samples, preset.sampling.temperature, preset.sampling.top_p, preset.budget.turns) == (
        20,
        1.0,
        0.95,
        1,
    )
    assert {"temperature", "top_p", "samples", "max_tokens", "max_turns"} == set(preset.sources)


def test_every_published_setting_is_an_option_and_has_its_source():
    presets = {name: suite.preset for name, suite in known_suites().items() if suite.preset is not None}
    assert set(presets.pop("harbor").sources.values()) == {NOT_PUBLISHED}  # each task is of its own
    terminal = presets.pop("terminal_bench_2")
    assert (terminal.samples, set(terminal.sources) == set(FALLBACK)) == (5, True)
    assert {"math500", "aime24", "aime25", "livecodebench", "swebench_verified"} <= set(presets)
    for name, preset in presets.items():
        assert {"temperature", "top_p", "samples", "max_tokens", "max_turns"} <= set(preset.sources) <= set(FALLBACK), (
            name
        )
        assert (preset.sampling.temperature, preset.sampling.top_p) == (1.0, 0.95)
    assert presets["livecodebench"].samples == 10


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch, capsys):
    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert main(["eval", "math500", "--policy", "empty"]) == 2
    told = capsys.readouterr().err
    assert "cannot be loaded from the hub" in told
    assert "--data FILE" in told


def test_rows_of_the_hub_become_tasks(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: ROWS)
    tasks = load_tasks(suite_named("aime24"), data=None, options=LoadOptions())
    assert [(task.id, task.hidden["answer"]) for task in tasks] == [("p1", "2"), ("p2", "3")]


def test_options_that_cannot_do_what_they_say_are_refused(tmp_path, capsys):
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = ["eval", "math500", "--data", str(data), "--policy", "gold", "--samples", "1"]
    assert main([*command, "--select"]) == 2
    assert "--select needs --out DIR" in capsys.readouterr().err
    assert main([*command, "--against", str(tmp_path / "none")]) == 2
    assert "there is no verdicts.jsonl" in capsys.readouterr().err
