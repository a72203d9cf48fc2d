"""``verigym grade``: files in, verdicts out."""

import asyncio
import json
import threading

import pytest

from verigym.__main__ import main
from verigym.envs.task import Task
from verigym.errors import SandboxError, TaskError
from verigym.evals.grade import grade
from verigym.evals.predictions import Job, match, read_predictions
from verigym.evals.suites.registry import known_suites
from verigym.evals.suites.spec import Prediction, Suite
from verigym.rewards.score import verdict

PROBLEMS = [
    {"unique_id": "a/1", "problem": "1+1?", "answer": "2", "subject": "sums", "level": 1},
    {"unique_id": "a/2", "problem": "1/2?", "answer": "\\frac{1}{2}", "subject": "fractions", "level": 2},
    {"unique_id": "a/3", "problem": "?", "answer": None, "subject": "fractions", "level": 2},
]
PREDICTIONS = [
    {"task_id": "a/2", "prediction": "So \\boxed{0.5}"},
    {"task_id": "a/1", "prediction": "So \\boxed{3}"},
    {"task_id": "a/3", "prediction": "So \\boxed{3}"},
    {"task_id": "a/1", "prediction": "The answer is 2.", "unknown": 1},
    {"task_id": "a/2", "prediction": None},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    data, predictions = write(tmp_path / "data", PROBLEMS), write(tmp_path / "predictions", PREDICTIONS)
    return ["--data", data, "--predictions", predictions, "--workers", "1"]


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_verdicts_are_in_the_order_given_and_the_report_has_its_keys(files, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["grade", "math500", *files, "--out", str(out)]) == 0
    rows = rows_of(out / "verdicts.jsonl")
    assert [(row["task_id"], row["index"], row["passed"]) for row in rows] == [
        ("a/2", 0, True),
        ("a/1", 0, False),
        ("a/3", 0, None),
        ("a/1", 1, True),
        ("a/2", 1, False),
    ]
    assert [row["ending"] for row in rows] == ["answered", "answered", "ungradable", "answered", "answered"]
    assert sum(row["seconds"] for row in rows) > 0
    assert rows[2]["detail"] == "task 'a/3' has no answer to grade by (it is None)"
    assert rows[2]["score"] is None
    report = json.loads((out / "report.json").read_text())
    counts = ("num_tasks", "num_predictions", "num_ungradable", "num_infrastructure_failures")
    assert [report[key] for key in counts] == [3, 5, 1, 0]
    assert report["pass@1"] == 0.5
    assert report["interval"][0] <= 0.5 <= report["interval"][1]
    assert report["seconds"] >= 0
    assert "math500, predictions" in capsys.readouterr().out


def test_strict_wants_the_box(files, tmp_path):
    assert main(["grade", "math500", *files, "--out", str(tmp_path / "out"), "--extraction", "strict"]) == 0
    assert [row["passed"] for row in rows_of(tmp_path / "out" / "verdicts.jsonl")] == [True, False, None, False, False]


def test_a_suite_of_numbers_takes_no_expression_left_to_be_worked_out(tmp_path):
    data = write(tmp_path / "data", [{"id": 1, "problem": "What is $200 + 4$?", "answer": "204"}])
    answers = ["\\boxed{200+4}", "\\boxed{204}", "\\boxed{204.0}", "\\boxed{\\neq 204}", "The answer is 200 + 4."]
    predictions = write(tmp_path / "predictions", [{"task_id": 1, "prediction": answer} for answer in answers])
    out = tmp_path / "out"
    command = ["grade", "aime24", "--data", data, "--predictions", predictions, "--workers", "1", "--out", str(out)]
    assert main(command) == 0
    assert [row["passed"] for row in rows_of(out / "verdicts.jsonl")] == [False, True, True, False, False]


def test_an_existing_folder_goes_on_and_one_of_other_files_is_refused(files, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["grade", "math500", *files, "--out", str(out)]
    assert main(command) == 0
    whole = (out / "verdicts.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    # A verdict on record is believed, not found again: this one is turned.
    turned = lines[0].replace("true", "false")
    (out / "verdicts.jsonl").write_text(turned + lines[1][:30])
    assert main(command) == 0
    again = [{**row, "seconds": 0} for row in rows_of(out / "verdicts.jsonl")]
    assert again == [{**json.loads(line), "seconds": 0} for line in [turned, *lines[1:]]]
    write(tmp_path / "predictions", PREDICTIONS[:2])
    assert main(command) == 2
    assert "holds another run (predictions_sha256 was" in capsys.readouterr().err


def test_a_verdict_has_the_id_as_the_prediction_writes_it(tmp_path):
    data = write(tmp_path / "data", [{"id": 60, "problem": "?", "answer": "033"}])
    rows = [{"task_id": 60, "prediction": "\\boxed{33}"}, {"task_id": "60", "prediction": "\\boxed{3}"}]
    predictions = write(tmp_path / "predictions", rows)
    command = ["grade", "aime24", "--data", data, "--predictions", predictions, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert main(command) == 0  # read back
    graded = rows_of(tmp_path / "out" / "verdicts.jsonl")
    assert [(row["task_id"], row["index"], row["passed"]) for row in graded] == [(60, 0, True), ("60", 1, False)]


@pytest.mark.parametrize(
    ("problems", "predictions", "told"),
    [
        (PROBLEMS, [{"task_id": "a/9", "prediction": ""}], r"line 1: no task 'a/9' in the data, the nearest is 'a/"),
        (PROBLEMS, [], "holds no prediction"),
        (PROBLEMS, [{"id": "a/1", "prediction": "2"}], "line 1: a prediction has .* this row has id, prediction"),
        (PROBLEMS, [*PREDICTIONS, {"instance_id": "a/1", "model_patch": ""}], "line 6: .*use one form"),
        (PROBLEMS, [{"task_id": "a/1", "prediction": 2}], "line 1: prediction is a int"),
        (PROBLEMS, [{"task_id": None, "prediction": "2"}], "line 1: task_id is None"),
        ([*PROBLEMS, PROBLEMS[0]], PREDICTIONS, "1 ids occur more than once .* such as 'a/1'"),
        ([], PREDICTIONS, "has no task in"),
        ([{"unique_id": "a", "problem": "?"}], PREDICTIONS, "line 1: no row has an answer"),
        ([{"problem": "?", "answer": "1"}], PREDICTIONS, "line 1: no id"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(problems, predictions, told, tmp_path, capsys):
    data, rows = write(tmp_path / "data", problems), write(tmp_path / "predictions", predictions)
    out = tmp_path / "out"
    assert main(["grade", "math500", "--data", data, "--predictions", rows, "--out", str(out)]) == 2
    import re

    assert re.search(told, capsys.readouterr().err)
    assert not out.exists()


def test_nothing_gradable_is_an_error_with_the_reason(tmp_path, capsys):
    data = write(tmp_path / "data", PROBLEMS)
    rows = write(tmp_path / "predictions", [{"task_id": "a/3", "prediction": "1"}])
    out = tmp_path / "out"
    assert main(["grade", "math500", "--data", data, "--predictions", rows, "--out", str(out)]) == 2
    assert "none of 1 predictions could be graded; the first: task 'a/3' has no answer" in capsys.readouterr().err
    assert json.loads((out / "report.json").read_text())["pass@1"] is None


def test_unknown_suites_and_options_that_would_do_nothing(files, capsys):
    assert main(["grade", "math5000", *files]) == 2
    assert "did you mean 'math500'?" in capsys.readouterr().err
    assert main(["grade", "math500", *files, "--release", "v5"]) == 2
    assert "--release means nothing to suite 'math500'" in capsys.readouterr().err
    assert main(["grade", "math500", *files[:2], "--logs", "index"]) == 2
    assert "takes no --logs" in capsys.readouterr().err


def test_every_suite_says_what_its_rows_are():
    suites = known_suites()
    assert {"math500", "aime24", "aime25", "swe"} <= set(suites)
    assert all(suite.about and suite.env_ids for suite in suites.values())


class Grader:
    """Fails by the text of a prediction; counts what it does."""

    def __init__(self):
        self.asked, self.closed, self.running, self.most = [], 0, 0, 0

    async def grade(self, task, prediction):
        self.asked.append(prediction.text)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        if prediction.text == "gone" or (prediction.text == "flaky" and self.asked.count("flaky") == 1):
            raise SandboxError("the box is gone")
        return verdict(prediction.text in ("right", "flaky"))

    async def aclose(self):
        self.closed += 1


def jobs_of(texts):
    suite = Suite(name="s", about="", env_ids={}, tasks_of=lambda rows, options: [])
    predictions = [Prediction(where="", task_id="t", given_id="t", text=text) for text in texts]
    return match(suite, [Task(id="t", family="math", prompt="")], predictions)


def test_only_failures_of_the_infrastructure_are_tried_again():
    """Trap 18: a crash is not a 0."""
    grader = Grader()
    verdicts = asyncio.run(grade(jobs_of(["right", "flaky", "gone", "wrong"]), grader, workers=2))
    assert [verdict.passed for verdict in verdicts] == [True, True, None, False]
    assert verdicts[2].ending == "sandbox_failure"
    assert sorted(grader.asked) == ["flaky", "flaky", "gone", "gone", "right", "wrong"]
    assert (grader.closed, grader.most) == (1, 2)


def test_read_predictions_keeps_the_whole_row(tmp_path):
    write(tmp_path / "p", [{"instance_id": "x", "model_patch": "d", "model_name_or_path": "m"}])
    (prediction,) = read_predictions(tmp_path / "p")
    assert (prediction.task_id, prediction.text, prediction.fields["model_name_or_path"]) == ("x", "d", "m")
    with pytest.raises(TaskError, match="no such file"):
        read_predictions(tmp_path / "q")


def test_verdicts_are_flushed_beside_the_event_loop(tmp_path, monkeypatch):
    """A slow disk keeps no other grading waiting: no flush on the thread that all share."""
    flushed = []
    monkeypatch.setattr("os.fsync", lambda file: flushed.append(threading.get_ident()))

    class Right:
        async def grade(self, task, prediction):
            return verdict(True, "right")

        async def aclose(self):
            pass

    seen = []
    jobs = [
        Job(
            task=Task(id=str(n), family="math", prompt=""),
            prediction=Prediction(where="", task_id=str(n), given_id=n, text=""),
            index=0,
        )
        for n in range(3)
    ]
    asyncio.run(grade(jobs, Right(), workers=2, out=tmp_path / "out", told=lambda _: seen.append(list(flushed))))
    first, *_, last = seen
    assert len(last) >= len(first) + 2
    assert threading.get_ident() not in last[len(first) - 1 :]
