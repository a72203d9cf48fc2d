"""``verigym tasks validate`` on training sets of mathematics and programming."""

import json

from verigym.__main__ import main
from verigym.envs.datasets.training import load_training_set
from verigym.envs.task import write_jsonl

RIGHT = "print(sum(int(word) for word in input().split()))\n"


def taco(question, solution, output="3\n"):
    cases = {"inputs": ["1 2\n"], "outputs": [output]}
    return {"question": question, "input_output": json.dumps(cases), "solutions": json.dumps([solution])}


def test_problems_whose_gold_is_right_are_kept_and_the_others_named(tmp_path, capsys):
    rows = [taco("good", RIGHT), taco("wrong", "print(4)\n"), taco("always right", "\n", output=""), taco("", RIGHT)]
    rows += [{"question": "no solution", "input_output": rows[0]["input_output"], "solutions": "[]"}]
    source, out = tmp_path / "taco.jsonl", tmp_path / "kept.jsonl"
    write_jsonl(source, rows)
    arguments = ["tasks", "validate", str(source), "--times", "1", "--sandbox", "unsafe"]
    assert main([*arguments, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "1 of 4 tasks hold" in told
    assert "4 of 5 rows are tasks, 1 are left out (1: no question)" in told
    assert "gold is not 1: 0 of 1 tests passed" in told
    assert "states no solution" in told
    assert [task.prompt for task in load_training_set(out).tasks] == ["good"]
    assert main(arguments) == 1


def test_answers_of_mathematics_are_validated(tmp_path, capsys):
    source = tmp_path / "math.jsonl"
    write_jsonl(source, [{"problem": "What is 1/2?", "answer": "\\frac{1}{2}"}])
    assert main(["tasks", "validate", str(source), "--times", "1", "--sandbox", "unsafe"]) == 0
    assert "1 of 1 tasks hold" in capsys.readouterr().out
