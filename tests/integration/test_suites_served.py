"""Every suite of programs end to end: a server that speaks OpenAI's API answers, programs run, ``grade`` agrees."""

import json

import pytest

from verigym.__main__ import main

ADD = "a, b = map(int, input().split())\nprint(a {sign} b)"
DOUBLE = "class Solution:\n    def double(self, x: int) -> int:\n        return 2 * x\n"
CASE = '[{"input": "1 2", "output": "3", "testtype": "stdin"}, {"input": "2 2\\n", "output": "4\\n"}]'
CALL = '[{"input": "4", "output": "8", "testtype": "functional"}]'
SUITES = {
    "livecodebench": [
        {
            "question_id": name,
            "question_content": f"Problem {name}",
            "starter_code": starter,
            "difficulty": difficulty,
            "contest_date": "2024-10-01T00:00:00",
            "public_test_cases": cases,
            "private_test_cases": "",
            "metadata": metadata,
        }
        for name, starter, difficulty, cases, metadata in (
            ("sum", "", "easy", CASE, "{}"),
            ("difference", "", "hard", CASE, "{}"),
            ("double", "class Solution:\n    def double(self, x)", "easy", CALL, '{"func_name": "double"}'),
        )
    ],
    "humaneval": [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f'def {name}(x):\n    """Problem {name}."""\n',
            "entry_point": name,
            "canonical_solution": "    return x + 1\n",
            "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        }
        for number, name in enumerate(("after", "before"))
    ],
    "mbpp": [
        {
            "task_id": number,
            "text": f"Problem {name}",
            "code": f"def {name}(x):\n    return x + 1\n",
            "test_list": [f"assert {name}(1) == 2"],
        }
        for number, name in enumerate(("after", "before"), start=2)
    ],
    "cruxeval": [{"id": "sample_0", "code": "def f(x):\n    return [x, x]", "input": "1", "output": "[1, 1]"}],
}
ANSWERS = {
    "Problem sum": f"<think>```python\nno\n```</think>So:\n```python\n{ADD.format(sign='+')}\n```",
    "Problem difference": f"```python\n{ADD.format(sign='-')}\n```",
    "Problem double": f"```python\n{DOUBLE}```\nIt doubles.",
    "Problem after": "```python\ndef after(x):\n    return x + 1\n```",
    "Problem before": "```python\ndef before(x):\n    return x - 1\n```",
    "What does this call give?": "[ANSWER][1, 1][/ANSWER]",
    "Find arguments": "[ANSWER]f(2)[/ANSWER]",
}
EXPECTED = {
    "livecodebench": [True, False, True],
    "humaneval": [True, False],
    "mbpp": [True, False],
    "cruxeval": [False, True],  # the input, then the output
}


pytestmark = pytest.mark.usefixtures("local_sandbox")


def say(asked, prompt):
    return next(answer for part, answer in ANSWERS.items() if part in prompt)


def verdicts_of(folder):
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    return [row["passed"] for row in rows]


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_suite_of_programs_runs_against_a_server(suite, scripted_server, tmp_path):
    scripted_server.answer = say
    data, out, graded = tmp_path / "data.jsonl", tmp_path / "out", tmp_path / "graded"
    data.write_text("".join(json.dumps(row) + "\n" for row in SUITES[suite]))
    command = [
        "eval",
        suite,
        "--data",
        str(data),
        "--policy",
        scripted_server.policy,
        "--out",
        str(out),
        "--sandbox",
        "local",
    ]
    assert main([*command, "--samples", "2", "--workers", "2"]) == 0
    wanted = [passed for passed in EXPECTED[suite] for _ in range(2)]
    assert verdicts_of(out) == wanted
    report = json.loads((out / "report.json").read_text())
    assert report["pass@1"] == report["pass@2"] == pytest.approx(sum(EXPECTED[suite]) / len(EXPECTED[suite]))
    assert report["num_infrastructure_failures"] == 0
    if suite == "livecodebench":
        assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in scripted_server.asked} == {
            (1.0, 0.95, 65536)
        }
        assert "evals/configs/eval_lcb.yaml" in report["sources"]["temperature"]
        assert report["breakdown"]["difficulty"]["easy"]["pass@1"] == 1.0
        assert report["breakdown"]["difficulty"]["hard"]["pass@1"] == 0.0
    # What was recorded is what ``grade`` takes.
    command = ["grade", suite, "--data", str(data), "--predictions", str(out / "preds.jsonl"), "--out", str(graded)]
    assert main([*command, "--sandbox", "local"]) == 0
    assert verdicts_of(graded) == wanted
