"""Problems of evaluation suites stay out of training sets."""

import pathlib
import random
import re

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.decontaminate import (
    SHINGLE_WORDS,
    decontaminate,
    decontaminate_tasks,
    held_out_of,
    problem_of_row,
)
from verigym.envs.datasets.files import read_rows
from verigym.envs.task import Task, read_jsonl, write_jsonl
from verigym.errors import TaskError

AIME = {
    "id": 60,
    "problem": "Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee shop afterwards.",
}
CRUX = {
    "id": "sample_0",
    "code": "def f(nums):\n    out = []\n    for n in nums:\n        out.append((nums.count(n), n))\n",
}
SHORT = {"unique_id": "short", "problem": "Compute $\\sin 60^\\circ$."}
LCB = {
    "question_id": "1873_A",
    "question_content": "There are three cards with letters a b c placed in a row in some order.",
}
SHARED = pathlib.Path(__file__).parents[5] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("EVERY morning aya goes for a 9 kilometer long walk, and stops at a coffee shop afterwards!", "60"),
        (f"Solve this problem, and think before you answer it. {AIME['problem']} How long is the walk?", "60"),
        ("Every morning Bob goes for a swim, and every evening Aya stops at a coffee shop afterwards.", None),
        ("compute sin 60 circ", "short"),
        ("Compute $\\sin 30^\\circ$.", None),
        (CRUX["code"].replace("    ", "  "), "sample_0"),
        (LCB["question_content"] * 2, "1873_A"),
        ("How many letters are there in a row of three cards?", None),
    ],
)
def test_a_problem_is_known_by_its_runs_of_words(text, matches):
    held = [AIME, CRUX, SHORT, LCB]
    rows = [{"question": text, "final_answer": "1"}]
    kept, dropped = decontaminate(rows, held)
    assert [one.matches for one in dropped] == ([matches] if matches else [])
    assert len(kept) + len(dropped) == 1
    tasks = [Task(id="t", family="math", prompt=text)]
    assert len(decontaminate_tasks(tasks, held_out_of(held))[0]) == len(kept)


def test_ids_of_other_sets_are_numbers_and_mean_nothing():
    kept, _ = decontaminate([{"id": 60, "problem": "Something else altogether, about no walk at all."}], [AIME])
    assert len(kept) == 1


def test_prompts_of_messages_and_tasks_of_repositories_are_compared_too():
    message = {"prompt": [{"role": "user", "content": AIME["problem"]}], "reward_model": {}}
    assert decontaminate([message], [AIME])[0] == []
    swe = {"instance_id": "psf__requests-1", "repo": "psf/requests", "problem_statement": "Sending drops the cookies"}
    task = Task(id="x", family="swe", prompt="p", hidden={**swe, "instance_id": "y", "problem_statement": "unlike"})
    _, (dropped,) = decontaminate_tasks([task], held_out_of([swe]))
    assert (dropped.reason, dropped.matches) == ("repository", "psf__requests-1")


def test_a_file_that_states_no_problem_is_refused():
    with pytest.raises(TaskError, match="has none of"):
        decontaminate([], [{"answer": "42"}])


def test_the_command_reports_what_it_left_out(tmp_path, capsys):
    write_jsonl(
        tmp_path / "train.jsonl", [{"problem": AIME["problem"], "answer": "1"}, {"problem": "new", "answer": "2"}]
    )
    write_jsonl(tmp_path / "aime.jsonl", [AIME])
    arguments = [tmp_path / "train.jsonl", "--against", tmp_path / "aime.jsonl", "--out", tmp_path / "clean.jsonl"]
    assert main(["tasks", "decontaminate", *map(str, arguments), "--dropped", str(tmp_path / "dropped.jsonl")]) == 0
    assert "1 of 2 rows left out" in capsys.readouterr().out
    assert [row["answer"] for row in read_jsonl(tmp_path / "clean.jsonl")] == ["2"]
    (dropped,) = read_jsonl(tmp_path / "dropped.jsonl")
    assert (dropped["reason"], dropped["matches"]) == ("statement", "60")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the suites' files, which this checkout has not")
def test_every_problem_of_the_real_suites_is_found_again_in_other_words_around_it():
    names = ["math/math500", "math/aime24", "math/aime25", "math/gsm8k_test", "code/humaneval", "code/mbpp"]
    names += ["code/livecodebench_problems", "code/cruxeval"]
    suites = [row.value for name in names for row in read_rows(SHARED / f"{name}.jsonl")]
    held = held_out_of(suites)
    for row in random.Random(0).sample(suites, 200):
        text = problem_of_row(row).statement
        if len(re.findall(r"\w+", text)) >= SHINGLE_WORDS:
            assert held.match(problem_of_row({"problem": f"Please solve this.\n{text}\nThink first."})), text
