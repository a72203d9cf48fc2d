"""Episodes, groups and metrics as the page asks for them: what is counted, and what a resume takes away."""

import json
import os

from .conftest import episode, evaluation


def only(client):
    [run] = client("runs")["runs"]
    return run["id"]


def test_episodes_without_a_verdict_are_neither_passed_nor_failed(client, tmp_path):
    evaluation(tmp_path / "runs" / "a", {"astropy-1": (True, None), "django-2": (False, None, None)})
    run = only(client)
    found = {name: client("episodes", run=run, passed=name) for name in ("yes", "no", "none")}
    assert {name: one["total"] for name, one in found.items()} == {"yes": 1, "no": 1, "none": 3}
    assert all(row["passed"] is None for row in found["none"]["rows"])
    assert client("facets", run=run)["passed"] == {"yes": 1, "no": 1, "none": 3}


def test_groups_are_paged_and_filtered(client, tmp_path, training):
    training(tmp_path / "runs" / "a", steps=3, num_groups=3)
    run = only(client)
    every = client("groups", run=run, limit=500)
    assert [(row["step"], row["task"]) for row in every["rows"]] == [
        (step, f"task-{group}") for step in (3, 2, 1) for group in (2, 1, 0)
    ]
    pages = [client("groups", run=run, limit=4, offset=offset) for offset in (0, 4, 8)]
    assert [row for page in pages for row in page["rows"]] == every["rows"]
    assert {page["total"] for page in pages} == {9}
    for row in every["rows"]:
        assert (row["samples"], len(row["members"])) == (4, 4)
        assert row["reward"] == sum(member[1] for member in row["members"]) / 4
    passed = client("groups", run=run, passed="yes", family="code")
    assert passed["total"] == len(passed["rows"]) <= 3
    assert all(member[2] == 1 for row in passed["rows"] for member in row["members"])
    assert {row["family"] for row in passed["rows"]} == {"code"}


def test_metrics_that_a_resume_cuts_are_gone(client, tmp_path, training):
    path = training(tmp_path / "runs" / "a", steps=3).path / "rl" / "metrics.jsonl"
    run = only(client)
    before = client("metrics", run=run)
    assert before["version"] == client("poll", run=run)["metrics"]
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("r+b") as file:  # as a resume from step 1 does, which then makes step 2 anew
        file.truncate(len(lines[0]))
        file.seek(0, os.SEEK_END)
        file.write(json.dumps({**json.loads(lines[1]), "trainer/loss/mean": 7.0}).encode() + b"\n")
    after = client("metrics", run=run)
    assert after["version"] == client("poll", run=run)["metrics"] != before["version"]
    assert after["stages"][0]["columns"]["trainer/loss/mean"] == [1.0, 7.0]


def test_of_a_sample_that_was_taken_again_the_last_verdict_counts(client, tmp_path):
    path = evaluation(tmp_path / "runs" / "a", {"astropy-1": (True,), "django-2": (True,)}) / "verdicts.jsonl"
    run = only(client)
    assert client("evaluation", run=run)["summary"]["pass@1"] == 1.0
    again = {**json.loads(path.read_text().splitlines()[0]), "passed": False, "score": 0.0}
    with path.open("a") as file:
        file.write(json.dumps(again) + "\n")
    summary = client("evaluation", run=run)["summary"]
    assert (summary["num_predictions"], summary["pass@1"]) == (2, 0.5)


def test_a_line_that_is_written_in_pieces_is_an_episode_once_it_is_whole(client, tmp_path, training):
    path = training(tmp_path / "runs" / "a", steps=2).path / "rl" / "episodes" / "000001.jsonl"
    run = only(client)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + last[:100])
    assert client("episodes", run=run)["total"] == len(lines) == 15
    with path.open("ab") as file:
        file.write(last[100:])
    assert client("episodes", run=run)["total"] == 16


def test_a_version_is_of_before_the_rows_it_stands_with(client, tmp_path, training, monkeypatch):
    """What comes while a question is answered must make the page ask again."""
    from verigym.evals.viewer import app

    one = training(tmp_path / "runs" / "a", steps=1, end=False)
    run = only(client)
    version = client("episodes", run=run)["version"]

    def meanwhile(base, asked):
        one.step(2, make=lambda **changes: episode(**changes))
        client("poll", run=run)
        return {"rows": []}

    monkeypatch.setattr(app, "page_of", meanwhile)
    assert client("episodes", run=run)["version"] == version < client("poll", run=run)["episodes"]
