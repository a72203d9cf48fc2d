"""What the page says of an evaluation that was audited: what its figures are worth, and passes to look at."""

import pytest

from .conftest import audited, evaluation

TASKS = {"astropy-1": (True, False), "django-2": (True, True), "sympy-3": (False, False)}


@pytest.fixture
def run(tmp_path):
    path = evaluation(tmp_path / "runs" / "a", TASKS)
    return path, audited(path)


def test_the_results_say_what_they_are_worth_class_by_class(run, client):
    _, worth = run
    found = client("evaluation", run=client("runs")["runs"][0]["id"])["worth"]
    assert (found["audited"], found["num_tasks"]) == (2, 3)
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["on sound tasks"]["pass@1"] == worth["sound"]["pass@1"] == 0.5
    assert (rows["class weak"]["pass@1"], rows["class weak"]["tasks"]) == (1.0, "1")
    assert rows["wrong solutions accepted"]["pass@1"] == 0.25
    assert rows["class weak"]["interval"] == worth["classes"]["weak"]["interval"]


def test_passes_to_look_at_stand_in_the_results_and_beside_their_episode(run, client):
    number = client("runs")["runs"][0]["id"]
    found = client("evaluation", run=number)["passes"]
    assert (found["looked_at"], found["flagged"]) == (3, 2)
    assert found["rows"][0] == {
        "task": "astropy-1",
        "sample": 0,
        "flags": ["turn 2: read git's history (git log -p)", "patch: read git's history (git log -p)"],
    }
    assert "\\x1b[2J" in found["rows"][1]["flags"][0]
    assert client("episode", run=number, key="0:astropy-1")["flags"] == found["rows"][0]["flags"]
    assert client("episode", run=number, key="1:astropy-1")["flags"] == []


@pytest.mark.parametrize(
    ("passes", "report"),
    [
        (None, None),
        ("rubbish\n[1]\n{}\n", "{}"),
        ('{"task_id": "a", "index": "x", "flags": 3}\n', '{"worth": 3}'),
        ('{"task_id": "a", "index": 0, "flags": [{"turn": 1}]}\n', '{"worth": {"corrected": null}}'),
        ('{"task_id": "a", "index": 0, "flags": "oops"}\n', "[1"),
    ],
)
def test_what_holds_something_else_is_passed_over(run, client, passes, report):
    path, _ = run
    for name, text in (("passes.jsonl", passes), ("report.json", report)):
        if text is None:
            (path / name).unlink()
        else:
            (path / name).write_text(text)
    number = client("runs")["runs"][0]["id"]
    found = client("evaluation", run=number)
    assert found["worth"] is None
    assert not (found["passes"] or {}).get("flagged")
    assert client("episode", run=number, key="0:astropy-1")["flags"] == []
