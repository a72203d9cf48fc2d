"""The published formats of the suites of programs, on rows of our own; and, where it lies beside, on labelled data."""

import asyncio
import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest

from verigym.envs.datasets.files import SourceRow
from verigym.envs.datasets.livecodebench import decode_cases
from verigym.errors import ConfigError, TaskError
from verigym.evals.grade import grade
from verigym.evals.predictions import match, read_predictions
from verigym.evals.suites.registry import suite_named
from verigym.evals.suites.spec import GradeOptions, LoadOptions

SHARED = Path(__file__).parents[4] / "shared" / "data"


pytestmark = pytest.mark.usefixtures("local_sandbox")


def verdicts(tmp_path, name, rows, predictions, **options):
    suite = suite_named(name)
    sources = [SourceRow(where=f"row {at}", value=row) for at, row in enumerate(rows)]
    tasks = suite.tasks_of(sources, LoadOptions(**options))
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in predictions))
    jobs = match(suite, tasks, read_predictions(path))
    assert suite.make_grader is not None
    graded = asyncio.run(grade(jobs, suite.make_grader(GradeOptions(sandbox="local")), workers=2))
    return [verdict.passed for verdict in graded]


def problem(question_id, public=(), private=(), func_name=None, packed=False, **more):
    kind = "functional" if func_name else "stdin"
    cases = [json.dumps([{"input": i, "output": o, "testtype": kind} for i, o in part]) for part in (public, private)]
    if packed:
        cases[1] = base64.b64encode(zlib.compress(pickle.dumps(cases[1]))).decode()
    return {
        "question_id": question_id,
        "question_content": "?",
        "starter_code": "",
        "contest_date": "2024-03-01T00:00:00",
        "public_test_cases": cases[0],
        "private_test_cases": cases[1],
        "metadata": json.dumps({"func_name": func_name} if func_name else {}),
        **more,
    }


def test_livecodebench(tmp_path):
    rows = [
        problem("add", [("1 2\n", "3\n")], [("5 5\n", "10.0\n")], packed=True),
        problem("f", [("[1, 2]\n3", "[1, 2, 3]")], func_name="f"),
        problem("none"),
    ]
    method = "class Solution:\n    def f(self, xs: List[int], x: int) -> List[int]:\n        return {}\n"
    predictions = [
        ("add", "print(sum(map(int, input().split())))", True),
        ("add", "a, b = map(int, input().split())\nprint(a + b if a < b else 0)", False),
        ("add", "```python\nprint(sum(map(int, stdin.read().split())))\n```", True),
        ("add", "```cpp\nint main() {}\n```", False),
        ("add", "", False),
        ("add", "print(sum(map(int, input().split())))\nsys.exit(1)", True),
        ("add", "print(sum(map(int, input().split())))\nraise ValueError", False),
        ("f", method.format("xs + [x]"), True),
        ("f", method.format("(*xs, x)"), True),
        ("f", method.format("[True, 2, 3]"), False),
        ("f", method.format("xs"), False),
        ("none", "print(1)", None),
    ]
    given = [{"task_id": name, "prediction": text} for name, text, _ in predictions]
    assert verdicts(tmp_path, "livecodebench", rows, given) == [passed for *_, passed in predictions]


def test_livecodebench_s_own_rows_of_several_programs(tmp_path):
    rows = [problem("add", [("1 2\n", "3\n")])]
    given = [{"question_id": "add", "code_list": ["print(3)", "print(4)", "print(3)"]}]
    assert verdicts(tmp_path, "livecodebench", rows, given) == [True, False, True]


def test_the_window_of_days_includes_both_ends():
    suite = suite_named("livecodebench")
    rows = [
        SourceRow(where="", value=problem(day, contest_date=f"{day}T00:00:00")) for day in ("2024-03-01", "2024-04-01")
    ]
    read = suite.tasks_of(rows, LoadOptions(since="2024-04-01"))
    assert [task.id for task in read] == ["2024-04-01"]
    assert len(suite.tasks_of(rows, LoadOptions(since="2024-03-01", until="2024-04-01"))) == 2
    with pytest.raises(ConfigError, match="none of 2 problems"):
        suite.tasks_of(rows, LoadOptions(since="2025-01-01"))
    with pytest.raises(ConfigError, match="--since is 'spring'"):
        suite.tasks_of(rows, LoadOptions(since="spring"))


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("value", [Evil(), {1: 2}, b"[]"])
def test_packed_tests_that_are_no_text_are_refused_and_nothing_runs(value, capsys):
    packed = base64.b64encode(zlib.compress(pickle.dumps(value))).decode()
    with pytest.raises(TaskError):
        decode_cases(packed)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["", "%%%", "{}", '[{"input": 1}]', base64.b64encode(b"x").decode()])
