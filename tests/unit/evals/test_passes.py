"""The passes of a run on disk looked at, and what its report and its page say of them."""

import json
import tracemalloc

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.evals.passes import look_at_passes, told_passes


def episode(index, command, printed):
    calls = [{"name": "bash", "arguments": {"command": command}, "id": None}]
    return {
        "index": index,
        "task_id": example_tasks()[0].id,
        "family": "swe",
        "ending": "submitted",
        "passed": True,
        "reward": 1.0,
        "messages": [
            {"role": "user", "content": "mend it"},
            {"role": "assistant", "content": "", "calls": calls},
            {"role": "tool", "content": printed, "name": "bash"},
        ],
    }


@pytest.fixture
def run(tmp_path):
    """Two passes, of which one read git's history, and a failure."""
    folder = tmp_path / "run"
    folder.mkdir()
    task = example_tasks()[0].id
    rows = [
        (
            "verdicts",
            [
                {"task_id": task, "index": n, "passed": n < 2, "score": float(n < 2), "ending": "submitted"}
                for n in range(3)
            ],
        )
    ]
    rows.append(("preds", [{"instance_id": task, "model_patch": "", "index": n} for n in range(3)]))
    rows.append(
        (
            "trajectories",
            [episode(0, "ls", "shelf.py"), episode(1, "git log -p", "commit"), episode(2, "git log -p", "")],
        )
    )
    for name, lines in rows:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_resolved_episodes_are_looked_at_and_no_others(run):
    found = look_at_passes(run, example_tasks())
    assert (found["resolved"], found["flagged"], found["share"]) == (2, 1, 0.5)
    assert found["kinds"] == {"history": 1}
    rows = [json.loads(line) for line in (run / "passes.jsonl").read_text().splitlines()]
    assert [(row["index"], [flag["kind"] for flag in row["flags"]]) for row in rows] == [(0, []), (1, ["history"])]
    assert "sample 1, turn 1: history: git log -p" in told_passes(found)


def test_without_conversations_the_patch_alone_is_looked_at(run):
    (run / "trajectories.jsonl").unlink()
    found = look_at_passes(run, example_tasks())
    assert (found["resolved"], found["conversations"], found["flagged"]) == (2, 0, 0)
    assert "0 with their conversation" in told_passes(found)


def test_the_page_says_where_to_look(run, tmp_path):
    look_at_passes(run, example_tasks())
    worth = {"audited": 1, "num_tasks": 1, "errors": None, "corrected": None, "classes": {}}
    worth["sound"] = {"pass@1": 0.5, "interval": [0.1, 0.9], "n": 1}
    (run / "settings.json").write_text(json.dumps({"suite": "swe"}))
    passes = {"resolved": 2, "flagged": 1, "share": 0.5, "interval": [0.05, 0.95]}
    official = {"pass@1": 2 / 3, "interval": [0.2, 0.9], "n": 1}
    report = {"suite": "swe", "policy": "x", **official, "worth": worth, "passes": passes}
    (run / "report.json").write_text(json.dumps(report))
    assert main(["view", str(run), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text()
    assert "<td>pass@1 by the tests</td><td>0.667, 0.200 to 0.900</td>" in text
    assert "<td>0.500, 0.050 to 0.950</td><td>1 of 2 passes</td>" in text
    assert "on sound tasks" in text
    assert "0.500, 0.100 to 0.900" in text
    assert text.count("to look at") == 1
    assert "turn 1: it looked into git&#x27;s history" in text


def test_an_evaluation_looks_at_its_passes_by_itself_and_again(tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        main(["eval", "verigym/SWE-v0", "--policy", "gold", "--limit", "1", "--out", str(out), "--sandbox", "local"])
        == 0
    )
    report = json.loads((out / "report.json").read_text())
    assert report["passes"]["resolved"] == 1
    assert main(["eval", "audit", str(out)]) == 0
    assert json.loads((out / "report.json").read_text())["passes"] == report["passes"]
    assert "passes looked at: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["eval", "audit"], "verigym eval audit needs RUN"),
        (["eval", "audit", "nowhere"], "settings of the run"),
        (["eval", "math500", "nowhere"], "a second word is of verigym eval audit RUN"),
        (["eval", "verigym/SWE-v0", "--policy", "gold", "--audit", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_gets_one_message(command, told, capsys):
    assert main(command) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data_sha256": "0" * 64}, "give it by --data FILE"),
        ({"data_sha256": None}, "has verdicts on 1 tasks that are not among the rows, such as elsewhere"),
    ],
)
def test_a_run_is_looked_at_with_its_own_rows_or_not_at_all(run, capsys, settings, told):
    (run / "settings.json").write_text(json.dumps({"suite": "verigym/SWE-v0", **settings}))
    (run / "report.json").write_text("{}")
    verdict = {"task_id": "elsewhere", "index": 0, "passed": True, "score": 1.0, "ending": "submitted"}
    with (run / "verdicts.jsonl").open("a") as file:
        file.write(json.dumps(verdict) + "\n")
    assert main(["eval", "audit", str(run)]) == 2
    assert told in capsys.readouterr().err


def test_conversations_are_looked_at_one_after_another(run):
    """Of a long run all of them together may not fit into memory."""
    task = example_tasks()[0].id
    long, count = episode(0, "ls", "x" * 200_000), 20
    verdict = {"task_id": task, "passed": True, "score": 1.0, "ending": "submitted"}
    (run / "verdicts.jsonl").write_text("".join(json.dumps({**verdict, "index": n}) + "\n" for n in range(count)))
    with (run / "trajectories.jsonl").open("w") as file:
        file.writelines(json.dumps({**long, "index": n}) + "\n" for n in range(count))
    tracemalloc.start()
    found = look_at_passes(run, example_tasks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found["resolved"], found["conversations"], found["flagged"]) == (count, count, 0)
    assert peak < 12 * 200_000
