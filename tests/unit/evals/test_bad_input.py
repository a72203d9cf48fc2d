"""Broken files, given to every suite that reads its own format: an error names the row, nothing is half-written."""

import json
import re

import pytest

from verigym.__main__ import main

CASES = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])
ROWS = {
    "math500": {"unique_id": "a", "problem": "1+1?", "answer": "2"},
    "aime24": {"id": 60, "problem": "1+1?", "answer": "002"},
    "livecodebench": {
        "question_id": "a",
        "question_content": "Add one.",
        "starter_code": "",
        "contest_date": "2024-10-01T00:00:00",
        "public_test_cases": CASES,
        "private_test_cases": "",
        "metadata": "{}",
    },
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": "def after(x):\n",
        "entry_point": "after",
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    },
    "mbpp": {
        "task_id": 2,
        "text": "Add one.",
        "code": "def after(x):\n    return x + 1\n",
        "test_list": ["assert after(1) == 2"],
    },
    "cruxeval": {"id": "sample_0", "code": "def f(x):\n    return x", "input": "1", "output": "1"},
}
IDS = {
    "math500": "a",
    "aime24": 60,
    "livecodebench": "a",
    "humaneval": "HumanEval/0",
    "mbpp": 2,
    "cruxeval": "sample_0",
}
ANSWERLESS = {  # what a row loses that can then not be graded
    "math500": {"answer": None},
    "aime24": {"answer": None},
    "livecodebench": {"public_test_cases": "[]"},
    "humaneval": {"test": ""},
    "mbpp": {"test_list": []},
}

pytestmark = pytest.mark.usefixtures("local_sandbox")


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def predicted(suite, **fields):
    mode = {"mode": "output"} if suite == "cruxeval" else {}
    return {"task_id": IDS[suite], "prediction": "1"} | mode | fields


BROKEN = {
    "unknown": (
        lambda s: [ROWS[s]],
        lambda s: [predicted(s, task_id="nobody")],
        r"line 1: no task 'nobody(/output)?' in the data",
    ),
    "twice": (lambda s: [ROWS[s], ROWS[s]], lambda s: [predicted(s)], r"occurs? more than once"),
    "mixed forms": (
        lambda s: [ROWS[s]],
        lambda s: [predicted(s), {"instance_id": IDS[s], "model_patch": ""}],
        r"line 2: .*use one form",
    ),
    "no JSON": (lambda s: [ROWS[s], "{"], lambda s: [predicted(s)], r"line 2"),
    "no row": (lambda s: [ROWS[s], [1]], lambda s: [predicted(s)], r"line 2"),
    "another suite's": (lambda s: [ROWS[s], {"what": "else"}], lambda s: [predicted(s)], r"line 2"),
    "nothing": (lambda s: [], lambda s: [predicted(s)], r"no task|no row|holds no"),
    "no prediction": (lambda s: [ROWS[s]], lambda s: [], r"holds no prediction"),
    "torn prediction": (lambda s: [ROWS[s]], lambda s: [predicted(s), '{"task_id":'], r"line 2"),
}


@pytest.mark.parametrize("kind", list(BROKEN))
@pytest.mark.parametrize("suite", list(ROWS))
def test_a_broken_file_is_told_and_nothing_is_written(suite, kind, tmp_path, capsys):
    rows, predictions, told = BROKEN[kind]
    data, given = write(tmp_path / "data", rows(suite)), write(tmp_path / "predictions", predictions(suite))
    out = tmp_path / "out"
    assert main(["grade", suite, "--data", data, "--predictions", given, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert re.search(told, message), message
    assert "Traceback" not in message
    assert not out.exists()


@pytest.mark.parametrize("kind", ["twice", "no JSON", "no row", "another suite's", "nothing"])
@pytest.mark.parametrize("suite", list(ROWS))
def test_an_evaluation_of_broken_rows_asks_nothing(suite, kind, tmp_path, capsys):
    data, out = write(tmp_path / "data", BROKEN[kind][0](suite)), tmp_path / "out"
    assert main(["eval", suite, "--data", data, "--policy", "empty", "--sandbox", "local", "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert re.search(BROKEN[kind][2], message), message
    assert not out.exists()


@pytest.mark.parametrize("suite", list(ANSWERLESS))
def test_a_row_with_nothing_to_grade_by_spoils_no_other(suite, tmp_path):
    other = ROWS[suite] | {key: f"{value}0" for key, value in ROWS[suite].items() if value == IDS[suite]}
    data = write(tmp_path / "data", [ROWS[suite] | ANSWERLESS[suite], other])
    named = next(key for key, value in ROWS[suite].items() if value == IDS[suite])
    given = [predicted(suite), predicted(suite, task_id=other[named])]
    out = tmp_path / "out"
    predictions = write(tmp_path / "predictions", given)
    assert (
        main(["grade", suite, "--data", data, "--predictions", predictions, "--sandbox", "local", "--out", str(out)])
        == 0
    )
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert [(row["passed"], row["ending"]) for row in verdicts] == [(None, "ungradable"), (False, "answered")]
    assert json.loads((out / "report.json").read_text())["num_ungradable"] == 1