def test_broken_tests_are_an_error_of_their_task(text):
    with pytest.raises(TaskError):
        decode_cases(text)


HEAD = 'from typing import List\n\n\ndef double(xs: List[int]) -> List[int]:\n    """Twice each."""\n'
BODY = "    return [2 * x for x in xs]\n"
HUMAN = {
    "task_id": "HumanEval/0",
    "prompt": HEAD,
    "entry_point": "double",
    "canonical_solution": BODY,
    "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n    assert candidate([]) == []\n",
}
WHOLE = "def double(xs):\n    return [x + x for x in xs]\n"
RESPONSES = [
    (BODY, True),
    ("    return xs\n", False),
    (WHOLE, True),
    (f"Here it is:\n```python\n{WHOLE}```\nUse it so:\n```python\nprint(double([1]))\n```", True),
    (f"<think>```python\n{WHOLE}```</think>I do not know.", False),
    ("", False),
    ("```python\n```", False),
]


@pytest.mark.parametrize("key", ["prediction", "completion"])
def test_humaneval(tmp_path, key):
    given = [{"task_id": "HumanEval_0", key: text} for text, _ in RESPONSES]
    assert verdicts(tmp_path, "humaneval", [HUMAN], given) == [passed for _, passed in RESPONSES]


def test_a_completion_follows_its_prompt_and_a_solution_stands_alone(tmp_path):
    typed = "def double(xs: List[int]):\n    return [x + x for x in xs]\n"
    assert verdicts(tmp_path, "humaneval", [HUMAN], [{"task_id": "HumanEval/0", "completion": typed}]) == [True]
    assert verdicts(tmp_path, "humaneval", [HUMAN], [{"task_id": "HumanEval/0", "solution": typed}]) == [False]


def test_humaneval_plus(tmp_path):
    plus = {key: HUMAN[key] for key in ("task_id", "prompt", "entry_point")}
    early = plus | {"contract": "    assert xs is not None\n", "reference": BODY, "base_input": [[[1]]]}
    late = plus | {"canonical_solution": BODY, "base_input": [[[1]]], "plus_input": [[[1, 2, 3]]], "atol": 0}
    given = [{"task_id": "HumanEval/0", "prediction": text} for text in (BODY, "    return [2]\n", "    return xs\n")]
    assert verdicts(tmp_path, "humaneval", [early], given) == [True, True, False]
    more = {"task_id": "HumanEval_0", "inputs": [[[5]]]}
    assert verdicts(tmp_path, "humaneval", [early, more], given) == [True, False, False]
    assert verdicts(tmp_path, "humaneval", [late], given) == [True, False, False]
    assert verdicts(tmp_path, "humaneval", [plus], given) == [None] * 3


def test_mbpp(tmp_path):
    whole = {
        "task_id": 7,
        "text": "Add.",
        "code": "def sum(a, b):\n    return a + b\n",
        "test_setup_code": "",
        "test_list": ["assert sum(1, 2) == 3", "assert sum(2, 2) == 4"],
        "challenge_test_list": ["assert sum(0, 0) == 1"],
    }
    sanitized = {
        "task_id": 8,
        "prompt": "Root.",
        "code": "def root(x):\n    return x ** 0.5\n",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(root(2), math.sqrt(2))"],
    }
    plus = {
        "task_id": "Mbpp/9",
        "prompt": "Add.",
        "entry_point": "add",
        "canonical_solution": "def add(a, b):\n    return a + b\n",
        "base_input": [[1, 2]],
        "plus_input": [[2, 2]],
    }
    given = [
        {"task_id": 7, "prediction": whole["code"]},
        {"task_id": "MBPP/7", "prediction": "def sum(a, b):\n    return 3"},
        {"task_id": "8", "prediction": "```python\ndef root(x):\n    return x ** 0.5\n```"},
        {"task_id": 8, "prediction": "def root(x):\n    return x"},
        {"task_id": "Mbpp/9", "prediction": "def add(a, b):\n    return b + a"},
        {"task_id": "Mbpp/9", "prediction": "def add(a, b):\n    return 3"},
        {"task_id": 10, "prediction": "def x(): pass"},
    ]
    rows = [whole, sanitized, plus, {"task_id": 10, "text": "?", "code": "", "test_list": []}]
    assert verdicts(tmp_path, "mbpp", rows, given) == [True, False, True, False, True, False, None]


