"""The quickstart's small tasks: right answers, mistakes that fail, and splits that share nothing."""

import contextlib
import io
import re
import subprocess
import sys

import pytest

from verigym.envs.synthesis.mutations import mutations
from verigym.envs.synthesis.operators import OPERATORS
from verigym.envs.synthesis.small_programs import small_programs
from verigym.envs.synthesis.small_repositories import write_small_repository
from verigym.envs.synthesis.small_sums import small_sums
from verigym.errors import TaskError

SEEDS = range(3)


def run_program(program, text):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {"input": lambda: text.rstrip("\n")})
    return out.getvalue()


# Programs.


def test_programs_have_right_tests_and_mistakes_that_fail():
    for task in small_programs(num=150, seed=0, held_out=False):
        tests = task.hidden["tests"]
        assert [run_program(task.hidden["solution"], test["input"]) for test in tests] == [
            test["output"] for test in tests
        ]
        for mistake in task.hidden["mistakes"]:
            assert any(run_program(mistake, test["input"]) != test["output"] for test in tests), task.id


def test_no_one_answer_solves_programs():
    """The commonest solution is the best policy that reads nothing."""
    tasks = small_programs(num=100, seed=0, held_out=True)
    assert len({task.hidden["solution"] for task in tasks}) == 100


def test_programs_of_the_splits_are_all_different():
    train = {task.prompt for seed in SEEDS for task in small_programs(num=600, seed=seed, held_out=False)}
    held_out = {task.prompt for seed in SEEDS for task in small_programs(num=120, seed=seed, held_out=True)}
    assert not train & held_out


def test_programs_come_in_the_number_asked_for():
    tasks = small_programs(num=37, seed=5, held_out=True)
    assert len(tasks) == len({task.id for task in tasks}) == 37
    assert tasks == small_programs(num=37, seed=5, held_out=True)
    assert tasks != small_programs(num=37, seed=6, held_out=True)
    assert {task.family for task in tasks} == {"code"}
    with pytest.raises(TaskError, match="100000 small programs were asked for, this split has"):
        small_programs(num=100_000, seed=5, held_out=True)


# Sums.


def test_sums_have_right_values_and_mistakes_that_fail():
    for task in small_sums(num=300, seed=0, held_out=False):
        assert str(eval(task.hidden["solution"])) == task.hidden["answer"], task.prompt
        for mistake in task.hidden["mistakes"]:
            assert str(eval(mistake)) != task.hidden["answer"], task.prompt


def test_sums_of_the_splits_share_no_problem():
    def numbers(held_out, num):
        tasks = [task for seed in SEEDS for task in small_sums(num=num, seed=seed, held_out=held_out)]
        return {(task.id, *re.findall(r"\d+", task.prompt)) for task in tasks}

    assert not numbers(False, 600) & numbers(True, 120)


def test_sums_come_in_the_number_asked_for():
    tasks = small_sums(num=40, seed=1, held_out=True)
    assert len(tasks) == len({task.id for task in tasks}) == len({task.prompt for task in tasks}) == 40
    assert tasks == small_sums(num=40, seed=1, held_out=True)
    assert {task.family for task in tasks} == {"math"}


# Repositories.


def modules(folder, **kwargs):
    write_small_repository(folder, **kwargs)
    return {path.stem: path.read_text() for path in (folder / "pkg").iterdir() if path.name != "__init__.py"}


def test_repositories_of_the_splits_share_no_function_and_no_file(tmp_path):
    names = {}
    for held_out in (False, True):
        names[held_out] = set()
        for seed in range(12):
            found = modules(tmp_path / f"{held_out}-{seed}", seed=seed, held_out=held_out, num_modules=16)
            assert len(found) == 16
            names[held_out] |= set(found)
            names[held_out] |= {name for text in found.values() for name in re.findall(r"def (\w+)", text)}
    assert not names[False] & names[True]


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    first = modules(tmp_path / "a", seed=4, held_out=True)
    assert first == modules(tmp_path / "b", seed=4, held_out=True)
    assert first != modules(tmp_path / "c", seed=5, held_out=True)


def test_every_test_passes_and_every_bug_contradicts_a_comment(tmp_path):
    """One process for all: each module's test on the right code, and what a changed operator gives instead."""
    found = modules(tmp_path, seed=2, held_out=False, num_modules=16)
    done = subprocess.run(
        [sys.executable, "-c", "import runpy,glob\nfor f in glob.glob('tests/*.py'):\n d=runpy.run_path(f)\n"
         " [d[n]() for n in d if n.startswith('test_')]\n print(f)"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 16
    caught = total = 0
    words = {"+": "add", "-": "subtract", "*": "times"}
    for module, text in found.items():
        for sign, word in re.findall(r" ([-+*]) \w+  # (\w+)", text):
            assert words[sign] == word
        test = (tmp_path / "tests" / f"test_{module}.py").read_text()
        call, value = re.search(r"assert (.*) == (.*)", test).groups()
        bugs = mutations(text, {"arithmetic_operator": OPERATORS["arithmetic_operator"]})
        assert len(bugs) == 2
        for bug in bugs:
            scope = {}
            exec(bug.apply(text), scope)
            total += 1
            caught += eval(call, scope) != int(value)
    assert caught >= 0.9 * total
