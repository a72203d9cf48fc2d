"""Published training sets become tasks; every row that does not is accounted for."""

import asyncio
import json

import pyarrow
import pyarrow.parquet
import pytest

from verigym.envs.datasets.math_rows import DAPO_AFTER, DAPO_BEFORE
from verigym.envs.datasets.training import FORMATS, load_training_set
from verigym.envs.registry.opening import open_env
from verigym.envs.task import write_jsonl
from verigym.errors import ConfigError, TaskError

ADD = "def add(a, b):\n    return a + b\n"
SUM = "print(sum(int(word) for word in input().split()))\n"
PYTHON2 = "print sum(map(int, raw_input().split()))\n"

DAPO = {
    "data_source": "math_dapo",
    "prompt": [{"role": "user", "content": f"{DAPO_BEFORE}\n\nWhat is $17+25$?\n\n{DAPO_AFTER}"}],
    "ability": "MATH",
    "reward_model": {"ground_truth": "42", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b6eb4"},
}
ROWS = {
    "dapo_math": DAPO,
    "deepmath": {"question": "What is $17+25$?", "final_answer": "42", "difficulty": 5.0, "topic": "Algebra"},
    "numina_math": {
        "problem": "What is $17+25$?",
        "answer": "42",
        "solution": "…",
        "question_type": "math-word-problem",
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
    },
    "gsm8k": {"question": "What is 17 + 25?", "answer": "17 + 25 = <<17+25=42>>42\n#### 42"},
    "math": {"problem": "What is $17+25$?", "solution": "It is $\\boxed{42}$.", "level": "Level 1", "type": "Algebra"},
    "problem_answer": {"problem": "What is $17+25$?", "answer": "42", "llama8b_solve_rate": 0.9},
    "taco": {
        "question": "Print the sum of the numbers.",
        "input_output": json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}),
        "solutions": json.dumps([PYTHON2, SUM]),
        "starter_code": "",
        "difficulty": "EASY",
        "time_limit": "2.0 seconds",
        "memory_limit": "256.0 megabytes",
    },
    "code_contests": {
        "name": "1_A. Sum",
        "description": "Print the sum of the numbers.",
        "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
        "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
        "generated_tests": {"input": [], "output": []},
        "solutions": {"language": [2, 1, 3], "solution": ["int main() {}", PYTHON2, SUM]},
        "time_limit": {"seconds": 0, "nanos": 500_000_000},
        "memory_limit_bytes": 256_000_000,
        "input_file": "",
        "output_file": "",
    },
    "synthetic1": {
        "prompt": "Solve this in python: print the sum of the numbers.",
        "task_type": "verifiable_code",
        "verification_info": str(
            {"language": "python", "test_cases": [{"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}]}
        ),
        "gold_standard_solution": f"```python\n{SUM}```",
    },
    "deepcoder": {
        "problem": "Add two numbers.",
        "starter_code": "def add(a, b):",
        "tests": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
        "metadata": {"func_name": "add"},
        "solutions": [ADD],
    },
    "livecodebench": {
        "question_content": "Add two numbers.",
        "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
        "private_test_cases": "",
        "starter_code": "def add(a, b):",
        "metadata": json.dumps({"func_name": "add"}),
    },
}


def load(tmp_path, *rows, **options):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows)
    return load_training_set(path, **options)


def test_every_format_has_a_row_here():
    assert ROWS.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_format_is_told_by_its_keys_and_gold_is_right_and_empty_wrong(tmp_path, name):
    (task,) = load(tmp_path, ROWS[name]).tasks
    assert task.id.startswith(name)
    assert (task,) == load(tmp_path, ROWS[name], row_format=name).tasks
    env = open_env("verigym/Math-v0" if task.family == "math" else "verigym/Code-v0", {"sandbox": "unsafe"})
    env.check(task)
    if task.family == "math":
        assert task.hidden["answer"] == "42"
        assert task.prompt.startswith("What is")
        gold = env.score(task, env.gold(task)[-1].content)
        empty = env.score(task, "")
    else:
        answer = env.gold(task)[-1].content if "solution" in task.hidden else f"```python\n{ADD}```"
        gold = asyncio.run(env.score(task, answer))
        empty = asyncio.run(env.score(task, ""))
        assert task.hidden.get("time_limit_s", 6.0) >= 6.0
    assert (gold.value, empty.value) == (1.0, 0.0)


def test_a_set_is_a_file_a_folder_of_parquet_or_on_the_hub(tmp_path, monkeypatch):
    rows = [{**ROWS["deepmath"], "question": f"What is {n} + {n}?"} for n in range(4)]
    for number, part in enumerate((rows[:2], rows[2:])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), tmp_path / f"train-{number}.parquet")
    assert [task.prompt for task in load_training_set(tmp_path).tasks] == [row["question"] for row in rows]
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: (asked.append((*a, k["split"])), rows)[1])
    for source in ("hub:zwhe99/DeepMath-103K", "hub:open-r1/OpenR1-Math-220k/default/train"):
        assert len(load_training_set(source).tasks) == 4
    assert asked == [("zwhe99/DeepMath-103K", None, "train"), ("open-r1/OpenR1-Math-220k", "default", "train")]
    with pytest.raises(ConfigError, match="names no dataset"):
        load_training_set("hub:DeepMath")