def test_cruxeval(tmp_path):
    row = {
        "id": "s",
        "code": "import math\ndef f(x):\n    return (x, math.floor(x))",
        "input": "1.5",
        "output": "(1.5, 1)",
    }
    cases = [
        ("output", "(1.5, 1)", True),
        ("output", "(3 / 2, int(1.2))", True),
        ("output", "(1.5, True)", False),
        ("output", "[1.5, 1]", False),
        ("output", "f(1.5)", False),
        ("output", "(1.5,", False),
        ("output", "Thinking. [ANSWER]assert f(1.5) == (1.5, 1)[/ANSWER]", True),
        ("output", "", False),
        ("input", "f(1.5)", True),
        ("input", "f(3 / 2)", True),
        ("input", "f(1)", False),
        ("input", "1.5", False),
        ("input", "(1.5, 1) or f(0)", False),
        ("input", "(1.5, 1) # f(", False),
        ("input", "f(type('E', (), {'__eq__': lambda a, b: True})())", False),
    ]
    given = [{"task_id": "s", "mode": mode, "prediction": text} for mode, text, _ in cases]
    assert verdicts(tmp_path, "cruxeval", [row], given) == [passed for *_, passed in cases]
    with pytest.raises(TaskError, match="says input or output"):
        verdicts(tmp_path, "cruxeval", [row], [{"task_id": "s", "prediction": "1"}])


def test_cruxeval_after_a_trace(tmp_path):
    row = {"id": "s", "code": "def f(x):\n    return x + 1", "input": "1", "output": "2"}
    traced = suite_named("cruxeval_trace").tasks_of([SourceRow(where="", value=row)], LoadOptions())
    (plain, _) = sorted(suite_named("cruxeval").tasks_of([SourceRow(where="", value=row)], LoadOptions()), key=by_mode)
    assert [task.id for task in traced] == [plain.id] == ["s/output"]
    assert traced[0].hidden == plain.hidden
    assert traced[0].prompt.startswith(plain.prompt + "\n\nFirst write the trace")
    trace = '<|call_sep|>{"x": "1"}<|action_sep|>def f(x):\n<|frame_sep|>'
    given = [{"task_id": "s", "mode": "output", "prediction": f"{trace}[ANSWER]{n}[/ANSWER]"} for n in (2, 3)]
    assert verdicts(tmp_path, "cruxeval_trace", [row], given) == [True, False]


def by_mode(task):
    return task.metadata["mode"] != "output"


def agreement(tmp_path, name, data, predictions):
    rows = [json.loads(line) for line in (SHARED / "code" / data).open()]
    given = [json.loads(line) for line in (SHARED / "predictions" / predictions).open()]
    found = verdicts(tmp_path, name, rows, [{k: v for k, v in row.items() if "label" not in k} for row in given])
    return [(row, passed) for row, passed in zip(given, found, strict=True)]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the labelled development data does not lie beside this checkout")
@pytest.mark.parametrize(
    ("name", "data", "predictions"),
    [
        ("humaneval", "humaneval.jsonl", "humaneval.jsonl"),
        ("cruxeval", "cruxeval.jsonl", "cruxeval.jsonl"),
        ("livecodebench", "livecodebench_problems.jsonl", "livecodebench.jsonl"),
    ],
)
def test_verdicts_agree_with_labels(tmp_path, name, data, predictions):
    pairs = agreement(tmp_path, name, data, predictions)
    # Of LiveCodeBench only a part of the tests is there, which a wrong program may pass.
    differ = [row for row, passed in pairs if row["label"] != passed and (row["label"] or name != "livecodebench")]
    assert len(differ) / len(pairs) <= (0.006 if name == "livecodebench" else 0.005), differ
