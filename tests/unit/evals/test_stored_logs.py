"""``verigym grade swe --logs``: the verdict of the harness that wrote a log; with --strict of what is marked alone."""

import json

import pytest

from verigym.__main__ import main

START, END = "+ : '>>>>> Start Test Output'", "+ : '>>>>> End Test Output'"
ROW = {"problem_statement": "x", "FAIL_TO_PASS": ["t.py::a"], "PASS_TO_PASS": [], "log_parser": "parse_log_pytest"}
PASSES = "PASSED t.py::a\n== 1 passed in 0.1s ==\n"
LOGS = {
    "in-order": f"{START}\n{PASSES}{END}\n",
    "out-of-order": f"{PASSES}>>>>> Test Exit Code: 0\n{START}\n+ pytest -rA t.py\n{END}\n",
    "out-of-order-failed": f"FAILED t.py::a - x\n== 1 failed in 0.1s ==\n{START}\n+ pytest -rA t.py\n{END}\n",
    "first-version": f"Task Metadata:\n>>>>> Applied Patch (pred)\n{PASSES}>>>>> All Tests Passed\n",
    "broke-off": f"{START}\nPASSED t.py::a\n",
}


@pytest.fixture
def given(tmp_path):
    for name, text in LOGS.items():
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "test_output.txt").write_text(text)
    (tmp_path / "rows").write_text("".join(json.dumps({**ROW, "instance_id": name}) + "\n" for name in LOGS))
    index = "".join(json.dumps({"instance_id": name, "dir": name}) + "\n" for name in LOGS)
    (tmp_path / "logs" / "index.jsonl").write_text(index)
    return ["--data", str(tmp_path / "rows"), "--logs", str(tmp_path / "logs" / "index.jsonl")]


def test_stored_logs_have_their_harness_verdicts_and_strict_ones_ours(given, tmp_path):
    def verdicts(*options):
        out = tmp_path / f"out{len(options)}"
        assert main(["grade", "swe", *given, "--workers", "2", "--out", str(out), *options]) == 0
        return {row["task_id"]: row for row in map(json.loads, (out / "verdicts.jsonl").read_text().splitlines())}

    found, strict = verdicts(), verdicts("--strict")
    expected = dict(zip(LOGS, [True, True, False, None, False], strict=True))
    assert {name: row["passed"] for name, row in found.items()} == expected
    assert {name: row["passed"] for name, row in strict.items()} == {**expected, "out-of-order": False}
    assert found["out-of-order"]["detail"].endswith("so the whole log was read, as swebench does)")
    assert found["first-version"]["ending"] == "ungradable"
    assert "swebench 1.x" in found["first-version"]["detail"]
    assert found["in-order"]["detail"] == "all tests passed"


def test_strict_means_nothing_without_logs(given, tmp_path, capsys):
    (tmp_path / "preds").write_text(json.dumps({"instance_id": "in-order", "model_patch": ""}))
    assert main(["grade", "swe", *given[:2], "--predictions", str(tmp_path / "preds"), "--strict"]) == 2
    assert "--strict is of stored logs" in capsys.readouterr().err


def test_the_same_folder_takes_one_of_the_two(given, tmp_path, capsys):
    command = ["grade", "swe", *given, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert main([*command, "--strict"]) == 2
    assert "strict_logs" in capsys.readouterr().err