def test_rows_that_cannot_be_used_are_counted_with_the_reason_and_none_is_lost(tmp_path):
    good = ROWS["numina_math"]
    bad = [
        {**good, "question_type": "proof"},
        {**good, "answer": "notfound"},
        {**good, "problem_is_valid": "No"},
        {**good, "answer": None},
        {**good, "problem": ""},
        {"problem": "What is 1?", "answer": "1", "question_type": "x", "problem_is_valid": []},
        good,
    ]
    found = load(tmp_path, good, *bad)
    assert len(found.tasks) == 1
    assert found.num_rows == len(bad) + 1
    assert [(one.where, one.reason) for one in found.left_out] == [
        ("rows.jsonl, line 2", "its question_type is 'proof': nothing to compare with"),
        ("rows.jsonl, line 3", "its answer is 'notfound': nothing to compare with"),
        ("rows.jsonl, line 4", "problem_is_valid is 'No'"),
        ("rows.jsonl, line 5", "no answer"),
        ("rows.jsonl, line 6", "no problem"),
        ("rows.jsonl, line 7", "problem_is_valid is []"),
        ("rows.jsonl, line 8", "the same problem as an earlier row"),
    ]
    assert "1 of 8 rows are tasks, 7 are left out (1: " in found.summary()


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("dapo_math", {"ability": "code"}, "its ability is 'code', not math"),
        ("dapo_math", {"reward_model": {"ground_truth": '["1", "2"]'}}, "several answers"),
        ("dapo_math", {"prompt": []}, "no question in prompt"),
        ("gsm8k", {"answer": "#### "}, "no answer"),
        ("math", {"solution": "It is 42."}, "has no box"),
        ("taco", {"input_output": '{"inputs": []}'}, "no tests"),
        ("taco", {"input_output": "{"}, "input_output is not JSON"),
        ("taco", {"input_output": '{"inputs": ["1"], "outputs": []}'}, "not as many outputs"),
        ("code_contests", {"input_file": "in.txt"}, "a file"),
        ("code_contests", {"description": "<image>"}, "an image"),
        ("code_contests", {"private_tests": {"input": ["1"], "output": []}}, "not in the form of code_contests"),
        ("synthetic1", {"verification_info": {"language": "rust", "test_cases": [1]}}, "its language is 'rust'"),
        ("synthetic1", {"verification_info": {}}, "neither test_cases nor ground_truth"),
        ("deepcoder", {"metadata": None}, "without its one name"),
        ("deepcoder", {"tests": '[{"input": "1"}]'}, "without input and output"),
    ],
)
def test_why_a_row_is_of_no_use_is_told(tmp_path, name, changes, reason):
    found = load(tmp_path, ROWS[name], {**ROWS[name], **changes}, row_format=name)
    assert [reason in one.reason for one in found.left_out] == [True]
    with pytest.raises(TaskError, match="no row can be used"):
        load(tmp_path, {**ROWS[name], **changes}, row_format=name)


def test_returned_values_in_a_list_of_one_are_taken_out_of_it(tmp_path):
    cases = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]]}
    row = {**ROWS["taco"], "input_output": json.dumps(cases), "solutions": json.dumps([ADD])}
    (task,) = load(tmp_path, row).tasks
    assert task.hidden["tests"] == [{"args": [1, 2], "expected": 3}, {"args": [3, 4], "expected": 7}]
    assert task.prompt.endswith("Write the function `add`.")
    cases["outputs"] = [[3, 3], [7]]
    (task,) = load(tmp_path, {**row, "input_output": json.dumps(cases)}).tasks
    assert [test["expected"] for test in task.hidden["tests"]] == [[3, 3], [7]]


def test_mathematics_of_synthetic1_and_answers_of_skywork_become_tasks(tmp_path):
    math = {"prompt": "What is 17 + 25?", "task_type": "verifiable_math", "verification_info": '{"ground_truth": "42"}'}
    code = ROWS["synthetic1"]
    found = load(tmp_path, math, code)
    assert [task.family for task in found.tasks] == ["math", "code"]
    (task,) = load(tmp_path, {**DAPO, "reward_model": {"ground_truth": '["42"]', "style": "rule"}}).tasks
    assert task.hidden["answer"] == "42"


def test_what_cannot_be_told_or_is_empty_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"keys spam; known formats: tasks, swe, livecodebench"):
        load(tmp_path, {"spam": 1})
    with pytest.raises(ConfigError, match="no format 'tacos'"):
        load(tmp_path, ROWS["taco"], row_format="tacos")
    with pytest.raises(TaskError, match="has no rows"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TaskError, match="no file that ends in"):
        load_training_set(tmp_path / "empty")
